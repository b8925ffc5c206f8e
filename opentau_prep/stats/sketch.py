"""Mergeable quantile sketches of every dim: Apache DataSketches t-digests.

Of the library's sketches it is the only one without a random generator: KLL, REQ and the classic
quantiles sketch draw a coin at each compaction, cannot be seeded, and give other bytes every run.

A block's digest is made from its sorted columns in one vectorized pass and handed to the library
in its own serialized form, which is some twenty times faster than feeding it values; merging and
serializing are the library's. Quantiles are read from the centroids here: `get_quantile` of
datasketches 5.2 weighs the two neighbours of a rank the wrong way round, so it is not even
monotone (apache/datasketches-java pull request 755 tells the same fault in the Java code).
"""

from __future__ import annotations

import base64
import binascii
import copy
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import datasketches
import numpy as np
from numpy.typing import ArrayLike, NDArray

from opentau_prep.errors import DataError
from opentau_prep.stats.quantiles import SortedColumns, sort_columns

__all__ = ["QuantileSketch", "decode_sketches", "encode_sketches"]

SKETCH_K = 400
_FORMAT = "apache-datasketches/tdigest<double>"
_HEADER = struct.Struct("<BBBHBHIIdd")
_CENTROID = np.dtype([("mean", "<f8"), ("weight", "<u8")])
# Of the serialized form: preamble longs, serial version, family.
_PREAMBLE = (2, 1, 20)
Floats = NDArray[np.float64]


class QuantileSketch:
    """Sketches of the finite values of one feature's D dims; never changed once made.

    A value read from it has a rank within 0.002 of the one asked for at 1 % and 99 %, in one part
    or merged from a hundred. Near the median it can be half a centroid off, about 0.01 on
    discrete data. A digest takes at most 13 KiB.
    """

    def __init__(self, digests: Sequence[Any]) -> None:
        self._digests = tuple(digests)

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> QuantileSketch:
        """Sketch an (N, D) block. Memory: two copies of it at most."""
        return cls.of_sorted(sort_columns(matrix))

    @classmethod
    def of_sorted(cls, columns: SortedColumns) -> QuantileSketch:
        """Sketch a block whose columns are sorted already."""
        starts = {n: _centroid_starts(n) for n in set(columns.count.tolist())}
        spans = zip(columns.values, columns.start.tolist(), columns.stop.tolist(), strict=True)
        return cls([_digest(values[a:b], starts[b - a]) for values, a, b in spans])

    @property
    def dims(self) -> int:
        """The number of dims, D."""
        return len(self._digests)

    @property
    def count(self) -> NDArray[np.int64]:
        """(D,) int64: finite values a dim."""
        return np.array([digest.get_total_weight() for digest in self._digests], dtype=np.int64)

    def merge(self, *others: QuantileSketch) -> QuantileSketch:
        """Return the sketch of all together.

        The order is part of the result's bytes, though not of its quality.

        Raises:
            DataError: The widths differ.
        """
        widths = {other.dims for other in others} - {self.dims}
        if widths:
            raise DataError(f"cannot merge sketches of {self.dims} and {sorted(widths)} dims")
        merged = [copy.copy(digest) for digest in self._digests]
        for other in others:
            for digest, part in zip(merged, other._digests, strict=True):
                digest.merge(part)
        return QuantileSketch(merged)

    def select(self, dims: Sequence[int]) -> QuantileSketch:
        """Return the sketch of some of the dims, in that order."""
        return QuantileSketch([self._digests[d] for d in dims])

    @classmethod
    def side_by_side(cls, parts: Sequence[QuantileSketch]) -> QuantileSketch:
        """Return the sketch whose dims are those of all parts, one after the other."""
        return cls([digest for part in parts for digest in part._digests])

    def quantiles(self, q: Sequence[float]) -> Floats:
        """Return (Q, D) float64 quantiles, NaN for a dim without values.

        Ranks are those of NumPy's linear interpolation; between two centroids the value is linear.
        """
        fractions = np.asarray(q, dtype=np.float64)
        out = np.full((len(fractions), self.dims), np.nan)
        for d, digest in enumerate(self._digests):
            if not digest.is_empty():
                means, weights, low, high = _centroids(digest)
                count = weights.sum()
                middle = np.concatenate([[0.0], np.cumsum(weights) - weights / 2, [count]])
                values = np.concatenate([[low], means, [high]])
                out[:, d] = np.interp(fractions * (count - 1) + 0.5, middle, values)
        return out

    def ranks(self, values: ArrayLike) -> Floats:
        """Return (D,) float64: the share of values below `values`, plus half of those equal.

        Args:
            values: (D,) one value a dim. NaN in, or a dim without values, gives NaN.

        Raises:
            DataError: The width differs.
        """
        wanted = np.asarray(values, dtype=np.float64)
        if wanted.shape != (self.dims,):
            raise DataError(f"expected {self.dims} values, one a dim, found {wanted.shape}")
        pairs = zip(self._digests, wanted.tolist(), strict=True)
        return np.array([_rank(digest, value) for digest, value in pairs], dtype=np.float64)

    def to_bytes(self) -> list[bytes]:
        """Return each dim's digest in the library's serialized form."""
        return [digest.serialize() for digest in self._digests]

    @classmethod
    def from_bytes(cls, parts: Sequence[bytes]) -> QuantileSketch:
        """Rebuild what `to_bytes` gave.

        Raises:
            DataError: The bytes are no such digest.
        """
        try:
            return cls([datasketches.tdigest_double.deserialize(part) for part in parts])
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"not a serialized t-digest: {error}") from error


