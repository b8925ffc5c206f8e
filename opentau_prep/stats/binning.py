"""One dim's histogram with evenly spaced edges that are rebuilt when the range grows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ColumnHistogram"]

# Added on both sides of the first batch's range by the reference.
_FIRST_MARGIN = 1e-10
# Below this many values a binary search each is faster than the arithmetic pass's fixed cost.
_SEARCH_BELOW = 256
# The arithmetic pass works in the first-level cache.
_PASS_VALUES = 1 << 14


class ColumnHistogram:
    """Counts of one dim, bin for bin what `np.histogram` with explicit edges counts.

    A value's bin is the last one whose left edge is not above it; the last bin's right edge
    belongs to it. Values outside the edges are not counted.

    Args:
        low: The first batch's smallest value, in the dtype of the data.
        high: Its largest value.
        num_bins: Number of bins.
        edge_dtype: float32 or float64: the dtype the edges are computed and compared in.

    Attributes:
        has_margin: Whether the edges are still the first batch's, a little wider than its range.
        counts: (num_bins,) float64.
        edges: (num_bins + 1,) in `edge_dtype`.
    """

    def __init__(self, low: Any, high: Any, num_bins: int, edge_dtype: np.dtype[Any]) -> None:
        self._kind = edge_dtype.type
        margin = self._kind(_FIRST_MARGIN)
        self.has_margin = True
        self.counts: NDArray[Any] = np.zeros(num_bins)
        self.edges = self._spread(self._kind(low) - margin, self._kind(high) + margin)
        self._plan()

    def rebuild(self, low: Any, high: Any) -> None:
        """Give the bins a new range; each count moves to the bin that holds its old left edge."""
        filled = np.flatnonzero(self.counts)
        old_left, moved = self.edges[filled], self.counts[filled]
        self.has_margin = False
        self.edges = self._spread(self._kind(low), self._kind(high))
        self._plan()
        bins = self._search(old_left)
        # The margin puts a first bin's left edge below the new range: the reference loses its
        # count.
        inside = bins >= 0
        self.counts = np.bincount(bins[inside], weights=moved[inside], minlength=len(self.counts))

    def add(self, values: NDArray[Any]) -> None:
        """Count the values.

        Args:
            values: (N,) contiguous float32 or float64, within the range given last.
        """
        if self.edges[0] == self.edges[-1]:
            self.counts[-1] += len(values)
        elif len(values) < _SEARCH_BELOW:
            self.counts += np.bincount(self._search(values), minlength=len(self.counts))
        elif self._doubt > 0.5:
            self.counts += np.bincount(self._search(np.sort(values)), minlength=len(self.counts))
        else:
            for start in range(0, len(values), _PASS_VALUES):
                self._add_by_arithmetic(values[start : start + _PASS_VALUES])

    def quantile_edge(self, target: float) -> Any:
        """Return the left edge of the first bin whose cumulative count reaches `target`.

        When counts were lost so that none does, it is the last edge.
        """
        return self.edges[np.searchsorted(np.cumsum(self.counts), target)]

    def _spread(self, start: Any, stop: Any) -> NDArray[Any]:
        """Return what NumPy 2's `linspace(start, stop, num_bins + 1)` gives, under any NumPy.

        Every operation is in the dtype of the ends, which `linspace` itself is not in NumPy 1.
        """
        num_bins = len(self.counts)
        edges = np.arange(num_bins + 1, dtype=self._kind)
        delta = stop - start
        step = delta / self._kind(num_bins)
        if step == 0:
            edges /= self._kind(num_bins)
            edges *= delta
        else:
            edges *= step
        edges += start
        edges[-1] = stop
        return edges

    def _plan(self) -> None:
        """Prepare the arithmetic that finds bins: position = value * scale + shift.

        `_doubt` bounds, in bins and twice over, how far the computed position of a value can be
        from its place between the rounded edges: the edges are within 4 roundings of the largest
        magnitude, the position within 8 of its largest term.
        """
        low, high = float(self.edges[0]), float(self.edges[-1])
        num_bins, delta = len(self.counts), high - low
        eps = float(np.finfo(self._kind).eps)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            scale = np.float64(num_bins) / np.float64(delta)
            reach = (max(abs(low), abs(high)) + delta) * scale
            self._doubt = float(2 * 12 * eps * reach)
            self._scale = self._kind(scale)
            self._shift = self._kind(self._doubt - low * scale)
        if not (np.isfinite(self._scale) and np.isfinite(self._shift) and self._scale > 0):
            self._doubt = np.inf

    def _search(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Return each value's bin by binary search; -1 below the range."""
        bins = np.searchsorted(self.edges, values, side="right") - 1
        return np.minimum(bins, len(self.counts) - 1)

    def _add_by_arithmetic(self, values: NDArray[Any]) -> None:
        """Count by computed positions, asking the edges only where rounding could matter."""
        # NumPy 1 would keep float32 values times a float64 scalar in float32.
        position = np.multiply(values, self._scale, dtype=self._kind)
        position += self._shift
        floor = np.floor(position)
        position -= floor
        bins = floor.astype(np.intp)
        near = np.flatnonzero(position < 2 * self._doubt)
        if len(near):
            asked = bins[near]
            bins[near] = asked - (values[near] < self.edges[asked])
        found = np.bincount(bins, minlength=len(self.counts) + 1)
        found[-2] += found[-1]
        self.counts += found[:-1]
