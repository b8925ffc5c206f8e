"""Mergeable quantile sketches of every dim: order statistics at evenly spaced ranks.

A block's sketch is read off its sorted columns: at most `SIZE` values, each standing for equally
many. Sketches are merged by sorting their values with those weights, and reading off the values at
evenly spaced ranks again. Every step moves a rank by at most half a value's weight, 1 / (2 * SIZE);
nothing is random, so the same parts in the same order give the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opentau_prep.errors import DataError
from opentau_prep.stats.quantiles import SortedColumns, sort_columns

__all__ = [
    "RANK_ERROR",
    "QuantileSketch",
    "SketchTree",
    "decode_sketches",
    "encode_sketches",
]

# Order statistics kept per dim; RANK_ERROR below follows from it.
SIZE = 2000
RANK_ERROR = 0.001
"""How far a quantile's rank is off at most, of up to 4,096 blocks merged by a `SketchTree`."""
_FORMAT = "opentau-prep/order-statistics"
# Sketches merged at a time: each merge adds to the error, so the tree is flat.
_FANOUT = 16
# Finite values, smallest, largest, bytes per value.
_HEADER = struct.Struct("<QddB")
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Dim:
    """One dim's sketch.

    Attributes:
        count: How many finite values there were.
        low: The smallest, NaN where there is none.
        high: The largest, likewise.
        values: (m,) float64, ascending, m <= SIZE. All the values where m is `count`; else value i
            is the order statistic at rank (i + 1/2) / m.
    """

    count: int
    low: float
    high: float
    values: Floats

    @classmethod
    def of_sorted(cls, values: NDArray[Any]) -> _Dim:
        count = len(values)
        if not count:
            return cls(0, np.nan, np.nan, np.zeros(0))
        kept = values if count <= SIZE else values[_middles(count, SIZE).astype(np.int64)]
        # A sort leaves open which of two equal zeros comes first; the sign must not depend on it.
        kept = kept.astype(np.float64) + 0.0
        return cls(count, float(values[0]) + 0.0, float(values[-1]) + 0.0, kept)

    @classmethod
    def merged(cls, parts: Sequence[_Dim]) -> _Dim:
        parts = [part for part in parts if part.count]
        if len(parts) <= 1:
            return parts[0] if parts else cls.of_sorted(np.zeros(0))
        count = sum(part.count for part in parts)
        values = np.concatenate([part.values for part in parts])
        order = np.argsort(values, kind="stable")
        values = values[order]
        if count > len(values) or count > SIZE:
            weights = [np.full(len(p.values), p.count / len(p.values)) for p in parts]
            ends = np.cumsum(np.concatenate(weights)[order])
            size = min(SIZE, count)
            at = np.searchsorted(ends, _middles(count, size), side="right")
            values = values[np.minimum(at, len(values) - 1)]
        low, high = min(part.low for part in parts), max(part.high for part in parts)
        return cls(count, low, high, values)

    def quantiles(self, fractions: Floats) -> Floats:
        if not self.count:
            return np.full(len(fractions), np.nan)
        return np.interp(fractions * (self.count - 1) + 0.5, *self._curve())

    def rank(self, value: float) -> float:
        if not self.count or np.isnan(value):
            return np.nan
        first, last = (int(np.searchsorted(self.values, value, side)) for side in ("left", "right"))
        if first < last:
            return (first + last) / 2 / len(self.values)
        ranks, values = self._curve()
        return float(np.interp(value, values, ranks, left=0.0, right=self.count) / self.count)

    def _curve(self) -> tuple[Floats, Floats]:
        """Return ranks, counted in values, and the values there."""
        ranks = np.empty(len(self.values) + 2)
        ranks[0], ranks[-1] = 0.5, self.count - 0.5
        ranks[1:-1] = _middles(self.count, len(self.values))
        return ranks, np.concatenate([[self.low], self.values, [self.high]])

    def to_bytes(self) -> bytes:
        single = self.values.astype("<f4")
        exact = bool((single.astype(np.float64) == self.values).all())
        kept = single if exact else self.values.astype("<f8")
        return _HEADER.pack(self.count, self.low, self.high, kept.itemsize) + kept.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> _Dim:
        count, low, high, itemsize = _HEADER.unpack_from(data)
        if itemsize not in (4, 8):
            raise DataError("sketches of another layout")
        values = np.frombuffer(data, f"<f{itemsize}", offset=_HEADER.size).astype(np.float64)
        if len(values) != min(count, SIZE) or (np.diff(values) < 0).any():
            raise DataError("a damaged sketch")
        return cls(count, low, high, values)


