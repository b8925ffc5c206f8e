"""B: how the robot behaves in single episodes (`--deep`), with the measured value as evidence.

The bounds were set on two published datasets and the demo, which have no finding, and no subset of
their episodes has; docs/faults.md holds what is found on clean copies and of planted faults,
measured by scripts/bench_faults.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opentau_prep.validate.behaviour import IDLE_STEP, REST_STEP
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.validate.behaviour import BehaviourScan, VectorBehaviour
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]

# Largest on clean data: 0.36 of an episode (4.5 s, so101_record_test).
IDLE_SHARE = 0.4
IDLE_S = 1.0
# Largest on clean data: 5.8.
TREMBLE_RATIO = 7.0
TREMBLE_SHAKE = 0.01
# Largest on clean data, hands and grippers left out: 0.06 (so101_record_test, elbow).
CLIPPED_SHARE = 0.1
# Largest on clean data: 0.05, of windows of 8 to 100 episodes of g1_pick_bottle. Without the second
# bound joints that are hardly used reach several times their range.
OFFSET = 0.06
USED = 0.35
# On clean data it is less, in windows of 20 and more episodes of g1_pick_bottle, whose ends vary;
# of fewer episodes some exceed it. One at the other end of every range is mostly further away.
END_POSE = 0.38
_END_EPISODES = 16
_MIN_EPISODES = 8
_OFFSET_EPISODES = 3
_TASK_EPISODES = 4
_COMPARED = 256
Floats = npt.NDArray[np.float64]
_HAND = re.compile(r"grip|hand|finger|thumb|claw|jaw|suction", re.IGNORECASE)


def _scan(view: DatasetView) -> BehaviourScan | None:
    return view.frames.behaviour if view.frames is not None else None


def idle_ends(view: DatasetView) -> Iterator[Hit]:
    scan = _scan(view)
    if scan is None or not view.fps:
        return
    for frames, where in ((scan.head, "start"), (scan.tail, "end")):
        bad = (frames > IDLE_SHARE * scan.frames) & (frames > IDLE_S * view.fps)
        if bad.any():
            share = frames[bad] / scan.frames[bad]
            seconds = frames[bad] / view.fps
            worst = int(np.argmax(share))
            yield hit(
                f"{int(bad.sum()):,} episodes do not move at the {where} for more than"
                f" {IDLE_SHARE:.0%} of their frames, up to {share[worst]:.0%}"
                f" ({seconds[worst]:.1f} s, episode {scan.episodes[bad][worst]})",
                file="data",
                episodes=scan.episodes[bad],
            )


def _vectors(view: DatasetView) -> Iterator[tuple[str, VectorBehaviour]]:
    scan = _scan(view)
    for name, column in view.vectors.items():
        if scan is not None:
            yield column, scan.state if name == "state" else scan.actions


def _usual(view: DatasetView, episodes: IntArray, values: Floats) -> Floats:
    """Return (E, D) the median of each episode's task, or of all where a task has few episodes."""
    usual: Floats = np.repeat(np.median(values, axis=0)[None], len(values), axis=0)
    spans = view.frames.task_spans() if view.frames is not None else None
    if spans is not None and np.array_equal(spans[0], episodes):
        for task in np.unique(spans[1]):
            rows = spans[1] == task
            if rows.sum() >= _TASK_EPISODES:
                usual[rows] = np.median(values[rows], axis=0)
    return usual


def tremble(view: DatasetView) -> Iterator[Hit]:
    scan = _scan(view)
    for column, vector in _vectors(view):
        if scan is None or len(scan.episodes) < _MIN_EPISODES:
            continue
        usual = _usual(view, scan.episodes, vector.shake)
        # A dim that hardly moves in most episodes would make any motion of it a tremble.
        ratio = vector.shake / np.maximum(
            np.maximum(usual, np.median(usual, axis=1, keepdims=True) / 2), 1e-12
        )
        bad = (ratio > TREMBLE_RATIO) & (vector.shake > TREMBLE_SHAKE)
        if bad.any():
            dims = np.flatnonzero(bad.any(axis=0))
            yield hit(
                f"{int(bad.any(axis=1).sum()):,} episodes change direction up to"
                f" {ratio[bad].max():.0f} times as hard from frame to frame as the median"
                " episode of their task",
                file="data",
                column=column,
                dims=dims,
                episodes=scan.episodes[bad.any(axis=1)],
            )


