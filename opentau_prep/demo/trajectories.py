"""Made-up robots, and smooth demonstrations of them: pick something up, carry it, put it down.

The same seed gives the same bits on every platform and NumPy version: the only random source is
`Generator.random` of PCG64, and everything after it is additions, multiplications and divisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "ARM6",
    "ARM6_POSE",
    "ARM8",
    "BIMANUAL14",
    "HUMANOID26",
    "MOBILE11",
    "Motion",
    "Robot",
    "demonstrate",
    "demonstration_lengths",
    "minimum_jerk",
]

Array = npt.NDArray[Any]

# A pick and place: rest at home, go above the object, down to it, close, carry it above the target,
# put it down and open, return. When each waypoint is reached, as a share of the duration; how far
# the grippers are open there; the earlier waypoint that an episode shifts it together with.
_WAYPOINT_AT = (0.0, 0.04, 0.28, 0.38, 0.50, 0.70, 0.82, 1.0)
_OPENING_AT = (0.95, 0.95, 0.90, 0.85, 0.15, 0.15, 0.85, 0.95)
_SHIFTED_WITH = (0, 0, 2, 2, 2, 5, 5, 7)
# A demonstrator's pace: the share of the usual duration that a demonstration takes, from and to.
_FAST_PACE, _SLOW_PACE = (0.65, 0.90), (1.15, 1.60)


@dataclass(frozen=True)
class Robot:
    """One way of driving a robot: what each dim of its state and action vectors is.

    Attributes:
        names: The dims' names, D of them.
        low: The lower limits in dataset units (rad, m; grippers 0 is closed).
        high: The upper limits.
        home: Where every demonstration begins and ends.
        grippers: The dims that are grippers or fingers, within 0..1.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    home: tuple[float, ...]
    grippers: tuple[int, ...]

    @property
    def dim(self) -> int:
        """The number of dims D."""
        return len(self.names)


@dataclass(frozen=True)
class Motion:
    """One demonstration.

    Attributes:
        state: (T, D) float32, where the robot was, with a little sensor noise.
        actions: (T, D) float32, where it was reported to be: the path some steps ahead.
    """

    state: Array
    actions: Array


def demonstrate(
    robot: Robot,
    *,
    n_frames: int,
    task_seed: int,
    episode_seed: int,
    reach: float = 0.5,
    jitter: float = 0.08,
    lead_frames: int = 2,
    noise: float = 0.001,
) -> Motion:
    """Return one demonstration of a task.

    A task's waypoints come from its own seed, so that its demonstrations resemble each other; an
    episode moves them a little. Between waypoints the path has minimum jerk.

    Args:
        robot: The dims and their limits.
        n_frames: T, at least 1.
        task_seed: What is done.
        episode_seed: How it is done this time.
        reach: How far waypoints lie from home, as a share of the way to the limits.
        jitter: How much an episode's waypoints differ from the task's, as a share of the range.
        lead_frames: How many frames the actions are ahead of the state.
        noise: Largest sensor error, as a share of a dim's range.
    """
    low, high = np.array(robot.low), np.array(robot.high)
    waypoints = _waypoints(robot, task_seed, reach)
    rng = _generator(task_seed, episode_seed)
    shift = (rng.random(waypoints.shape) * 2 - 1) * jitter * (high - low)
    shift[:, list(robot.grippers)] *= 0.25
    shift = shift[list(_SHIFTED_WITH)]
    waypoints = np.clip(waypoints + shift, *_inner_limits(low, high))
    at = np.array(_WAYPOINT_AT) * max(n_frames - 1, 1)
    frames = np.arange(n_frames + lead_frames, dtype=np.float64)
    path = minimum_jerk(waypoints, at, np.minimum(frames, at[-1]))
    error = _smooth_noise(rng, n_frames, robot.dim) * noise * (high - low)
    state = np.clip(path[:n_frames] + error, low, high)
    actions = path[lead_frames : lead_frames + n_frames]
    return Motion(state.astype(np.float32), actions.astype(np.float32))


def demonstration_lengths(
    n_episodes: int, *, usual_s: float, fps: float, seed: int, distinct: int | None = None
) -> list[int]:
    """Return how long each demonstration of a task is, in frames.

    Fast and slow demonstrators take turns, so that lengths have two humps.

    Args:
        n_episodes: How many.
        usual_s: The usual duration in seconds.
        fps: Frames a second.
        seed: Of the paces.
        distinct: At most so many different lengths, as with demonstrations of a fixed duration.
    """
    rng = _generator(seed, n_episodes)
    kinds = min(n_episodes, distinct or n_episodes)
    lengths = []
    for number, draw in enumerate(rng.random(kinds).tolist()):
        slowest, fastest = _SLOW_PACE if number % 2 else _FAST_PACE
        pace = slowest + (fastest - slowest) * draw
        lengths.append(max(round(pace * usual_s * fps), 2))
    return [lengths[i % kinds] for i in range(n_episodes)]


