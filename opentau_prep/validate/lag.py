"""By how many frames the state follows the actions: correlation of their velocities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_LAG_FRAMES", "Lag", "find_lag", "lag_curve"]

MAX_LAG_FRAMES = 30
_CLEAR_PEAK = 0.7
_ABOVE_ZERO = 0.02
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lag:
    """A clear lag.

    Attributes:
        frames: By how many frames the state follows the actions; negative where it leads.
        dims: The dims that show it.
        correlation: The mean of their peaks.
    """

    frames: float
    dims: tuple[int, ...]
    correlation: float


def lag_curve(state: npt.NDArray[Any], actions: npt.NDArray[Any], *, fps: float) -> Floats | None:
    """Return (2 L + 1, D) correlation of velocities at lags -L..L, L one second or 30 frames.

    Args:
        state: (T, D).
        actions: (T, D).
        fps: Frames a second.

    Returns:
        None for an episode shorter than four times L. A dim that does not move has zeros.
    """
    most = min(MAX_LAG_FRAMES, round(fps))
    if len(state) < 4 * most + 2 or most < 1:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        moved = np.diff(state.astype(np.float64), axis=0)
        words = np.diff(actions.astype(np.float64), axis=0)
    if not (np.isfinite(moved).all() and np.isfinite(words).all()):
        return None
    return np.stack([_correlation(words, moved, lag) for lag in range(-most, most + 1)])


def _correlation(words: Floats, moved: Floats, lag: int) -> Floats:
    n = len(words) - abs(lag)
    x, y = (words[:n], moved[lag:]) if lag >= 0 else (words[-lag:], moved[:n])
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
    return np.asarray((x * y).sum(axis=0) / np.where(scale > 0, scale, np.inf))


def find_lag(curves: Sequence[Floats]) -> Lag | None:
    """Return the lag that most dims show clearly, over all episodes; None when none is clear.

    A dim shows it clearly when its mean correlation peaks at 0.7 or more, and above that at lag 0.
    """
    if not curves:
        return None
    mean = np.mean(curves, axis=0)
    middle = len(mean) // 2
    best = mean.argmax(axis=0)
    peak = mean.max(axis=0)
    clear = (peak >= _CLEAR_PEAK) & ((best == middle) | (peak >= mean[middle] + _ABOVE_ZERO))
    dims = np.flatnonzero(clear)
    if not len(dims):
        return None
    frames = float(np.median(best[dims] - middle))
    return Lag(frames, tuple(dims.tolist()), float(peak[dims].mean()))