def _hands(view: DatasetView, column: str, width: int) -> npt.NDArray[np.bool_]:
    """Return the dims that may rest at a limit: hands by name, the last dim where none is named."""
    names = (view.features or {})[column].names
    if len(names) != width:
        return np.asarray(np.arange(width) == width - 1)
    return np.array([_HAND.search(str(name)) is not None for name in names], dtype=bool)


def clipped(view: DatasetView) -> Iterator[Hit]:
    scan = _scan(view)
    for column, vector in _vectors(view):
        moving = int(scan.moving.sum()) if scan is not None else 0
        if scan is None or moving == 0:
            continue
        for counts, which in ((vector.low, "smallest"), (vector.high, "largest")):
            share = counts.sum(axis=0) / moving
            share[_hands(view, column, len(share))] = 0
            dims = np.flatnonzero(share > CLIPPED_SHARE)
            if len(dims):
                words = [f"dim {d} in {share[d]:.0%}" for d in dims]
                yield hit(
                    f"holds exactly its {which} value while the robot moves: {listed(words)} of the"
                    f" frames (over {CLIPPED_SHARE:.0%})",
                    file="data",
                    column=column,
                    dims=dims,
                    episodes=scan.episodes[(counts[:, dims] > 0).any(axis=1)],
                )


def calibration_offset(view: DatasetView) -> Iterator[Hit]:
    scan = _scan(view)
    known = None if scan is None else np.isfinite(scan.offset).all(axis=1)
    ranges = _ranges(view)
    if scan is None or known is None or known.sum() < _OFFSET_EPISODES or ranges is None:
        return
    # A joint that this dataset hardly uses sags by much of its own range.
    state, usual = ranges["state"], float(np.median(ranges["state"]))
    offsets = scan.offset[known] * state / np.maximum(np.maximum(state, usual), 1e-12)
    middle = np.median(offsets, axis=0)
    spread = np.median(np.abs(offsets - middle), axis=0)
    bad = (np.abs(middle) > OFFSET) & (spread < np.abs(middle) / 2)
    bad &= ~_hands(view, view.vectors["state"], len(middle))
    small, large = np.minimum(*ranges.values()), np.maximum(*ranges.values())
    bad &= (small > 0) & (large < 2 * small) & _used(view, np.maximum(state, usual))
    # Where most dims differ the vectors are of two kinds, not of one badly calibrated robot.
    dims = np.flatnonzero(bad)
    if len(dims) and len(dims) <= len(middle) / 2:
        words = [f"dim {d} by {middle[d]:+.1%} of its range" for d in dims]
        yield hit(
            f"the actions stay apart from the state when the robot is slow: {listed(words)} (over"
            f" {OFFSET:.0%}; the median of {int(known.sum()):,} episodes)",
            file="data",
            column=view.vectors["actions"],
            dims=dims,
        )


def _ranges(view: DatasetView) -> dict[str, Floats] | None:
    """Return state and actions -> (D,) range by the stats; None where widths differ."""
    ranges: dict[str, Floats] = {}
    for name, column in view.vectors.items():
        entry = (view.stats or {}).get(column, {})
        ends = [np.atleast_1d(entry[s]).astype(np.float64) for s in ("min", "max") if s in entry]
        if len(ends) < 2 or ends[0].ndim != 1 or ends[0].shape != ends[1].shape:
            return None
        ranges[name] = ends[1] - ends[0]
    shapes = {each.shape for each in ranges.values()}
    return ranges if len(ranges) == 2 and len(shapes) == 1 else None


def _used(view: DatasetView, ranges: Floats) -> npt.NDArray[np.bool_]:
    """Return the dims that are used: that move through enough of a range in most episodes."""
    scan = view.frames.columns.get(view.vectors["state"]) if view.frames else None
    if scan is None or scan.moments.max.shape[1:] != ranges.shape:
        return np.zeros(ranges.shape, dtype=bool)
    moved = np.median(scan.moments.max - scan.moments.min, axis=0)
    return np.asarray(moved >= USED * ranges, dtype=bool)


