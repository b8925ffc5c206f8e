"""How the robot behaves in each episode: idle ends, tremble, limits, offsets, where it ends.

E episodes, D dims. Steps are in shares of each dim's range by the stats, so that joints in radians
and in degrees are measured alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opentau_prep.metadata.records import IntArray
from opentau_prep.validate.lag import mean_lag_curve

__all__ = ["BehaviourScan", "VectorBehaviour", "measure_behaviour"]

Floats = npt.NDArray[np.float64]

# A frame is idle when no dim of state or actions moves by more than this share of its range. The
# sensor noise of the published datasets at hand stays below it.
IDLE_STEP = 0.002
# Slow enough that a delay of some frames between state and actions is no distance.
REST_STEP = 0.02
_AT_LIMIT = 1e-6
_REST_FRAMES = 5


@dataclass(frozen=True)
class VectorBehaviour:
    """One vector, the state or the actions.

    Attributes:
        shake: (E, D) mean |second difference|, in shares of the range.
        low: (E, D) frames at the smallest value of the dataset that do move.
        high: (E, D) frames at the largest.
        last: (E, D) the last frame, in shares of the range from the smallest value.
    """

    shake: Floats
    low: IntArray
    high: IntArray
    last: Floats


@dataclass(frozen=True)
class BehaviourScan:
    """The episodes of a dataset.

    Attributes:
        episodes: (E,) int64.
        frames: (E,) their lengths.
        head: (E,) idle frames at the start.
        tail: (E,) idle frames at the end.
        moving: (E,) frames that are not idle.
        offset: (E, D) median of actions - state in the slowest tenth of the frames, in shares of
            the state's range; NaN where those are not slow, or the vectors differ in width.
        lag: (E, 2 L + 1) correlation of the velocities of state and actions at lags -L..L (see
            `mean_lag_curve`); NaN where it is not known.
        state: The state.
        actions: The actions.
    """

    episodes: IntArray
    frames: IntArray
    head: IntArray
    tail: IntArray
    moving: IntArray
    offset: Floats
    lag: Floats
    state: VectorBehaviour
    actions: VectorBehaviour


def measure_behaviour(
    vectors: Mapping[str, npt.NDArray[np.floating]],
    limits: Mapping[str, Floats],
    episodes: IntArray,
    spans: IntArray,
    fps: float,
) -> BehaviourScan | None:
    """Measure episodes that follow one another.

    Args:
        vectors: `state` and `actions` -> (N, D).
        limits: `state` and `actions` -> (2, D) smallest and largest value of the whole dataset.
        episodes: (E,).
        spans: (E, 2) first row and row after the last; none is empty, and they leave no gap.
        fps: Frames per second.

    Returns:
        None where there are no limits of both vectors in their own widths.
    """
    names = ("state", "actions")
    if any(n not in vectors or n not in limits for n in names):
        return None
    if any(limits[n].shape != (2, vectors[n].shape[1]) or not vectors[n].shape[1] for n in names):
        return None
    starts, stops = spans[:, 0], spans[:, 1]
    shares = {n: _shares(vectors[n], limits[n]) for n in names}
    steps = {n: _steps(shares[n], starts) for n in names}
    speed = np.max([steps[n].max(axis=1) for n in names], axis=0)
    idle = speed <= IDLE_STEP
    position = np.arange(len(idle)) - np.repeat(starts, stops - starts)
    frames = stops - starts
    moves = np.where(idle, np.iinfo(np.int64).max, position)
    first = np.minimum(np.minimum.reduceat(moves, starts), frames)
    last = np.maximum.reduceat(np.where(idle, -1, position), starts)
    return BehaviourScan(
        episodes,
        frames,
        first,
        np.where(last < 0, frames, frames - 1 - last),
        np.add.reduceat((~idle).astype(np.int64), starts),
        _offsets(vectors, limits["state"], speed, spans),
        _lags(vectors, limits["state"], spans, fps),
        *(_vector(shares[n], idle, starts, stops) for n in names),
    )


def _shares(matrix: npt.NDArray[np.floating], limits: Floats) -> Floats:
    low, high = limits
    varies = high > low
    scale = np.where(varies, high - low, 1.0)
    shares = np.nan_to_num((matrix.astype(np.float64) - low) / scale)
    shares[:, ~varies] = 0.5  # a dim with one value is idle, and at no limit
    return np.asarray(shares)


def _steps(shares: Floats, starts: IntArray) -> Floats:
    steps = np.zeros_like(shares)
    steps[1:] = np.abs(np.diff(shares, axis=0))
    steps[starts] = 0
    return steps


def _vector(
    shares: Floats, idle: npt.NDArray[np.bool_], starts: IntArray, stops: IntArray
) -> VectorBehaviour:
    bend = np.zeros_like(shares)
    bend[1:-1] = np.abs(shares[2:] - 2 * shares[1:-1] + shares[:-2])
    bend[starts] = bend[stops - 1] = 0
    inner = np.maximum(stops - starts - 2, 1)[:, None]
    moving = ~idle[:, None]
    at = [shares <= _AT_LIMIT, shares >= 1 - _AT_LIMIT]
    runs = []
    for mask in at:  # one frame at the limit is where the limit comes from
        pair = mask & moving
        pair[1:] &= mask[:-1]
        pair[starts] = False
        stuck = np.logical_and.reduceat(mask, starts, axis=0)  # in the whole episode: D003
        runs.append(np.where(stuck, 0, np.add.reduceat(pair.astype(np.int64), starts, axis=0)))
    return VectorBehaviour(
        np.add.reduceat(bend, starts, axis=0) / inner, runs[0], runs[1], shares[stops - 1]
    )


def _offsets(
    vectors: Mapping[str, npt.NDArray[np.floating]],
    limits: Floats,
    speed: Floats,
    spans: IntArray,
) -> Floats:
    state, actions = vectors["state"], vectors["actions"]
    offsets = np.full((len(spans), state.shape[1]), np.nan)
    if state.shape[1] != actions.shape[1]:
        return offsets
    scale = np.where(limits[1] > limits[0], limits[1] - limits[0], np.inf)
    for row, (start, stop) in enumerate(spans):
        # The slowest tenth: sensors of some robots are never still to a thousandth.
        pace = speed[start:stop]
        rest = np.argsort(pace, kind="stable")[: max(len(pace) // 10, 1)] + start
        if len(rest) >= _REST_FRAMES and speed[rest].max() <= REST_STEP:
            apart = actions[rest].astype(np.float64) - state[rest]
            offsets[row] = np.median(apart, axis=0) / scale
    return offsets


def _lags(
    vectors: Mapping[str, npt.NDArray[np.floating]], limits: Floats, spans: IntArray, fps: float
) -> Floats:
    state, actions = vectors["state"], vectors["actions"]
    if state.shape[1] != actions.shape[1]:
        return np.full((len(spans), 1), np.nan)
    scale = np.where(limits[1] > limits[0], limits[1] - limits[0], np.inf)
    return np.stack([mean_lag_curve(state[a:b], actions[a:b], scale, fps=fps) for a, b in spans])
