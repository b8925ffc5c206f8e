"""What a head's other members say about one member: a robust predictive model of its stats.

A dim of a dataset is the pair (mean, log std). Mean and spread are taken on the head's own scale
(the median std of the other members), so that radians, metres and ticks are judged alike, and each
is expected to follow a Student t distribution whose width is how much members differ. The
tails are heavy: one odd number is no evidence to speak of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.heads.audit_signature import MAD, Signatures, fit_signatures, nanmedian

__all__ = ["DimStats", "HeadModel", "fit_model", "student_t"]

Floats = NDArray[np.float64]

NU = 4.0
# What is assumed of the differences among members before any were seen, as if from one member:
# means differ by half a std, stds by a factor of 1.4.
PRIOR_MEAN, PRIOR_SPREAD, PRIOR_WEIGHT = 0.5, 0.35, 1.0
# A joint that is hardly used in one dataset is no fault: lower spreads are expected more easily.
CALM_SPREAD = 1.0
# A dim whose spread is a smaller share of its center or range does not move: it is rounding.
_STILL = 1e-6


@dataclass(frozen=True)
class DimStats:
    """Stats of the D dims of one feature of one dataset.

    Attributes:
        mean: (D,) float64.
        std: (D,) float64.
        low: (D,) float64, minima.
        high: (D,) float64, maxima.
    """

    mean: Floats
    std: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, stats: Mapping[str, NDArray[Any]], width: int) -> DimStats:
        """Return the first `width` dims of a feature's stats; NaN where they are not finite."""
        arrays = (np.asarray(stats[x], dtype=np.float64) for x in ("mean", "std", "min", "max"))
        return cls(*(np.where(np.isfinite(x), x, np.nan)[:width] for x in arrays))

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(D,) whether all stats are finite and the dim moves."""
        finite = np.isfinite(self.mean) & np.isfinite(self.std)
        finite &= np.isfinite(self.low) & np.isfinite(self.high)
        return np.asarray(finite & (self.std > 0))

    def scaled(self, factor: float | Floats, shift: float | Floats = 0.0) -> DimStats:
        """Return the stats of `factor * (x + shift)`; a negative factor swaps the extremes."""
        ends = factor * (self.low + shift), factor * (self.high + shift)
        return DimStats(
            factor * (self.mean + shift),
            np.abs(factor) * self.std,
            np.minimum(*ends),
            np.maximum(*ends),
        )

    def taken(self, order: NDArray[np.intp]) -> DimStats:
        """Return the dims in another order."""
        return DimStats(self.mean[order], self.std[order], self.low[order], self.high[order])

    def where(self, mask: NDArray[np.bool_], other: DimStats) -> DimStats:
        """Return `other` where `mask`, else these."""
        return DimStats(
            *(
                np.where(mask, theirs, ours)
                for ours, theirs in zip(self._arrays(), other._arrays(), strict=True)
            )
        )

    def stacked(self) -> Floats:
        """Return (4, D) mean, std, minima and maxima."""
        return np.stack(self._arrays())

    def _arrays(self) -> tuple[Floats, ...]:
        return self.mean, self.std, self.low, self.high


@dataclass(frozen=True)
class HeadModel:
    """What is expected of a member's D dims, from the others.

    Attributes:
        center: (D,) median of the means.
        scale: (D,) median std.
        mean_width: (D,) how far means lie from the center, in scales.
        spread_width: (D,) how much log stds differ.
        low: (D,) median minimum.
        high: (D,) median maximum.
        judged: (D,) whether the dim moves in most members, so that anything can be expected.
        signatures: What tells the judged dims from each other.
    """

    center: Floats
    scale: Floats
    mean_width: Floats
    spread_width: Floats
    low: Floats
    high: Floats
    judged: NDArray[np.bool_]
    signatures: Signatures

    def logpdf(self, stats: DimStats) -> Floats:
        """Return (D,) log density of (mean, log std); 0 for dims that are not judged."""
        ratio = _log_ratio(stats.std, self.scale)
        spread = np.where(ratio < 0, np.maximum(self.spread_width, CALM_SPREAD), self.spread_width)
        logp = student_t((stats.mean - self.center) / self.scale / self.mean_width)
        logp = logp - np.log(self.mean_width * self.scale)
        return np.asarray(logp + student_t(ratio / spread) - np.log(spread))

    def widened(self, mean: float, spread: float) -> HeadModel:
        """Return the model with widths of at least `mean` (in dataset units) and `spread`."""
        return replace(
            self,
            mean_width=np.maximum(self.mean_width, mean / self.scale),
            spread_width=np.maximum(self.spread_width, spread),
        )

    def z(self, stats: DimStats) -> Floats:
        """Return (2, D): means and log stds in widths from what is expected."""
        spread = _log_ratio(stats.std, self.scale)
        widths = np.where(spread < 0, np.maximum(self.spread_width, CALM_SPREAD), self.spread_width)
        found = np.stack(
            [(stats.mean - self.center) / self.scale / self.mean_width, spread / widths]
        )
        return np.where(self.judged & stats.usable, found, 0.0)


def fit_model(members: list[DimStats]) -> HeadModel:
    """Return the model of some members: medians, and widths from median absolute deviations."""
    mean, std, low, high = (
        np.stack([getattr(m, name) for m in members]) for name in ("mean", "std", "low", "high")
    )
    finite = np.isfinite(mean) & np.isfinite(std) & np.isfinite(low) & np.isfinite(high)
    mean, low, high = (np.where(finite, x, np.nan) for x in (mean, low, high))
    std = np.where(finite & (std > 0), std, np.nan)
    moving = np.isfinite(std).mean(axis=0) > 0.5
    center = _nanmedian(mean, moving, 0.0)
    scale = _nanmedian(std, moving, 1.0)
    judged = moving & (
        scale > _STILL * np.maximum(np.abs(center), _nanmedian(high - low, moving, 1.0))
    )
    mean_width = _width((mean - center) / scale, judged, PRIOR_MEAN, finite)
    spread_width = _width(np.log(std / scale), judged, PRIOR_SPREAD, finite)
    ends = _nanmedian(low, moving, 0.0), _nanmedian(high, moving, 0.0)
    signatures = fit_signatures(np.stack([mean, std, low, high], axis=1), np.flatnonzero(judged))
    return HeadModel(
        center, scale, mean_width, spread_width, *ends, judged=judged, signatures=signatures
    )


def student_t(z: Floats) -> Floats:
    """Return the log density of Student's t with four degrees of freedom."""
    return np.asarray(np.log(0.375) - (NU + 1) / 2 * np.log1p(z * z / NU))


def _width(
    deviations: Floats, judged: NDArray[np.bool_], prior: float, finite: NDArray[np.bool_]
) -> Floats:
    # What n members show (the first shows nothing) and the prior, as if that were one more.
    n = np.maximum(finite.sum(axis=0) - 1, 0)
    mad = MAD * _nanmedian(np.abs(deviations), judged, prior)
    return np.asarray(np.sqrt((PRIOR_WEIGHT * prior**2 + n * mad**2) / (PRIOR_WEIGHT + n)))


def _nanmedian(values: Floats, mask: NDArray[np.bool_], default: float) -> Floats:
    out = np.full(values.shape[1], default)
    if mask.any():
        out[mask] = nanmedian(values[:, mask])
    return out


def _log_ratio(std: Floats, scale: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(std, 1e-9 * scale) / scale))
