"""By how many frames the state follows the actions: correlation of their velocities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_LAG_FRAMES", "Lag", "find_lag", "lag_curve", "mean_lag_curve"]

# A second at 30 frames per second.
MAX_LAG_FRAMES = 30
_CLEAR_PEAK = 0.7
_ABOVE_ZERO = 0.02
# Dims that hardly move say nothing of time, and most of what moves is in a few.
_MOVING_DIMS = 6
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


def mean_lag_curve(
    state: npt.NDArray[Any], actions: npt.NDArray[Any], scale: Floats, *, fps: float
) -> Floats:
    """Return (2 L + 1,) correlation as of `lag_curve`, the mean of the dims that move most.

    At the ends of an episode it is that of fewer frames, and so a little smaller: enough to find a
    peak, in a tenth of the time.

    Args:
        state: (T, D).
        actions: (T, D).
        scale: (D,) the size of each dim's motion, such as its range.
        fps: Frames per second.

    Returns:
        NaN for an episode shorter than four times L, or one in which nothing moves.
    """
    most = min(MAX_LAG_FRAMES, round(fps))
    nothing = np.full(2 * most + 1, np.nan)
    if len(state) < 4 * most + 2 or most < 1:
        return nothing
    x, y = (np.diff(each.astype(np.float64), axis=0) / scale for each in (actions, state))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    sizes = np.sqrt(np.stack([(x * x).sum(axis=0), (y * y).sum(axis=0)]))
    moving = np.argsort(-sizes.min(axis=0), kind="stable")[:_MOVING_DIMS]
    norm = sizes[:, moving].prod(axis=0)
    if not np.isfinite(norm).all() or not norm.any():
        return nothing
    padded = np.zeros((len(y) + 2 * most, len(moving)))
    padded[most : most + len(y)] = y[:, moving]
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(y), axis=0)
    curves = np.einsum("td,ldt->ld", x[:, moving], windows)
    return np.asarray((curves / np.where(norm > 0, norm, np.inf)).mean(axis=1))


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
