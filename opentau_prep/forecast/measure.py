"""What becomes of each dim: shares beyond, used range, collapsed ranges, the largest value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.forecast.formulas import (
    BOUNDS,
    STATS_OF_MODE,
    Affine,
    Formula,
    Normalization,
    affine,
)

if TYPE_CHECKING:
    from opentau_prep.forecast.distribution import Distribution
    from opentau_prep.forecast.frames import Counted
    from opentau_prep.forecast.sets import FeatureStats

__all__ = ["DimForecast", "affine_of", "feature_modes", "is_padding", "measure"]

Floats = NDArray[np.float64]

# A range a thousandth of what the data span has collapsed: their extremes become thousands.
COLLAPSED = 1e-3


@dataclass(frozen=True)
class DimForecast:
    """One dim of a dataset under one mode.

    Attributes:
        dim: Its place.
        beyond: The shares of values whose normalized size is beyond 1, 2 and 5; NaN where only
            extremes are known.
        used: The part of the target range (or of the std) that the middle 98 % of the data (or
            their std) takes up; NaN where it is not known.
        largest: The normalized value of the largest size.
        largest_raw: The same in dataset units.
        collapsed: Whether the stats have no range to speak of, and the data do.
        openpi: What openpi's formula makes of `largest_raw`, where `collapsed`.
        episode: The episode of `largest`, where frames were read.
        frame: Its frame in that episode.
    """

    dim: int
    beyond: tuple[float, float, float]
    used: float
    largest: float
    largest_raw: float
    collapsed: bool
    openpi: float | None = None
    episode: int | None = None
    frame: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the record JSON-ready."""
        out: dict[str, Any] = {
            "dim": self.dim,
            **{f"beyond_{b:g}": s for b, s in zip(BOUNDS, self.beyond, strict=True)},
            "used": self.used,
            "largest": self.largest,
            "largest_raw": self.largest_raw,
            "collapsed": self.collapsed,
        }
        extra = {"openpi": self.openpi, "episode": self.episode, "frame": self.frame}
        return {**out, **{name: value for name, value in extra.items() if value is not None}}


def affine_of(formula: Formula, mode: Normalization, stats: FeatureStats) -> Affine | None:
    """Return what a mode does with stats; None where they lack what it needs."""
    first, second = STATS_OF_MODE[mode]
    if first not in stats or second not in stats:
        return None
    return affine(formula, mode, stats[first], stats[second])


def measure(
    own: Distribution,
    stats: FeatureStats,
    mode: Normalization,
    formula: Formula,
    counted: Counted | None = None,
) -> list[DimForecast]:
    """Return what becomes of each of D dims.

    Args:
        own: The data.
        stats: What they are normalized with; of D dims, with the stats of the mode.
        mode: Which of them.
        formula: Whose formula.
        counted: What was counted in the frames, instead of read from quantiles.
    """
    done = affine_of(formula, mode, stats)
    assert done is not None, "the mode was chosen from the stats"
    beyond = _beyond(own, done) if counted is None else counted.beyond
    ends = np.stack([own.low, own.high])
    normalized = done.normalize(ends)
    side = np.argmax(np.abs(np.nan_to_num(normalized)), axis=0)
    at = np.arange(own.dims)
    largest, raw = normalized[side, at], ends[side, at]
    if counted is not None:
        largest, raw = counted.largest, counted.largest_raw
    used = _used(own, done, mode)
    first, second = (stats[name] for name in STATS_OF_MODE[mode])
    width = np.abs(second - first) if mode != "mean_std" else 2 * second
    span = own.high - own.low
    collapsed = np.nan_to_num(width) < COLLAPSED * span
    openpi = affine("openpi", mode, first, second).normalize(raw)
    return [
        DimForecast(
            d,
            (float(beyond[0, d]), float(beyond[1, d]), float(beyond[2, d])),
            float(used[d]),
            float(largest[d]),
            float(raw[d]),
            bool(collapsed[d]),
            float(openpi[d]) if collapsed[d] else None,
            None if counted is None else int(counted.episode[d]),
            None if counted is None else int(counted.frame[d]),
        )
        for d in range(own.dims)
    ]


def _beyond(own: Distribution, done: Affine) -> Floats:
    return np.stack([own.share_beyond(done, bound) for bound in BOUNDS])


def _used(own: Distribution, done: Affine, mode: Normalization) -> Floats:
    if mode == "mean_std":
        return np.asarray(own.std / np.abs(done.half))
    middle = own.quantile(0.99) - own.quantile(0.01)
    return np.asarray(middle / (2 * np.abs(done.half)))


def feature_modes(stats: Mapping[str, Any]) -> list[Normalization]:
    """Return the modes that stats are enough for."""
    return [mode for mode, names in STATS_OF_MODE.items() if all(n in stats for n in names)]


def is_padding(stats: FeatureStats, width: int) -> bool:
    """Whether all dims from `width` on hold nothing."""
    return all(not np.nan_to_num(values[width:]).any() for values in stats.values())