class QuantileSketch:
    """Sketches of the finite values of one feature's D dims; never changed once made."""

    def __init__(self, dims: Sequence[_Dim]) -> None:
        self._dims = tuple(dims)

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> QuantileSketch:
        """Sketch an (N, D) block. Memory: one copy of it."""
        return cls.of_sorted(sort_columns(matrix))

    @classmethod
    def of_sorted(cls, columns: SortedColumns) -> QuantileSketch:
        """Sketch a block whose columns are sorted already."""
        spans = zip(columns.values, columns.start.tolist(), columns.stop.tolist(), strict=True)
        return cls([_Dim.of_sorted(values[a:b]) for values, a, b in spans])

    @property
    def dims(self) -> int:
        """The number of dims, D."""
        return len(self._dims)

    @property
    def count(self) -> NDArray[np.int64]:
        """(D,) int64: finite values per dim."""
        return np.array([dim.count for dim in self._dims], dtype=np.int64)

    def merge(self, *others: QuantileSketch) -> QuantileSketch:
        """Return the sketch of all together, off by 1 / (2 * SIZE) more than the worst of them.

        Merge many in one call, or by a `SketchTree`: each call in a row adds to the error.

        Raises:
            DataError: The widths differ.
        """
        widths = {other.dims for other in others} - {self.dims}
        if widths:
            raise DataError(f"cannot merge sketches of {self.dims} and {sorted(widths)} dims")
        columns = zip(self._dims, *(other._dims for other in others), strict=True)
        return QuantileSketch([_Dim.merged(parts) for parts in columns])

    def select(self, dims: Sequence[int]) -> QuantileSketch:
        """Return the sketch of some of the dims, in that order."""
        return QuantileSketch([self._dims[d] for d in dims])

    @classmethod
    def side_by_side(cls, parts: Sequence[QuantileSketch]) -> QuantileSketch:
        """Return the sketch whose dims are those of all parts, one after the other."""
        return cls([dim for part in parts for dim in part._dims])

    def quantiles(self, q: Sequence[float]) -> Floats:
        """Return (Q, D) float64 quantiles, NaN for a dim without values.

        Ranks are those of NumPy's linear interpolation, which up to `SIZE` values is the result.
        """
        fractions = np.asarray(q, dtype=np.float64)
        found = [dim.quantiles(fractions) for dim in self._dims]
        return np.stack(found, axis=1) if found else np.zeros((len(fractions), 0))

    def ranks(self, values: ArrayLike) -> Floats:
        """Return (D,) float64: the share of values below `values`, plus half of those equal.

        Args:
            values: (D,) one value per dim. NaN in, or a dim without values, gives NaN.

        Raises:
            DataError: The width differs.
        """
        wanted = np.asarray(values, dtype=np.float64)
        if wanted.shape != (self.dims,):
            raise DataError(f"expected {self.dims} values, one per dim, found {wanted.shape}")
        pairs = zip(self._dims, wanted.tolist(), strict=True)
        return np.array([dim.rank(value) for dim, value in pairs], dtype=np.float64)

    def to_bytes(self) -> list[bytes]:
        """Return each dim's sketch: count, smallest and largest value, and the order statistics."""
        return [dim.to_bytes() for dim in self._dims]

    @classmethod
    def from_bytes(cls, parts: Sequence[bytes]) -> QuantileSketch:
        """Rebuild what `to_bytes` gave.

        Raises:
            DataError: The bytes are something else.
        """
        try:
            return cls([_Dim.from_bytes(part) for part in parts])
        except (struct.error, ValueError, TypeError) as error:
            raise DataError(f"not a sketch: {error}") from error


class SketchTree:
    """Merges sketches as they come, in a tree of fan-out 16: few merges in a row, little memory.

    The same sketches in the same order give the same result, whoever made them.
    """

    def __init__(self) -> None:
        self._levels: list[list[QuantileSketch]] = []

    def add(self, sketch: QuantileSketch, level: int = 0) -> None:
        """Take in the next sketch."""
        if level == len(self._levels):
            self._levels.append([])
        waiting = self._levels[level]
        waiting.append(sketch)
        if len(waiting) == _FANOUT:
            self._levels[level] = []
            self.add(waiting[0].merge(*waiting[1:]), level + 1)

    def finish(self) -> QuantileSketch | None:
        """Return the sketch of all; None when there was none."""
        parts = [sketch for level in reversed(self._levels) for sketch in level]
        return parts[0].merge(*parts[1:]) if parts else None


def encode_sketches(sketches: Mapping[str, QuantileSketch]) -> dict[str, Any]:
    """Return a JSON-ready mapping of all features' sketches.

    `{"format", "size", "features": {feature: [one string per dim]}}`; a string is the base64 of
    what `QuantileSketch.to_bytes` gives.
    """
    return {
        "format": _FORMAT,
        "size": SIZE,
        "features": {
            name: [base64.b64encode(part).decode("ascii") for part in sketch.to_bytes()]
            for name, sketch in sketches.items()
        },
    }


def decode_sketches(document: Mapping[str, Any]) -> dict[str, QuantileSketch]:
    """Read what `encode_sketches` gave.

    Raises:
        DataError: The document is of another format or version, or damaged.
    """
    if document.get("format") != _FORMAT or not isinstance(document.get("features"), Mapping):
        raise DataError(
            f"expected sketches of format {_FORMAT!r}, found {document.get('format')!r}, which"
            " another version wrote"
        )
    sketches = {}
    for name, parts in document["features"].items():
        try:
            decoded = [base64.b64decode(part, validate=True) for part in parts]
        except (TypeError, ValueError, binascii.Error) as error:
            raise DataError(f"a sketch that is not base64: {error}", where=name) from error
        sketches[name] = QuantileSketch.from_bytes(decoded)
    return sketches


def _middles(count: int, size: int) -> Floats:
    """Return the middles of `size` equal shares of `count` ranks."""
    middles: Floats = (np.arange(size, dtype=np.float64) + 0.5) * (count / size)
    return middles