def encode_sketches(sketches: Mapping[str, QuantileSketch]) -> dict[str, Any]:
    """Return a JSON-ready mapping of all features' sketches.

    `{"format", "k", "features": {feature: [one string a dim]}}`; a string is the base64 of what
    `tdigest_double.serialize` gives, which every language's DataSketches library reads.
    """
    return {
        "format": _FORMAT,
        "k": SKETCH_K,
        "features": {
            name: [base64.b64encode(part).decode("ascii") for part in sketch.to_bytes()]
            for name, sketch in sketches.items()
        },
    }


def decode_sketches(document: Mapping[str, Any]) -> dict[str, QuantileSketch]:
    """Read what `encode_sketches` gave.

    Raises:
        DataError: The document is something else, or damaged.
    """
    if document.get("format") != _FORMAT or not isinstance(document.get("features"), Mapping):
        raise DataError(
            f"expected sketches of format {_FORMAT!r}, found {document.get('format')!r}"
        )
    sketches = {}
    for name, parts in document["features"].items():
        try:
            decoded = [base64.b64decode(part, validate=True) for part in parts]
        except (TypeError, ValueError, binascii.Error) as error:
            raise DataError(f"a sketch that is not base64: {error}", where=name) from error
        sketches[name] = QuantileSketch.from_bytes(decoded)
    return sketches


def _centroid_starts(count: int) -> NDArray[np.int64]:
    """Return where the centroids of `count` sorted values start.

    A centroid between ranks q and q' holds at most min(q(1 - q), q'(1 - q')) / s of all values,
    with s = 2k / (4 ln(n / k) + 24); the first and last value stand alone.

    Source: Dunning and Ertl, "Computing extremely accurate quantiles using t-digests", scale k2.
    """
    if count <= 2:
        return np.arange(count, dtype=np.int64)
    spread = (4 * math.log(max(count / SKETCH_K, 1.0)) + 24) / (2 * SKETCH_K)
    starts, done = [0], 1
    while done < count - 1:
        starts.append(done)
        size = int(done * (count - done) / count * spread)
        after = done + max(size, 1)
        size = min(size, int(after * (count - after) / count * spread))
        done = min(done + max(size, 1), count - 1)
    return np.array([*starts, count - 1], dtype=np.int64)


def _digest(values: NDArray[Any], starts: NDArray[np.int64]) -> Any:
    """Make the digest of one dim's sorted finite values."""
    if len(values) < 2:
        digest = datasketches.tdigest_double(SKETCH_K)
        digest.update(values.astype(np.float64))
        return digest
    weights = np.diff(starts, append=len(values))
    centroids = np.empty(len(starts), dtype=_CENTROID)
    first, last = values[starts], values[starts + weights - 1]
    sums = np.add.reduceat(values.astype(np.float64), starts)
    # Rounding must neither split equal values nor put centroids out of order.
    centroids["mean"] = np.clip(sums / weights, first, last)
    centroids["weight"] = weights
    header = _HEADER.pack(
        *_PREAMBLE, SKETCH_K, 0, 0, len(starts), 0, float(values[0]), float(values[-1])
    )
    return datasketches.tdigest_double.deserialize(header + centroids.tobytes())


def _centroids(digest: Any) -> tuple[Floats, Floats, float, float]:
    """Return means and weights (ascending), smallest and largest value of a digest with values."""
    low, high = digest.get_min_value(), digest.get_max_value()
    state = digest.serialize()
    if len(state) < _HEADER.size:  # one value
        return np.array([low]), np.array([1.0]), low, high
    number = _HEADER.unpack_from(state)[6]
    centroids = np.frombuffer(state, dtype=_CENTROID, count=number, offset=_HEADER.size)
    return centroids["mean"], centroids["weight"].astype(np.float64), low, high


def _rank(digest: Any, value: float) -> float:
    if digest.is_empty() or math.isnan(value):
        return math.nan
    means, weights, low, high = _centroids(digest)
    below = np.concatenate([[0.0], np.cumsum(weights)])
    first, last = np.searchsorted(means, value, "left"), np.searchsorted(means, value, "right")
    if first < last:
        return float((below[first] + below[last]) / 2 / below[-1])
    middle = np.concatenate([[0.0], below[1:] - weights / 2, [below[-1]]])
    values = np.concatenate([[low], means, [high]])
    return float(np.interp(value, values, middle, left=0.0, right=below[-1]) / below[-1])
