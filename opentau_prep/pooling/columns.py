"""The stats of one feature over all contributors, read stat by stat, and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import MetadataError

__all__ = ["REQUIRED", "FeatureColumns", "StackedColumns", "is_quantile"]

REQUIRED = ("min", "max", "mean", "std")
_QUANTILE = re.compile(r"q\d+(?:[._]\d+)?")

Array = NDArray[Any]
FeatureStats = Mapping[str, Array]


@lru_cache(maxsize=256)  # the same few names come once per stat of every dataset
def is_quantile(stat: str) -> bool:
    """Return whether a stat's name is that of a quantile, such as `q01` or `q99.9`."""
    return _QUANTILE.fullmatch(stat) is not None


@dataclass(frozen=True)
class FeatureColumns:
    """The stats of one feature, read stat by stat over all contributors that have it."""

    feature: str
    positions: list[int]
    entries: list[FeatureStats]
    names: Sequence[str] | None

    def stack(self, stat: str, *, square: bool = False) -> Array:
        """Return one stat as (n, *shape), or its squares, each formed in its own dtype."""
        try:
            arrays = [np.asarray(entry[stat]) for entry in self.entries]
        except ValueError as error:
            raise self._not_numbers(stat) from error
        shape = arrays[0].shape
        for i, array in enumerate(arrays):
            if array.shape != shape or not shape:
                raise self.bad_shape(i, stat, array.shape, shape)
        if square and len({array.dtype for array in arrays}) > 1:
            return np.stack([array**2 for array in arrays])
        # Concatenating and folding is np.stack without its cost per contributor.
        stacked = np.concatenate(arrays).reshape(len(arrays), *shape)
        if stacked.dtype.kind not in "biuf":
            raise self._not_numbers(stat)
        return stacked**2 if square else stacked

    def counts(self) -> Array:
        """Return the contributors' own counts as (n, 1)."""
        for i, entry in enumerate(self.entries):
            if "count" not in entry:
                raise MetadataError(
                    f"stats of {self.feature!r} have no 'count' to weight them with",
                    where=self._who(i),
                    hint="Recompute the stats of this dataset.",
                )
        counts = self.stack("count")
        usable = np.isfinite(counts) & (counts >= 0)
        if not usable.all():
            bad = int(np.flatnonzero(~usable)[0])
            raise MetadataError(
                f"'count' of {self.feature!r} is {counts[bad, 0]}, not a number of frames",
                where=self._who(bad),
                hint="Recompute the stats of this dataset.",
            )
        return counts

    def check(self) -> None:
        """Raise unless every contributor has what is pooled, in shapes that can be."""
        for i, entry in enumerate(self.entries):
            lacking = [stat for stat in REQUIRED if stat not in entry]
            if lacking:
                raise MetadataError(
                    f"stats of {self.feature!r} lack {', '.join(lacking)}",
                    where=self._who(i),
                    hint="Recompute the stats of this dataset.",
                )
            if "count" in entry and np.shape(entry["count"]) != (1,):
                raise self.bad_shape(i, "count", np.shape(entry["count"]), (1,))

    def quantiles(self) -> tuple[list[str], dict[tuple[int, ...], tuple[str, ...]]]:
        """Return the quantiles that all carry, and the others by the positions of who lacks them.

        Both are sorted by name, so that the first lacking one decides a group's place.
        """
        carried = [{stat for stat in entry if is_quantile(stat)} for entry in self.entries]
        everywhere = set.intersection(*carried)
        lacking: dict[tuple[int, ...], tuple[str, ...]] = {}
        for name in sorted(set().union(*carried) - everywhere):
            who = tuple(self.positions[i] for i, have in enumerate(carried) if name not in have)
            lacking[who] = (*lacking.get(who, ()), name)
        return sorted(everywhere), lacking

    def _who(self, i: int) -> str:
        position = self.positions[i]
        return f"contributor {position}" if self.names is None else self.names[position]

    def _not_numbers(self, stat: str) -> MetadataError:
        objects = (np.asarray(entry[stat], dtype=object) for entry in self.entries)
        who = next((i for i, array in enumerate(objects) if not _all_numbers(array)), 0)
        return MetadataError(
            f"{stat!r} of {self.feature!r} is not an array of numbers",
            where=self._who(who),
            hint="Recompute the stats of this dataset.",
        )

    def bad_shape(
        self, i: int, stat: str, found: tuple[int, ...], expected: tuple[int, ...]
    ) -> MetadataError:
        """Return the error for a stat of the i-th entry that has another shape than expected."""
        if not found:
            expectation = "an array of at least one axis was expected"
        elif stat == "count":
            expectation = "(1,) was expected"
        else:
            expectation = f"that of {self._who(0)} has {expected or '()'}"
        return MetadataError(
            f"{stat!r} of {self.feature!r} has shape {found}, but {expectation}",
            where=self._who(i),
            hint="Contributors can only be pooled when their stats have the same shapes.",
        )


@dataclass(frozen=True)
class StackedColumns(FeatureColumns):
    """The same out of ready blocks, whose first row speaks for the shapes of all."""

    block: FeatureStats

    def stack(self, stat: str, *, square: bool = False) -> Array:
        """Return one stat as (n, *shape), or its squares; see `FeatureColumns.stack`."""
        # In rows: NumPy adds columns that lie one after the other in another order.
        rows = np.ascontiguousarray(self.block[stat])
        return rows**2 if square else rows


def _all_numbers(array: Array) -> bool:
    return all(isinstance(value, (bool, int, float, np.number, np.bool_)) for value in array.flat)