def minimum_jerk(waypoints: Array, at: Array, times: Array) -> Array:
    """Return the minimum-jerk path through waypoints, at rest at each of them.

    Args:
        waypoints: (K, D).
        at: (K,) increasing, when each waypoint is reached.
        times: (T,) within `at[0]..at[-1]`.

    Returns:
        (T, D) float64. Between two waypoints, with s the share of the time that has passed,
        the share of the way is 10 s³ - 15 s⁴ + 6 s⁵ (the quintic of least integrated jerk).
    """
    segment = np.clip(np.searchsorted(at, times, side="right") - 1, 0, len(at) - 2)
    s = (times - at[segment]) / (at[segment + 1] - at[segment])
    blend = (s * s * s * (10 + s * (6 * s - 15)))[:, None]
    start = waypoints[segment]
    return np.asarray(start + (waypoints[segment + 1] - start) * blend)


def _waypoints(robot: Robot, task_seed: int, reach: float) -> Array:
    """Return the task's (K, D) waypoints; the grippers follow the pick and place."""
    low, high, home = np.array(robot.low), np.array(robot.high), np.array(robot.home)
    rng = _generator(task_seed)
    draw = rng.random((len(_WAYPOINT_AT), robot.dim)) * 2 - 1
    way = np.where(draw >= 0, high - home, home - low)
    points = home + draw * way * reach
    for rest in (0, 1, -1):
        points[rest] = home
    for near, above in ((3, 2), (6, 5)):
        points[near] = points[above] + (points[near] - points[above]) * 0.25
    points[4] = points[3]  # stays while the gripper closes
    for gripper in robot.grippers:
        scale = 0.9 + 0.1 * rng.random()
        points[:, gripper] = np.array(_OPENING_AT) * scale
    return np.asarray(points)


def _inner_limits(low: Array, high: Array) -> tuple[Array, Array]:
    """Return limits a little inside the real ones, so that noise does not clip."""
    margin = 0.02 * (high - low)
    return np.asarray(low + margin), np.asarray(high - margin)


def _smooth_noise(rng: np.random.Generator, n_frames: int, dim: int) -> Array:
    """Return (T, D) noise within -1..1, each frame the mean of three draws."""
    draws = rng.random((n_frames + 2, dim)) * 2 - 1
    return np.asarray((draws[:-2] + draws[1:-1] + draws[2:]) / 3)


def _generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(_entropy(seed)))


def _entropy(seed: Sequence[int]) -> list[int]:
    # The length is mixed in too: otherwise (7,) and (7, 0) would give one stream.
    return [len(seed), *seed]


# Each joint has a range and a home of its own, as real arms do: that is what makes a swapped pair
# of dims, or another unit, visible in the stats.
_ARM6_JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_flex", "wrist_roll")
_ARM6_LOW = (-1.9, -1.8, 0.1, -1.6, -2.8)
_ARM6_HIGH = (1.9, 0.4, 2.9, 1.6, 2.8)
_ARM6_HOME = (0.0, -1.2, 1.7, 0.6, -0.3)
_ARM7_JOINTS = (*(f"joint_{i}" for i in range(1, 8)),)
_ARM7_LOW = (-2.8, -1.7, -2.8, -3.0, -2.8, 0.0, -2.8)
_ARM7_HIGH = (2.8, 1.7, 2.8, -0.1, 2.8, 3.7, 2.8)
_ARM7_HOME = (0.1, -0.5, 0.2, -2.1, 0.1, 1.8, 0.8)
_FINGERS = ("thumb_rotate", "thumb_bend", "index", "middle", "ring", "pinky")


def _sides(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for side in ("left", "right") for name in names)


ARM6: Final = Robot(
    names=(*_ARM6_JOINTS, "gripper"),
    low=(*_ARM6_LOW, 0.0),
    high=(*_ARM6_HIGH, 1.0),
    home=(*_ARM6_HOME, 0.9),
    grippers=(5,),
)
ARM6_POSE: Final = Robot(
    names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    low=(0.10, -0.35, 0.02, -3.1, -1.5, -1.5, 0.0),
    high=(0.55, 0.35, 0.45, 3.1, 1.5, 1.5, 1.0),
    home=(0.28, 0.0, 0.25, 0.4, 0.9, 0.1, 0.9),
    grippers=(6,),
)
ARM8: Final = Robot(
    names=(*_ARM7_JOINTS, "gripper"),
    low=(*_ARM7_LOW, 0.0),
    high=(*_ARM7_HIGH, 1.0),
    home=(*_ARM7_HOME, 0.9),
    grippers=(7,),
)
BIMANUAL14: Final = Robot(
    names=_sides((*_ARM6_JOINTS, "wrist_yaw", "gripper")),
    low=(*_ARM6_LOW, -1.2, 0.0) * 2,
    high=(*_ARM6_HIGH, 1.2, 1.0) * 2,
    home=(*_ARM6_HOME, 0.2, 0.9) * 2,
    grippers=(6, 13),
)
HUMANOID26: Final = Robot(
    names=(*_sides(_ARM7_JOINTS), *_sides(_FINGERS)),
    low=(*_ARM7_LOW * 2, *(0.0,) * 12),
    high=(*_ARM7_HIGH * 2, *(1.0,) * 12),
    home=(*_ARM7_HOME * 2, *(0.9,) * 12),
    grippers=tuple(range(14, 26)),
)
# A mobile base next to the arm: the mixture selects the arm's columns only.
MOBILE11: Final = Robot(
    names=("base_vx", "base_vy", "base_wz", *ARM8.names),
    low=(-0.5, -0.5, -1.0, *ARM8.low),
    high=(0.5, 0.5, 1.0, *ARM8.high),
    home=(0.0, 0.0, 0.0, *ARM8.home),
    grippers=(10,),
)
