"""Exact quantiles of a block of rows, by sorting each dim once.

Sorting a column is cheaper than selecting ten ranks from it (NumPy sorts with vector
instructions), and the sorted column is the sketch's too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ConfigError

__all__ = ["SortedColumns", "exact_quantiles", "quantile_name", "sort_columns", "span_quantiles"]


@dataclass(frozen=True, eq=False)
class SortedColumns:
    """The columns of a block, each in ascending order, non-finite values at the ends.

    Attributes:
        values: (D, N) in the dtype of the block.
        start: (D,) int64, where each dim's finite values start.
        stop: (D,) int64, where they end.
    """

    values: NDArray[Any]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @property
    def count(self) -> NDArray[np.int64]:
        """(D,) int64: finite values per dim."""
        return self.stop - self.start

    def quantiles(self, q: Sequence[float]) -> NDArray[np.float64]:
        """Return (Q, D) float64 quantiles of the finite values, NaN for a dim without any.

        They are NumPy's default ("linear"), interpolated in float64: equal to `np.quantile` of the
        values as float64.

        Raises:
            ConfigError: A `q` is outside [0, 1].
        """
        fractions = _check_fractions(q)[:, np.newaxis]
        position = fractions * np.maximum(self.count - 1, 0)
        below = np.floor(position).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(self.count - 1, 0))
        dims = np.arange(len(self.values))
        last = max(self.values.shape[1] - 1, 0)
        if self.values.shape[1] == 0:
            return np.full(position.shape, np.nan)
        low = self.values[dims, np.minimum(below + self.start, last)].astype(np.float64)
        high = self.values[dims, np.minimum(above + self.start, last)].astype(np.float64)
        return np.where(self.count > 0, _interpolate(low, high, position - below), np.nan)


def sort_columns(matrix: NDArray[Any]) -> SortedColumns:
    """Sort every dim of a block.

    Args:
        matrix: (N, D) numbers. Memory: one copy of it.
    """
    values = np.array(matrix.T, order="C")
    values.sort(axis=1)
    dims, rows = values.shape
    start = np.zeros(dims, dtype=np.int64)
    stop = np.full(dims, rows, dtype=np.int64)
    if rows and values.dtype.kind == "f":
        # NaN sorts last, so the two ends of a column show whether all of it is finite.
        for d in np.flatnonzero(~(np.isfinite(values[:, 0]) & np.isfinite(values[:, -1]))):
            start[d] = np.searchsorted(values[d], -np.inf, side="right")
            stop[d] = max(np.searchsorted(values[d], np.inf, side="left"), start[d])
    return SortedColumns(values, start, stop)


def exact_quantiles(matrix: NDArray[Any], q: Sequence[float]) -> NDArray[np.float64]:
    """Return (Q, D) float64 quantiles of the finite values of an (N, D) block.

    Memory: one copy of the block. See `SortedColumns.quantiles`.

    Raises:
        ConfigError: A `q` is outside [0, 1].
    """
    return sort_columns(matrix).quantiles(q)


def span_quantiles(
    matrix: NDArray[Any], spans: NDArray[np.int64], q: Sequence[float]
) -> NDArray[np.float64]:
    """Return (E, Q, D) float64: the exact quantiles of each span of rows.

    Args:
        matrix: (N, D) numbers.
        spans: (E, 2) int64 first and past-the-last row of each span. Memory: one copy of the
        longest.
        q: Fractions in [0, 1].

    Raises:
        ConfigError: A `q` is outside [0, 1].
    """
    out = np.empty((len(spans), len(q), matrix.shape[1]))
    for k, (start, stop) in enumerate(spans.tolist()):
        out[k] = sort_columns(matrix[start:stop]).quantiles(q)
    return out


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
