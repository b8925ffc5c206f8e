"""Exact quantiles of a block of rows, by sorting each dim once.

Sorting a column is cheaper than selecting ten ranks from it (NumPy sorts with vector
instructions), and the sorted column is the sketch's too.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ConfigError

__all__ = ["SortedColumns", "quantile_name", "sort_columns", "sort_spans"]


@dataclass(frozen=True, eq=False)
class SortedColumns:
    """D columns, each in ascending order as a whole or within each of E spans of rows.

    Attributes:
        values: (D, N) in the dtype of the block; of a column or span, values that are not finite
            are at the ends.
        start: (D,) or (E, D) int64, where the finite values start.
        stop: (D,) or (E, D) int64, where they end.
    """

    values: NDArray[Any]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @property
    def count(self) -> NDArray[np.int64]:
        """(D,) or (E, D) int64: finite values per dim."""
        return self.stop - self.start

    def quantiles(self, q: Sequence[float]) -> NDArray[np.float64]:
        """Return (Q, D) or (E, Q, D) float64 quantiles of the finite values, NaN without any.

        They are NumPy's default ("linear"), interpolated in float64: equal to `np.quantile` of the
        values as float64.

        Raises:
            ConfigError: A `q` is outside [0, 1].
        """
        start, count = self.start[..., np.newaxis, :], self.count[..., np.newaxis, :]
        last = np.maximum(count - 1, 0)
        position = _check_fractions(q)[:, np.newaxis] * last
        if self.values.shape[1] == 0:
            return np.full(position.shape, np.nan)
        below = np.floor(position).astype(np.int64)
        dims, end = np.arange(len(self.values)), self.values.shape[1] - 1
        low, high = (
            self.values[dims, np.minimum(start + rank, end)].astype(np.float64)
            for rank in (below, np.minimum(below + 1, last))
        )
        return np.where(count > 0, _interpolate(low, high, position - below), np.nan)


def sort_columns(matrix: NDArray[Any]) -> SortedColumns:
    """Sort every dim of a block.

    Args:
        matrix: (N, D) numbers. Memory: one copy of it.
    """
    return sort_spans(np.array(matrix.T, order="C"))


def sort_spans(
    columns: NDArray[Any], spans: NDArray[np.int64] | None = None, threads: int = 1
) -> SortedColumns:
    """Sort every dim in place, as a whole or within each span of rows.

    Args:
        columns: (D, N) numbers, C-contiguous.
        spans: (E, 2) int64 first and past-the-last row of each span; they do not overlap.
        threads: How many dims are sorted at a time.
    """
    dims, rows = columns.shape
    if spans is not None:
        for first, end in spans.tolist():
            columns[:, first:end].sort(axis=1)
    elif threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(np.ndarray.sort, columns))
    else:
        columns.sort(axis=1)
    bounds = np.array([[0, rows]]) if spans is None else spans
    start, stop = (np.repeat(bounds[:, [k]], dims, axis=1) for k in (0, 1))
    filled = np.flatnonzero(bounds[:, 1] > bounds[:, 0])
    if columns.dtype.kind == "f":
        # NaN sorts last, so the two ends of a column show whether all of it is finite.
        ends = columns[:, bounds[filled, 0]], columns[:, bounds[filled, 1] - 1]
        for d, e in np.argwhere(~(np.isfinite(ends[0]) & np.isfinite(ends[1]))).tolist():
            first, end = bounds[filled[e]]
            values = columns[d, first:end]
            start[filled[e], d] += np.searchsorted(values, -np.inf, side="right")
            finite_end = first + np.searchsorted(values, np.inf, side="left")
            stop[filled[e], d] = max(finite_end, start[filled[e], d])
    if spans is None:
        start, stop = start[0], stop[0]
    return SortedColumns(columns, start, stop)


def quantile_name(q: float) -> str:
    """Return the stat's name of a fraction: `q01` for 0.01, `q99` for 0.99, `q99.9` for 0.999.

    Raises:
        ConfigError: `q` is outside [0, 1].
    """
    _check_fractions([q])
    percent = f"{q * 100:.10g}"
    whole, dot, rest = percent.partition(".")
    return f"q{whole:0>2}{dot}{rest}"


def _check_fractions(q: Sequence[float]) -> NDArray[np.float64]:
    fractions = np.asarray(q, dtype=np.float64)
    if fractions.ndim != 1 or not ((fractions >= 0) & (fractions <= 1)).all():
        raise ConfigError(f"quantiles must be fractions between 0 and 1, found {list(q)}")
    return fractions


def _interpolate(
    low: NDArray[np.float64], high: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate from the nearer end, as NumPy does: monotone, and exact at both ends."""
    with np.errstate(over="ignore", invalid="ignore"):
        step = high - low
        value = np.where(weight < 0.5, low + step * weight, high - step * (1 - weight))
    # A sort leaves open which of two equal zeros comes first; the sign must not depend on it.
    return value + 0.0
