"""openpi's running mean, deviation and histogram quantiles, bit for bit, many batches at once.

The estimator is sequential by definition: it is fed batches, and its answer depends on their
order and size. What makes it slow is a histogram call per batch and dim. Here the means of a
whole block of batches are taken at once, the batches at which a dim's range grew are found from
the running minimum and maximum, and all values between two growths are counted in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opentau_prep.errors import DataError
from opentau_prep.stats.binning import ColumnHistogram

__all__ = ["NormStats", "RunningStats"]

_BLOCK_VALUES = 1 << 20
# Those of openpi's norm_stats.json.
_QUANTILES = (0.01, 0.99)
Floats = NDArray[Any]


@dataclass(frozen=True, eq=False)
class NormStats(Mapping[str, Floats]):
    """What openpi normalizes with; also a mapping of the same four names.

    Attributes:
        mean: (D,) in the dtype of the data.
        std: (D,) population standard deviation, in the dtype of the data.
        q01: (D,) left edge of the bin that holds the 1 % quantile, in the dtype of the bin edges.
        q99: (D,) likewise for 99 %.
    """

    mean: Floats
    std: Floats
    q01: Floats
    q99: Floats

    def __getitem__(self, name: str) -> Floats:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        value: Floats = getattr(self, name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)


class RunningStats:
    """openpi's running normalization statistics, equal to the last bit.

    Memory: one block of about a million values, and `num_quantile_bins` counts and edges a dim.

    Args:
        num_quantile_bins: Bins a dim.
        numpy1_edges: Keep the bin edges of float32 data in float64, as the reference does under
            NumPy 1, which openpi and kai0 pin. Otherwise they are float32, as under NumPy 2.
            float64 data is not affected.

    Raises:
        DataError: `num_quantile_bins` is not positive.

    Source: openpi `shared/normalize.py`, class `RunningStats`.
    """

    def __init__(self, num_quantile_bins: int = 5000, *, numpy1_edges: bool = True) -> None:
        if num_quantile_bins < 1:
            raise DataError(f"num_quantile_bins must be at least 1, not {num_quantile_bins}")
        self._num_bins = num_quantile_bins
        self._numpy1_edges = numpy1_edges
        self._count = 0
        self._moments: Floats = np.empty((2, 0))  # running mean, running mean of squares
        self._low: Floats = np.empty(0)
        self._high: Floats = np.empty(0)
        self._columns: list[ColumnHistogram] = []
        self._range: tuple[Floats, Floats] | None = None  # of all values, those waiting included
        self._waiting: list[Floats] = []  # batches of one shape, to be taken in together

    @property
    def count(self) -> int:
        """The number of vectors seen so far."""
        return self._count + sum(len(batch) for batch in self._waiting)

    def update(self, batch: ArrayLike) -> None:
        """Take in one batch.

        Args:
            batch: (..., D) numbers; the leading axes are flattened. float32 stays float32, anything
                else is computed in float64.

        Raises:
            DataError: The batch is empty, has another width or dtype than the first one, or
                holds values that are not finite. The state is then unchanged.
        """
        rows = _as_rows(batch)
        self._check(rows.min(axis=0), rows.max(axis=0))
        if self._waiting and rows.shape != self._waiting[0].shape:
            self._flush()
        if not _is_row_major(rows):
            # A sum adds in the order of the memory layout, which stacking would change.
            self._flush()
            self._consume(rows[np.newaxis])
            return
        self._waiting.append(rows.copy())
        if len(self._waiting) * rows.size >= _BLOCK_VALUES:
            self._flush()

    def update_many(self, matrix: ArrayLike, batch_size: int = 32) -> None:
        """Take in the rows of a matrix as `update` on consecutive slices of `batch_size` would.

        Args:
            matrix: (N, D) numbers. The last batch is shorter when `batch_size` does not divide N.
            batch_size: Rows a batch. It is part of the answer, not only of the speed.

        Raises:
            DataError: As for `update`. Blocks before the offending one are then counted.
        """
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, not {batch_size}")
        self._flush()
        rows = _as_rows(matrix)
        whole = len(rows) - len(rows) % batch_size
        step = batch_size * max(1, _BLOCK_VALUES // (batch_size * rows.shape[1]))
        for start in range(0, whole, step):
            block = rows[start : min(start + step, whole)]
            self._check(block.min(axis=0), block.max(axis=0))
            self._consume(block.reshape(-1, batch_size, rows.shape[1]))
        if whole < len(rows):
            self.update(rows[whole:])

    def get_statistics(self) -> NormStats:
        """Return mean, std, q01 and q99 of what was taken in so far.

        Raises:
            DataError: Fewer than two vectors were seen.
        """
        self._flush()
        if self._count < 2:
            raise DataError(f"statistics need at least 2 vectors, {self._count} were given")
        mean, mean_of_squares = self._moments.copy()
        std = np.sqrt(np.maximum(0, mean_of_squares - mean**2))
        low, high = (
            np.array([column.quantile_edge(q * self._count) for column in self._columns])
            for q in _QUANTILES
        )
        return NormStats(mean, std, low, high)

    def _flush(self) -> None:
        if self._waiting:
            batches = np.stack(self._waiting)
            self._waiting = []
            self._consume(batches)

    def _consume(self, batches: Floats) -> None:
        """Take in (B, n, D) checked batches of n rows each."""
        lows, highs = batches.min(axis=1), batches.max(axis=1)
        if not self._count:
            self._start(batches[0], lows[0], highs[0])
        self._count_values(batches, lows, highs)
        self._advance_moments(batches)
        self._count += batches.shape[0] * batches.shape[1]

    def _check(self, low: Floats, high: Floats) -> None:
        """Refuse values of range [low, high] that cannot follow the earlier ones; else note it."""
        if self._range is not None:
            least, most = self._range
            if len(low) != len(least):
                raise DataError(f"vectors of width {len(low)} after vectors of width {len(least)}")
            if low.dtype != least.dtype:
                raise DataError(
                    f"{low.dtype} vectors after {least.dtype} ones",
                    hint="Convert all to float64 first: the result depends on the dtype",
                )
            low, high = np.minimum(low, least), np.maximum(high, most)
        # A range beyond the dtype has no bin width, though each of its ends is finite.
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(high - low)
        if not finite.all():
            dims = np.flatnonzero(~finite).tolist()
            raise DataError(
                f"values that are not finite, or a range beyond {low.dtype}, in dims {dims}",
                hint="Drop or repair those rows first",
            )
        self._range = low, high

    def _start(self, batch: Floats, low: Floats, high: Floats) -> None:
        self._moments = np.stack([np.mean(batch, axis=0), np.mean(np.square(batch), axis=0)])
        self._low, self._high = low, high
        edge_dtype = np.dtype(np.float64) if self._numpy1_edges else low.dtype
        self._columns = [
            ColumnHistogram(low[d], high[d], self._num_bins, edge_dtype) for d in range(len(low))
        ]

    def _advance_moments(self, batches: Floats) -> None:
        """Update the running means batch by batch, in the reference's order of float operations."""
        num_batches, size, _ = batches.shape
        means = np.stack([np.mean(batches, axis=1), np.mean(np.square(batches), axis=1)], axis=1)
        counts = self._count + size * np.arange(1, num_batches + 1)
        ratios = (size / counts).tolist()
        state, delta = self._moments, np.empty_like(means[0])
        for batch_means, ratio in zip(means, ratios, strict=True):
            np.subtract(batch_means, state, out=delta)
            delta *= ratio
            state += delta

    def _count_values(self, batches: Floats, lows: Floats, highs: Floats) -> None:
        """Count every value, rebuilding a column's bins at the batches where the ranges grew."""
        lows = np.minimum.accumulate(np.concatenate([self._low[np.newaxis], lows]))
        highs = np.maximum.accumulate(np.concatenate([self._high[np.newaxis], highs]))
        grew = (lows[1:] < lows[:-1]) | (highs[1:] > highs[:-1])
        grew_anywhere = np.flatnonzero(grew.any(axis=1))
        num_batches, size, width = batches.shape
        values = np.ascontiguousarray(np.moveaxis(batches, 2, 0)).reshape(width, -1)
        for d, column in enumerate(self._columns):
            events = np.flatnonzero(grew[:, d])
            if column.has_margin and len(grew_anywhere):
                # Growth of any dim rebuilds all: that is when the others lose the first margin.
                # Later rebuilds of a dim that did not grow change nothing, and are left out.
                events = np.union1d(events, grew_anywhere[:1])
            starts = [0, *events.tolist(), num_batches]
            for k, start in enumerate(starts[:-1]):
                if k:
                    column.rebuild(lows[start + 1, d], highs[start + 1, d])
                column.add(values[d, start * size : starts[k + 1] * size])
        self._low, self._high = lows[-1], highs[-1]


def _is_row_major(rows: Floats) -> bool:
    row, column = rows.strides
    return bool(row >= column * rows.shape[1] > 0)


def _as_rows(values: ArrayLike) -> Floats:
    """Return (N, D) float32 or float64 rows, N and D at least 1."""
    try:
        rows = np.asarray(values)
    except ValueError as error:
        raise DataError("vectors of different widths in one batch") from error
    if rows.dtype.kind not in "fiub":
        raise DataError(f"expected numbers, found dtype {rows.dtype}")
    if rows.ndim == 0 or rows.size == 0:
        raise DataError(f"expected at least one vector, found shape {rows.shape}")
    if rows.dtype not in (np.float32, np.float64):
        rows = rows.astype(np.float64)
    return rows.reshape(-1, rows.shape[-1])
