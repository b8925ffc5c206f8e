"""Mergeable count, mean, variance and range of each dim, in float64.

A block is reduced span by span (an episode, or a piece of a long one), and spans are merged in a
balanced tree whose shape depends only on their order: the same spans in the same order give the
same bits, whoever reduced them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError

__all__ = ["Moments", "block_moments", "column_moments", "merge_moments", "span_moments"]

# Values that are widened to float64 at a time: within the second-level cache.
_SLAB_VALUES = 1 << 16
_INTEGER_FIELDS = ("count", "nan", "pos_inf", "neg_inf")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of one feature: arrays of shape (D,), or (E, D) for E spans.

    Attributes:
        count: int64, finite values.
        mean: float64 mean of the finite values, NaN where there is none.
        mean_rest: float64, what rounding to float64 took off the mean. Without it, merging parts
            whose mean is huge next to their spread would lose the spread's digits.
        m2: float64 sum of squared deviations from the mean.
        min: float64 smallest finite value, NaN where there is none.
        max: float64 largest finite value, NaN where there is none.
        nan: int64, NaN values, which are left out of everything else.
        pos_inf: int64, likewise +Inf.
        neg_inf: int64, likewise -Inf.
    """

    count: Ints
    mean: Floats
    mean_rest: Floats
    m2: Floats
    min: Floats
    max: Floats
    nan: Ints
    pos_inf: Ints
    neg_inf: Ints

    @property
    def std(self) -> Floats:
        """Population standard deviation, NaN where there is no finite value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(np.where(self.count > 0, self.m2 / self.count, np.nan))

    @property
    def non_finite(self) -> Ints:
        """How many values were not finite."""
        return self.nan + self.pos_inf + self.neg_inf

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both together.

        Raises:
            DataError: The widths differ.

        Source: Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".
        """
        if self.count.shape != other.count.shape:
            raise DataError(
                f"cannot merge moments of shape {self.count.shape} with {other.count.shape}"
            )
        count = self.count + other.count
        # The empty side counts as equal to the other one, so that it moves nothing.
        empty, other_empty = self.count == 0, other.count == 0
        mean, rest = (
            np.where(empty, theirs, mine)
            for mine, theirs in ((self.mean, other.mean), (self.mean_rest, other.mean_rest))
        )
        with np.errstate(over="ignore", invalid="ignore"):
            delta = np.where(
                empty | other_empty, 0.0, (other.mean - mean) + (other.mean_rest - rest)
            )
            share = other.count / np.maximum(count, 1)
            return Moments(
                count,
                *_add(mean, rest + delta * share),
                self.m2 + other.m2 + delta**2 * (self.count * share),
                np.fmin(self.min, other.min),
                np.fmax(self.max, other.max),
                self.nan + other.nan,
                self.pos_inf + other.pos_inf,
                self.neg_inf + other.neg_inf,
            )

    def __getitem__(self, rows: Any) -> Moments:
        """Return the moments of a selection of spans."""
        return Moments(*(getattr(self, field.name)[rows] for field in fields(self)))

    def total(self) -> Moments:
        """Merge the E spans of an (E, D) record into one of shape (D,), pairwise in their order."""
        spans = self
        if not len(spans.count):
            return _empty((self.count.shape[1],))
        while len(spans.count) > 1:
            even = len(spans.count) // 2 * 2
            merged = spans[0:even:2].merge(spans[1:even:2])
            spans = _concatenate([merged, spans[even:]])
        return spans[0]

    def as_json(self) -> dict[str, list[Any]]:
        """Return the state as lists; a number that is not finite becomes a string."""
        return {field.name: _encode(getattr(self, field.name).tolist()) for field in fields(self)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Moments:
        """Rebuild what `as_json` gave, to the last bit.

        Raises:
            DataError: A field is missing or holds something else than numbers of one shape.
        """
        arrays: dict[str, Any] = {}
        for field in fields(cls):
            dtype = np.int64 if field.name in _INTEGER_FIELDS else np.float64
            try:
                # float() reads the strings of non-finite numbers as well.
                arrays[field.name] = np.asarray(state[field.name], dtype=np.float64).astype(dtype)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"moments with a missing or broken field {field.name!r}") from error
        if len({array.shape for array in arrays.values()}) != 1:
            raise DataError("moments whose fields differ in shape")
        return cls(**arrays)


def block_moments(matrix: NDArray[Any]) -> Moments:
    """Return the moments (D,) of an (N, D) block of numbers."""
    return span_moments(matrix, np.array([[0, len(matrix)]], dtype=np.int64))[0]


def span_moments(matrix: NDArray[Any], spans: Ints) -> Moments:
    """Return the moments (E, D) of E spans of rows.

    Args:
        matrix: (N, D) numbers; anything but float64 is widened, a slab at a time.
        spans: (E, 2) int64 first and past-the-last row of each span.
    """
    return column_moments(matrix.T, spans)


