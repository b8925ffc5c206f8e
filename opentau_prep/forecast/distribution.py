"""How the values of a dataset's dims are distributed: what every share and picture is read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from opentau_prep.heads.audit_model import DimStats

if TYPE_CHECKING:
    from opentau_prep.forecast.formulas import Affine
    from opentau_prep.stats.sketch import QuantileSketch

__all__ = ["SLACK", "Distribution", "Origin", "from_sketch", "from_stats"]

Floats = NDArray[np.float64]
Origin = Literal["frames", "sketch", "quantiles", "extremes"]

# Dense at the tails, where it is decided what lies beyond a range.
_TAIL = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04)
_GRID = np.array([*_TAIL, *np.linspace(0.05, 0.95, 73).tolist(), *(1 - q for q in _TAIL[::-1])])
_IN_STATS = (
    (0.0, "min"), (0.01, "q01"), (0.1, "q10"), (0.5, "q50"), (0.9, "q90"), (0.99, "q99"),
    (1.0, "max"),
)  # fmt: skip
SLACK = 1e-3
"""A value at the very end of a range is not beyond it: of float32, and of openpi's quantiles, which
are the lower edges of 5,000 bins, so that a joint at rest lies a little beyond them."""


@dataclass(frozen=True)
class Distribution:
    """The quantiles of D dims.

    Attributes:
        origin: `frames` (read for this), `sketch`, `quantiles` (those in the stats), or `extremes`
            (stats without quantiles, which tell no shares).
        fractions: (G,) float64, increasing from 0 to 1.
        values: (G, D) float64, the quantiles; NaN for dims without any.
        mean: (D,) float64.
        std: (D,) float64.
    """

    origin: Origin
    fractions: Floats
    values: Floats
    mean: Floats
    std: Floats

    @property
    def dims(self) -> int:
        """D."""
        return int(self.values.shape[1])

    @property
    def low(self) -> Floats:
        """(D,) smallest values."""
        return np.asarray(self.values[0])

    @property
    def high(self) -> Floats:
        """(D,) largest values."""
        return np.asarray(self.values[-1])

    def quantile(self, fraction: float) -> Floats:
        """Return (D,) a quantile, linear between those known; NaN where only extremes are."""
        if self.origin == "extremes" and fraction not in (0.0, 1.0):
            return np.full(self.dims, np.nan)
        at = int(np.clip(np.searchsorted(self.fractions, fraction), 1, len(self.fractions) - 1))
        first, last = self.fractions[at - 1], self.fractions[at]
        part = (fraction - first) / (last - first)
        # Two products, so that a known quantile comes back to the last bit.
        return np.asarray(self.values[at - 1] * (1 - part) + self.values[at] * part)

    def share_beyond(self, affine: Affine, bound: float) -> Floats:
        """Return (D,) the share of values whose normalized size is beyond `bound`.

        Exact where nothing or everything is; else as fine as the quantiles are. NaN where only
        extremes are known and some values are beyond.
        """
        margin = bound * (1 + SLACK)
        low, high = affine.raw(-margin), affine.raw(margin)
        low, high = np.minimum(low, high), np.maximum(low, high)
        out = np.empty(self.dims)
        for d in range(self.dims):
            out[d] = self._below(low[d], d) + 1 - self._below(high[d], d, or_equal=True)
        return np.clip(out, 0.0, 1.0)

    def _below(self, value: float, dim: int, *, or_equal: bool = False) -> float:
        """Return the share of values below one value."""
        column = self.values[:, dim]
        if not (np.isfinite(column).all() and np.isfinite(value)):
            return float("nan")
        at = int(np.searchsorted(column, value, side="right" if or_equal else "left"))
        if at in (0, len(column)):
            return float(at > 0)
        if self.origin == "extremes":
            return float("nan")
        # Between two known quantiles; many equal values are one step, which the side decides.
        low, high = column[at - 1], column[at]
        part = (value - low) / (high - low) if high > low else 0.0
        first, last = self.fractions[at - 1], self.fractions[at]
        return float(first + (last - first) * min(max(part, 0.0), 1.0))

    def select(self, dims: NDArray[np.intp]) -> Distribution:
        """Return some of the dims, in that order."""
        return replace(self, values=self.values[:, dims], mean=self.mean[dims], std=self.std[dims])

    def stats(self, *, robust: bool) -> DimStats:
        """Return mean, std and ends; `robust` takes the 1 and 99 % quantiles as ends."""
        ends = (self.quantile(0.01), self.quantile(0.99)) if robust else (self.low, self.high)
        return DimStats(self.mean, self.std, *ends)


def from_sketch(
    sketch: QuantileSketch, mean: Floats, std: Floats, origin: Origin = "sketch"
) -> Distribution:
    """Return the distribution that a sketch holds, with the mean and std of its dims."""
    return Distribution(origin, _GRID, sketch.quantiles(_GRID.tolist()), mean, std)


def from_stats(stats: Mapping[str, NDArray[Any]]) -> Distribution:
    """Return what stats tell of a distribution: extremes, and quantiles where there are all five.

    Args:
        stats: `min`, `max`, `mean`, `std`, and quantiles, each (D,).
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in stats.items()}
    known = all(name in arrays for _, name in _IN_STATS)
    used = _IN_STATS if known else (_IN_STATS[0], _IN_STATS[-1])
    values = np.stack([arrays[name] for _, name in used])
    # Quantiles that were pooled can lie beyond the extremes, or out of order: those are no steps.
    values = np.maximum.accumulate(np.clip(values, values[0], values[-1]), axis=0)
    return Distribution(
        "quantiles" if known else "extremes",
        np.array([fraction for fraction, _ in used]),
        values,
        arrays["mean"],
        arrays["std"],
    )