def end_pose(view: DatasetView) -> Iterator[Hit]:
    scan = _scan(view)
    if scan is None or len(scan.episodes) < _END_EPISODES:
        return
    alone = _apart(np.concatenate([scan.state.last, scan.actions.last], axis=1))
    bad = alone > END_POSE
    if bad.any():
        pairs = zip(scan.episodes[bad], alone[bad], strict=True)
        words = [f"episode {episode} ({share:.0%})" for episode, share in pairs]
        yield hit(
            f"{int(bad.sum()):,} episodes end in a pose far from every other's: {listed(words, 5)}"
            f" (share of the range, mean over the dims; over {END_POSE:.0%})",
            file="data",
            episodes=scan.episodes[bad],
        )


def _apart(poses: Floats) -> Floats:
    """Return (E,) how far each of (E, D) poses is from the second nearest other one.

    The second, since a fault may have struck two. Unlike a deviation from the median this allows
    for several ways to end, however few episodes choose one of them.
    """
    others = np.unique(np.linspace(0, len(poses) - 1, _COMPARED).astype(int))
    found = np.empty(len(poses))
    for first in range(0, len(poses), _COMPARED):  # a block at a time: E x E x D is too much
        block = poses[first : first + _COMPARED, None]
        far = np.abs(block - poses[others][None]).mean(axis=2)
        far[others[None] == np.arange(first, first + len(block))[:, None]] = np.inf
        found[first : first + len(block)] = np.partition(far, 1, axis=1)[:, 1]
    return found


_LOOK = "Look at the episodes; `--write-exclusions FILE` lists them in a copy of the mixture."
RULES = (
    Rule(
        "B001",
        "idle-ends",
        "warning",
        f"An episode begins or ends with over {IDLE_SHARE:.0%} of its frames (and over"
        f" {IDLE_S:g} s) in which no dim moves by more than {IDLE_STEP:.1%} of its range per"
        " frame.",
        "The policy learns not to move at the start, and cannot tell when to begin.",
        f"{_LOOK} Or cut the idle frames and compute the stats again.",
        idle_ends,
        "frames",
    ),
    Rule(
        "B002",
        "tremble",
        "warning",
        f"In an episode (of {_MIN_EPISODES} or more) a dim's second difference is over"
        f" {TREMBLE_RATIO:g} times that of the median episode of its task, and over"
        f" {TREMBLE_SHAKE:.0%} of its range per frame.",
        "A loose connector, a bad gain or a shaking operator: the policy learns to shake.",
        _LOOK,
        tremble,
        "frames",
    ),
    Rule(
        "B003",
        "clipped",
        "warning",
        f"A dim holds exactly its smallest or largest value in over {CLIPPED_SHARE:.0%} of the"
        " frames in which the robot moves. Hands and grippers are left out by name, or the last dim"
        " where dims have no names.",
        "Values were cut off at a limit: the motion beyond it is lost, and the policy pushes"
        " against it.",
        "Record with wider limits; leave the dim out with state_index and action_index if the limit"
        " is the robot's own.",
        clipped,
        "frames",
    ),
    Rule(
        "B004",
        "state-action-offset",
        "warning",
        "State and actions of a dim differ by a constant when the robot is slow (steps of at most"
        f" {REST_STEP:.0%} of the range): by over {OFFSET:.0%} of the range, alike in most"
        f" episodes, in at most half of the dims. Only joints that move through {USED:.0%} of their"
        " range in most episodes are looked at; hands are left out.",
        "Leader and follower are calibrated differently: where the state is the input and the"
        " action the command, every command is off by that much on a robot that is calibrated.",
        "Calibrate both arms and record again, or subtract the offset from the actions and compute"
        " the stats again.",
        calibration_offset,
        "frames",
    ),
    Rule(
        "B005",
        "end-pose",
        "warning",
        f"An episode (of {_END_EPISODES} or more) ends over {END_POSE:.0%} of the range (mean over"
        " the dims of state and actions) from the end of every other episode but one.",
        "It was aborted, or ends in another task: the policy learns an end that is none.",
        _LOOK,
        end_pose,
        "frames",
    ),
)