def column_moments(columns: NDArray[Any], spans: Ints) -> Moments:
    """Return the same as `span_moments` of (D, N) numbers, which may lie in memory either way."""
    limit = max(1, _SLAB_VALUES // max(1, len(columns)))
    pieces, owner = _split(spans, limit)
    parts: list[Moments] = []
    for first, last in _group(pieces, limit):
        group = pieces[first:last]
        sizes = np.array([b - a for a, b in group], dtype=np.int64)
        low, high = group[0][0], group[-1][1]
        slab = columns[:, low:high]
        if high - low != sizes.sum():  # spans with rows between them, or out of order
            slab = np.concatenate([columns[:, a:b] for a, b in group], axis=1)
        parts.append(_reduce(np.array(slab, dtype=np.float64, order="C"), sizes))
    found = _concatenate(parts) if parts else _empty((0, len(columns)))
    return _gather(found, owner, len(spans))


def merge_moments(parts: Sequence[Moments]) -> Moments:
    """Merge records of shape (D,), pairwise in the order given.

    Raises:
        DataError: There is none, or their widths differ.
    """
    if not parts:
        raise DataError("no moments to merge")
    if len({part.count.shape for part in parts}) != 1:
        raise DataError(f"moments of different widths: {[part.count.shape[0] for part in parts]}")
    return _concatenate([part[np.newaxis] for part in parts]).total()


def _split(spans: Ints, limit: int) -> tuple[list[tuple[int, int]], Ints]:
    """Cut spans into non-empty pieces of at most `limit` rows; say whose piece each is."""
    pieces: list[tuple[int, int]] = []
    owner: list[int] = []
    for span, (start, stop) in enumerate(spans.tolist()):
        for cut in range(start, stop, limit):
            pieces.append((cut, min(cut + limit, stop)))
            owner.append(span)
    return pieces, np.array(owner, dtype=np.int64)


def _group(pieces: list[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Group consecutive pieces so that no group has more than `limit` rows."""
    groups: list[tuple[int, int]] = []
    first = rows = 0
    for k, (start, stop) in enumerate(pieces):
        if rows + stop - start > limit:
            groups.append((first, k))
            first, rows = k, 0
        rows += stop - start
    if rows:
        groups.append((first, len(pieces)))
    return groups


def _gather(found: Moments, owner: Ints, num_spans: int) -> Moments:
    """Merge the pieces of each span; a span without rows has none."""
    if np.array_equal(owner, np.arange(num_spans)):
        return found
    bounds = np.searchsorted(owner, np.arange(num_spans + 1))
    pairs = itertools.pairwise(bounds.tolist())
    return _concatenate([found[a:b].total()[np.newaxis] for a, b in pairs])


def _reduce(columns: Floats, sizes: Ints) -> Moments:
    """Reduce (D, N) columns, which it uses as scratch space, to the moments (E, D) of E pieces."""
    stops = np.cumsum(sizes)
    starts = stops - sizes
    low = np.minimum.reduceat(columns, starts, axis=1)
    high = np.maximum.reduceat(columns, starts, axis=1)
    finite = None
    count = np.broadcast_to(sizes, low.shape)
    bad = np.zeros((3, *low.shape), dtype=np.int64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        finite = np.isfinite(columns)
        kinds = (np.isnan(columns), columns == np.inf, columns == -np.inf)
        bad = np.stack([np.add.reduceat(kind, starts, axis=1, dtype=np.int64) for kind in kinds])
        count = sizes - bad.sum(axis=0)
        low = np.minimum.reduceat(np.where(finite, columns, np.inf), starts, axis=1)
        high = np.maximum.reduceat(np.where(finite, columns, -np.inf), starts, axis=1)
        columns = np.where(finite, columns, 0.0)
    mean, rest, m2 = _center(columns, finite, starts, stops, count)
    # A constant has no spread: rounding must not say otherwise.
    constant, none = low == high, count == 0
    rest, m2 = (np.where(constant | none, 0.0, array) for array in (rest, m2))
    mean, low, high = (np.where(none, np.nan, array) for array in (mean, low, high))
    return Moments(*(np.ascontiguousarray(a.T) for a in (count, mean, rest, m2, low, high, *bad)))


def _center(
    columns: Floats, finite: NDArray[np.bool_] | None, starts: Ints, stops: Ints, count: Ints
) -> tuple[Floats, Floats, Floats]:
    """Return mean, its rest and sum of squares, corrected for the first mean's error."""
    number = np.maximum(count, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.add.reduceat(columns, starts, axis=1) / number
        for k, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            columns[:, start:stop] -= mean[:, k, np.newaxis]
        if finite is not None:
            columns *= finite
        residue = np.add.reduceat(columns, starts, axis=1)
        np.square(columns, out=columns)
        m2 = np.add.reduceat(columns, starts, axis=1) - residue**2 / number
        return (*_add(mean, residue / number), np.maximum(m2, 0.0))


def _add(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return the rounded sum and the rounding's rest (Knuth's two-sum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _concatenate(parts: Sequence[Moments]) -> Moments:
    return Moments(
        *(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(Moments))
    )


def _empty(shape: tuple[int, ...]) -> Moments:
    none = {field.name: np.full(shape, np.nan) for field in fields(Moments)}
    none["m2"] = none["mean_rest"] = np.zeros(shape)
    counts = {name: np.zeros(shape, dtype=np.int64) for name in _INTEGER_FIELDS}
    return Moments(**{**none, **counts})


def _encode(value: Any) -> Any:
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
