"""One feature's stats as the rows of one matrix: what is read, padded and pooled in one piece.

Nearly all stats are float64 vectors of one width, and a mixture has thousands of them: an array a
stat would cost more to make than the numbers in it do to parse. A `StatMatrix` is a mapping, and
can stand wherever `stat -> array` does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.pooling.columns import is_quantile
from opentau_prep.pooling.rows import N_OTHERS, pool_rows, total_weight

__all__ = [
    "COUNT",
    "MIN_WIDTH",
    "StatLayout",
    "StatMatrix",
    "as_arrays",
    "pool_blocks",
    "pool_matrices",
]

COUNT = "count"
MIN_WIDTH = 2
"""Fewer columns would be added in another order: see `rows`."""
_POOLED_ORDER = ("min", "max", "mean", "std", COUNT)

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StatLayout:
    """Which stats a feature has, and where each stands in the matrix.

    Attributes:
        names: The stats in the order that they were written in, `count` among them if there is one.
        order: The rows: mean, the quantiles sorted by name, std, min, max.
        row: Stat -> row.
    """

    names: tuple[str, ...]
    order: tuple[str, ...]
    row: Mapping[str, int]

    @staticmethod
    @functools.lru_cache(maxsize=256)  # a few layouts for all the datasets there are
    def of(names: tuple[str, ...]) -> StatLayout | None:
        """Return the layout of these stats; None when one is missing, or one is not known."""
        quantiles = sorted(filter(is_quantile, names))
        order = ("mean", *quantiles, "std", "min", "max")
        if set(order) != set(names) - {COUNT}:
            return None
        return StatLayout(names, order, {stat: row for row, stat in enumerate(order)})

    @functools.cached_property
    def pooled(self) -> StatLayout:
        """The layout of what several of these are pooled to."""
        names = (*_POOLED_ORDER, *self.order[1:-N_OTHERS])
        layout = StatLayout.of(names)
        assert layout is not None  # the same stats, and a count
        return layout


class StatMatrix(Mapping[str, Array]):
    """The stats of one feature: stat -> (width,) float64, and `count`.

    Attributes:
        layout: Which row is which.
        matrix: (S, W) float64: the rows.
        count: What `count` holds, or None when the stats have none.
        width: How wide each stat is: `matrix` cut, or padded with zeros.
    """

    __slots__ = ("count", "layout", "matrix", "width")

    def __init__(
        self, layout: StatLayout, matrix: Floats, count: int | None, width: int | None = None
    ) -> None:
        self.layout = layout
        self.matrix = matrix
        self.count = count
        self.width = matrix.shape[1] if width is None else width

    def __getitem__(self, stat: str) -> Array:
        """Return one stat; those of full width are views."""
        if stat == COUNT and self.count is not None:
            return np.array([self.count])
        return self._resized(self.matrix[self.layout.row[stat]])

    def __iter__(self) -> Iterator[str]:
        """Yield the stats in the order that they were written in."""
        return iter(self.layout.names)

    def __len__(self) -> int:
        """Return how many stats there are, `count` among them."""
        return len(self.layout.names)

    def __contains__(self, stat: object) -> bool:
        """Tell whether there is such a stat."""
        return stat in self.layout.names

    def arrays(self) -> dict[str, Array]:
        """Return what `dict` does, each stat a row of one array."""
        rows, row = self._resized(self.matrix), self.layout.row
        return {s: rows[row[s]] if s in row else self[s] for s in self.layout.names}

    def select(self, columns: Sequence[int]) -> StatMatrix:
        """Return the stats of some columns, in that order."""
        return StatMatrix(self.layout, self.matrix[:, columns], self.count)

    def resized(self, width: int) -> StatMatrix:
        """Return the stats cut or padded with zeros to a width."""
        return StatMatrix(self.layout, self.matrix, self.count, width)

    def _resized(self, values: Floats) -> Floats:
        own = values.shape[-1]
        if own >= self.width:
            return values if own == self.width else values[..., : self.width]
        padded = np.zeros((*values.shape[:-1], self.width))
        padded[..., :own] = values
        return padded


def as_arrays(entry: Mapping[str, Array]) -> dict[str, Array]:
    """Return one feature's stats as a plain dict of their own."""
    return entry.arrays() if isinstance(entry, StatMatrix) else dict(entry)


def pool_matrices(
    features: Mapping[str, Sequence[StatMatrix]], weights: Floats
) -> dict[str, dict[str, Array]]:
    """Return the pooled stats of features of several contributors, as `aggregate_stats` does.

    Args:
        features: Feature -> the contributors' stats.
        weights: (n,) float64, >= 0.

    Returns:
        feature -> stat -> array, without the features whose contributors do not all have the same
        stats, of one width of 2 or more.
    """
    groups: dict[StatLayout, dict[str, Floats]] = {}
    for feature, matrices in features.items():
        block = _stacked(matrices)
        if block is not None:
            groups.setdefault(matrices[0].layout, {})[feature] = block
    total = total_weight(weights)
    found: dict[str, dict[str, Array]] = {}
    for layout, blocks in groups.items():
        pooled = _pool_joined(list(blocks.values()), weights)
        for feature, rows in zip(blocks, pooled, strict=True):
            found[feature] = StatMatrix(layout.pooled, rows, 0).arrays() | {COUNT: total.copy()}
    return found


def _stacked(matrices: Sequence[StatMatrix]) -> Floats | None:
    """Return matrices in one block, (n, S, width); None unless all are alike."""
    first = matrices[0]
    alike = all(m.layout is first.layout and m.width == first.width for m in matrices)
    if not alike or first.width < MIN_WIDTH:
        return None
    block = np.zeros((len(matrices), len(first.layout.order), first.width))
    start = 0
    for own, run in groupby(matrices, key=lambda m: m.matrix.shape[1]):
        parts = [m.matrix for m in run]
        kept = min(own, first.width)
        stacked = np.concatenate(parts).reshape(len(parts), -1, own)
        block[start : start + len(parts), :, :kept] = stacked[..., :kept]
        start += len(parts)
    return block


def pool_blocks(blocks: Sequence[Floats], layout: StatLayout, counts: Array) -> list[StatMatrix]:
    """Return the pooled stats of features whose contributors have the same counts.

    Args:
        blocks: For each feature (n, S, W) float64 in the order of the layout; W >= 2.
        layout: Of all features.
        counts: (n, 1) int64, >= 0: what the n contributors weigh.
    """
    total = int(counts.sum())
    return [StatMatrix(layout.pooled, rows, total) for rows in _pool_joined(blocks, counts)]


def _pool_joined(blocks: Sequence[Floats], weights: Array) -> list[Floats]:
    """Return the pooled rows of blocks of one layout, (S, W) each, in one go."""
    joined = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=2)
    pooled = pool_rows(joined, weights.reshape(-1, 1, 1))
    ends = list(accumulate(block.shape[2] for block in blocks))
    return [pooled[:, end - block.shape[2] : end] for block, end in zip(blocks, ends, strict=True)]
