"""D: what is wrong with the frames themselves (`--deep`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.lag import find_lag
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    import numpy.typing as npt

    from opentau_prep.validate.frames import ColumnScan
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]

FROZEN_SHARE = 0.8
_FROZEN_EPISODES = 5
JUMP_STEPS = 5
JUMP_RANGE = 0.5
JUMP_EPISODES = 0.2
LATE_S = 0.5
# Of clean episodes the largest: 5 frames where the spread is 1.5 (g1_pick_bottle), a gain in
# correlation of 0.15; other datasets have no episode off by more than 1 frame.
SHIFT_FRAMES = 3
_SHIFT_GAIN = 0.05
_SHIFT_EPISODES = 4
_PERIODS = ((2 * np.pi, "2π"), (360.0, "360 degrees"), (4096.0, "4,096 ticks"))


def unreadable(view: DatasetView) -> Iterator[Hit]:
    for rel, column, fault in view.frames.unreadable if view.frames else ():
        yield hit(fault.message, fault.hint or "", file=rel, column=column)


def non_finite(view: DatasetView) -> Iterator[Hit]:
    for name, scan in (view.frames.columns if view.frames else {}).items():
        bad = scan.moments.non_finite
        if bad.any():
            yield hit(
                f"{int(bad.sum()):,} values are NaN or infinite",
                file="data",
                column=name,
                dims=np.flatnonzero(bad.any(axis=0)),
                episodes=scan.episodes[bad.any(axis=1)],
            )


def _vectors(view: DatasetView) -> Iterator[tuple[str, ColumnScan]]:
    for column in view.vectors.values():
        scan = view.frames.columns.get(column) if view.frames else None
        if scan is not None:
            yield column, scan


def frozen_dims(view: DatasetView) -> Iterator[Hit]:
    for column, scan in _vectors(view):
        if len(scan.episodes) < _FROZEN_EPISODES:
            continue
        still = scan.moments.min == scan.moments.max
        share = still.mean(axis=0)
        # Unlike nanmin, these say nothing of a dim that is NaN throughout: it does not vary.
        low, high = np.fmin.reduce(scan.moments.min), np.fmax.reduce(scan.moments.max)
        varies = low < high
        dims = np.flatnonzero((share >= FROZEN_SHARE) & varies)
        if len(dims):
            words = [f"dim {d} in {share[d]:.0%}" for d in dims]
            yield hit(
                f"does not move within most episodes: {listed(words)} of them",
                file="data",
                column=column,
                dims=dims,
            )


def _ranges(scan: ColumnScan) -> npt.NDArray[np.float64]:
    low, high = scan.moments.min, scan.moments.max
    return np.asarray(np.fmax.reduce(high, axis=0) - np.fmin.reduce(low, axis=0))


def _wrapping(scan: ColumnScan) -> dict[int, str]:
    """Return the dims that jump by a full turn, which is also their whole range."""
    ranges, largest = _ranges(scan), scan.max_step.max(axis=0)
    found = {}
    for period, name in _PERIODS:
        turn = (0.9 * period < largest) & (largest < 1.02 * period)
        full = turn & (0.9 * period < ranges) & (ranges < 1.02 * period)
        found.update({int(d): name for d in np.flatnonzero(full)})
    return found


def angle_wraps(view: DatasetView) -> Iterator[Hit]:
    for column, scan in _vectors(view):
        wraps = _wrapping(scan)
        for name in dict.fromkeys(wraps.values()):
            dims = [d for d, n in wraps.items() if n == name]
            period = next(p for p, n in _PERIODS if n == name)
            jumps = (scan.max_step[:, dims] > 0.9 * period).any(axis=1)
            yield hit(
                f"jumps by {name} between neighbouring frames",
                file="data",
                column=column,
                dims=dims,
                episodes=scan.episodes[jumps],
            )


def jumps(view: DatasetView) -> Iterator[Hit]:
    for column, scan in _vectors(view):
        steps = view.frames.steps.get(column) if view.frames else None
        if steps is None or not len(steps):
            continue
        # A dim that is NaN throughout has no usual step; nanquantile would say so on stderr.
        known = ~np.isnan(steps).all(axis=0)
        usual = np.full(steps.shape[1], np.nan)
        usual[known] = np.nanquantile(steps[:, known], 0.99, axis=0)
        bound = np.maximum(JUMP_STEPS * usual, JUMP_RANGE * _ranges(scan))
        bound[usual <= 0] = np.inf
        bound[list(_wrapping(scan))] = np.inf
        beyond = scan.max_step > bound
        rare = beyond.sum(axis=0) <= max(1, JUMP_EPISODES * len(scan.episodes))
        beyond &= rare
        dims = np.flatnonzero(beyond.any(axis=0))
        if len(dims):
            ratio = float((scan.max_step[:, dims].max(axis=0) / usual[dims]).max())
            yield hit(
                f"moves up to {ratio:,.0f} times as far between two frames as in 99 % of them",
                file="data",
                column=column,
                dims=dims,
                episodes=scan.episodes[beyond.any(axis=1)],
            )


def shifted(view: DatasetView) -> Iterator[Hit]:
    lag = find_lag(view.frames.lags) if view.frames else None
    if lag is None or view.fps is None:
        return
    if lag.frames <= -1:
        what = f"the state leads the actions by {-lag.frames:g} frames"
    elif lag.frames / view.fps > LATE_S:
        what = f"the state follows the actions {lag.frames / view.fps:.2f} s late"
    else:
        return
    yield hit(
        f"{what} (correlation of velocities {lag.correlation:.2f})",
        file="data",
        column=view.vectors.get("actions"),
        dims=lag.dims,
    )


def episode_shifted(view: DatasetView) -> Iterator[Hit]:
    scan = view.frames.behaviour if view.frames else None
    known = None if scan is None else np.isfinite(scan.lag).all(axis=1)
    if scan is None or known is None or known.sum() < _SHIFT_EPISODES or view.fps is None:
        return
    curves, episodes = scan.lag[known], scan.episodes[known]
    best = curves.argmax(axis=1)
    usual = int(np.median(best))
    spread = 1.4826 * float(np.median(np.abs(best - usual)))
    away = best - usual
    gain = curves.max(axis=1) - curves[:, usual]
    bad = (np.abs(away) > SHIFT_FRAMES * (1 + spread)) & (gain > _SHIFT_GAIN)
    if bad.any() and bad.mean() <= JUMP_EPISODES:
        pairs = zip(episodes[bad], away[bad], strict=True)
        words = [f"episode {episode} by {frames:+d}" for episode, frames in pairs]
        middle = curves.shape[1] // 2
        yield hit(
            f"in {int(bad.sum()):,} episodes the state follows the actions by other frames than the"
            f" usual {usual - middle}: {listed(words, 5)} (over"
            f" {SHIFT_FRAMES * (1 + spread):.0f})",
            file="data",
            column=view.vectors.get("actions"),
            episodes=episodes[bad],
        )


def action_is_state(view: DatasetView) -> Iterator[Hit]:
    scan = view.frames.vectors if view.frames else None
    if scan is not None and scan.same.mean() > 0.5:
        yield hit(
            f"are the same frame's state, bit for bit, in {int(scan.same.sum()):,} of"
            f" {len(scan.same):,} episodes",
            file="data",
            column=view.vectors.get("actions"),
        )


RULES = (
    Rule(
        "D001",
        "frames-unreadable",
        "error",
        "A column of a data file holds nulls, rows of different widths, or damaged pages.",
        "Reading the file fails, or the first batch with such a row does.",
        "Write the file again from the recording.",
        unreadable,
        "frames",
    ),
    Rule(
        "D002",
        "frames-non-finite",
        "error",
        "Values of a column are NaN or infinite.",
        "One of them in a batch makes the loss NaN.",
        "Fill them from the neighbouring frames, or list the episodes in excluded_episodes.",
        non_finite,
        "frames",
    ),
    Rule(
        "D003",
        "frozen-dim",
        "warning",
        f"A dim does not move within {FROZEN_SHARE:.0%} or more of the episodes (of"
        f" {_FROZEN_EPISODES} or more), yet differs between episodes.",
        "A sensor that was stuck, or a joint that the task does not use: its spread in the stats"
        " is that between sessions, so within an episode it says nothing.",
        "Look at the dim; leave it out with state_index and action_index if it is stuck.",
        frozen_dims,
        "frames",
    ),
    Rule(
        "D004",
        "jump",
        "warning",
        f"A dim moves, between two frames, more than {JUMP_STEPS} times its 99th percentile step"
        f" and {JUMP_RANGE:.0%} of its range, in at most {JUMP_EPISODES:.0%} of the episodes (where"
        " it does so regularly, as a switched gripper does, it is how the robot works). In the"
        " published datasets at hand no step exceeds 37 % of the range.",
        "A spike of an encoder or a cut in the recording: it widens min and max, and the policy"
        " learns a motion that the robot cannot make.",
        "Correct the frames, or list the episodes in excluded_episodes.",
        jumps,
        "frames",
    ),
    Rule(
        "D005",
        "angle-wraps",
        "warning",
        "A dim jumps by a full turn (2π, 360 or 4,096), which is also its whole range.",
        "Neighbouring poses lie at opposite ends of the normalized range, and delta actions are"
        " off by a turn.",
        "Unwrap the angle, or store its sine and cosine.",
        angle_wraps,
        "frames",
    ),
    Rule(
        "D006",
        "state-action-shifted",
        "warning",
        "Velocities of state and actions match best with the state one or more frames before the"
        f" actions, or over {LATE_S} s after them (median over the dims whose correlation reaches"
        " 0.7). Robots follow their commands after a short delay: 0.10 to 0.13 s in the published"
        " datasets at hand.",
        "The policy is taught to repeat what has happened, or acts on commands long past.",
        "Shift one of the columns so that an action is in the row of the state it was given in.",
        shifted,
        "frames",
    ),
    Rule(
        "D008",
        "episode-shifted",
        "warning",
        f"In an episode (of {_SHIFT_EPISODES} or more) velocities of state and actions match best"
        f" over {SHIFT_FRAMES} frames earlier or later than in the median episode, and over"
        f" {SHIFT_FRAMES} times the spread of the episodes.",
        "Its two streams were recorded or cut apart: each action is taught for another moment.",
        "Shift the episode's actions back, or list it in excluded_episodes.",
        episode_shifted,
        "frames",
    ),
    Rule(
        "D007",
        "action-is-state",
        "warning",
        "The actions are the same frame's state, bit for bit, in most episodes.",
        "The best policy is to stay where one is.",
        "Take the next frame's state as the action.",
        action_is_state,
        "frames",
    ),
)
