"""The exact running total of one loss over some samples, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.val_loss.exact import decode_fixed, encode_fixed, fixed_to_fraction, sum_by_group
from opentau_prep.val_loss.samples import LossValues

__all__ = ["Tally", "tally_by_group", "to_float"]


@dataclass(frozen=True)
class Tally:
    """What some samples brought for one loss. Tallies add with `+`, exactly.

    Attributes:
        samples: Samples seen, the non-finite ones included.
        non_finite: Samples whose sum or count was NaN or infinite: they are in nothing else.
        sum: Exact total of the finite samples' sums, in units of 2^-1152.
        count: The same of their counts.
    """

    samples: int = 0
    non_finite: int = 0
    sum: int = 0
    count: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.samples + other.samples,
            self.non_finite + other.non_finite,
            self.sum + other.sum,
            self.count + other.count,
        )

    @classmethod
    def total(cls, parts: Iterable[Tally]) -> Tally:
        """Return the sum of the parts; an empty tally of none."""
        return sum(parts, cls())

    @property
    def loss(self) -> Fraction | None:
        """Total sum over total count, exact; None when nothing was counted."""
        return Fraction(self.sum, self.count) if self.count else None

    @property
    def count_as_number(self) -> int | float:
        """The total count, an int where it is whole."""
        exact = fixed_to_fraction(self.count)
        return exact.numerator if exact.denominator == 1 else float(exact)

    def as_state(self) -> dict[str, int | str]:
        """Return the tally as a JSON-ready mapping that loses no bit."""
        return {
            "samples": self.samples,
            "non_finite": self.non_finite,
            "sum": encode_fixed(self.sum),
            "count": encode_fixed(self.count),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Tally:
        """Return the tally that `as_state` wrote.

        Raises:
            DataError: A number in it is malformed.
            KeyError: A field is missing.
        """
        samples, non_finite = state["samples"], state["non_finite"]
        if not (type(samples) is type(non_finite) is int and 0 <= non_finite <= samples):
            raise DataError(
                f"{non_finite!r} of {samples!r} samples non-finite", where="GroupedLosses state"
            )
        return cls(samples, non_finite, decode_fixed(state["sum"]), decode_fixed(state["count"]))


def tally_by_group(values: LossValues, groups: NDArray[np.int64], n_groups: int) -> list[Tally]:
    """Return one tally a group.

    Args:
        values: N samples of one loss.
        groups: (N,) int64, each in `[0, n_groups)`.
        n_groups: How many tallies to return.
    """
    finite = np.isfinite(values.sums) & np.isfinite(values.counts)
    samples = np.bincount(groups, minlength=n_groups)
    kept = np.bincount(groups[finite], minlength=n_groups)
    sums = sum_by_group(values.sums[finite], groups[finite], n_groups)
    counts = sum_by_group(values.counts[finite], groups[finite], n_groups)
    return [
        Tally(int(samples[g]), int(samples[g] - kept[g]), sums[g], counts[g])
        for g in range(n_groups)
    ]


def to_float(value: Fraction) -> float:
    """Return the nearest float64; infinity beyond the largest."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
