"""Exact sums of float64 values: no rounding, whatever the order, the grouping or the magnitudes.

Every finite float64 is a mantissa of 53 bits times a power of two, so a sum of them is a big
integer at a fixed point. Mantissas of one group and power are added in NumPy, the few hundred sums
in Python integers, which never overflow and never round. Integer addition is associative and
commutative: that, and nothing else, makes results independent of order, batch size and ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError

__all__ = [
    "LossValues",
    "Tally",
    "decode_fixed",
    "encode_fixed",
    "fixed_to_fraction",
    "sum_by_group",
    "tally_by_group",
    "to_float",
]

# Totals are in units of 2^-1152: below every bit of a float64, the smallest of which is 2^-1074.
_UNIT_EXPONENT: Final = 1152
# More than any shift of a mantissa: the largest exponent is 971.
_MAX_SHIFT: Final = 1 << 12
# Mantissas are added in two halves, so that 2^36 of them stay inside int64.
_HALF_BITS: Final = 27


@dataclass(frozen=True)
class LossValues:
    """One loss of N samples: `sums` and `counts`, (N,) float64."""

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]


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
    """Return one tally per group.

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


def sum_by_group(
    values: NDArray[np.float64], groups: NDArray[np.int64], n_groups: int
) -> list[int]:
    """Return each group's exact sum, as an integer multiple of 2^-1152.

    Args:
        values: (N,) float64, all finite.
        groups: (N,) int64, each in `[0, n_groups)`.
        n_groups: How many sums to return; a group without values sums to 0.

    Returns:
        `n_groups` integers.
    """
    fraction, exponent = np.frexp(values)
    mantissa = np.ldexp(fraction, 53).astype(np.int64)
    shift = exponent.astype(np.int64) - 53 + _UNIT_EXPONENT
    keys, places = np.unique(groups * _MAX_SHIFT + shift, return_inverse=True)
    totals = [0] * n_groups
    high = mantissa >> _HALF_BITS
    for bits, more in ((high, _HALF_BITS), (mantissa - (high << _HALF_BITS), 0)):
        sums = np.zeros(len(keys), dtype=np.int64)
        np.add.at(sums, places, bits)
        for key, part in zip(keys.tolist(), sums.tolist(), strict=True):
            totals[key // _MAX_SHIFT] += part << (key % _MAX_SHIFT + more)
    return totals


def fixed_to_fraction(total: int) -> Fraction:
    """Return a total of `sum_by_group` as an exact number."""
    return Fraction(total, 1 << _UNIT_EXPONENT)


def encode_fixed(total: int) -> str:
    """Return the total as text, `"<hex integer>p<power of two>"`, a few dozen characters as a rule.

    The integer is odd (or zero), so equal totals have equal texts. Example: 1.5 is `"3p-1"`.
    """
    if total == 0:
        return "0p0"
    zeros = (total & -total).bit_length() - 1
    return f"{total >> zeros:x}p{zeros - _UNIT_EXPONENT}"


def decode_fixed(text: object) -> int:
    """Return the total that `encode_fixed` wrote.

    Raises:
        DataError: The text is not of that form, or not a number that sums of float64 can reach.
    """
    try:
        digits, _, power = str(text).partition("p")
        value, zeros = int(digits, 16), int(power) + _UNIT_EXPONENT
    except ValueError as error:
        raise _bad_sum(text) from error
    if not isinstance(text, str) or (value and not 0 <= zeros <= 1 << 12) or len(text) > 1 << 12:
        raise _bad_sum(text)
    return value << zeros if value else 0


def _bad_sum(text: object) -> DataError:
    return DataError(
        f"{str(text)[:60]!r} is not an exact sum",
        where="GroupedLosses state",
        hint="Pass the state as `state()` returned it.",
    )
