"""T: timestamps against the frame rate (`--deep`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.validate.findings import Hit, hit
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.validate.frames import TimeScan
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]

_COLUMN = "timestamp"
FPS_SHARE = 0.05


def _times(view: DatasetView) -> TimeScan | None:
    return view.frames.times if view.frames is not None else None


def _told(message: str, episodes: IntArray) -> Hit:
    return hit(message, file="data", column=_COLUMN, episodes=episodes)


def non_finite(view: DatasetView) -> Iterator[Hit]:
    scan = _times(view)
    if scan is not None and (bad := scan.non_finite > 0).any():
        yield _told(f"{int(scan.non_finite.sum()):,} values are not finite", scan.episodes[bad])


def backwards(view: DatasetView) -> Iterator[Hit]:
    scan = _times(view)
    if scan is not None and (bad := (scan.backwards > 0) & (scan.non_finite == 0)).any():
        yield _told(f"time runs backwards in {int(bad.sum()):,} episodes", scan.episodes[bad])


def repeated(view: DatasetView) -> Iterator[Hit]:
    scan = _times(view)
    if scan is not None and (bad := (scan.repeated > 0) & (scan.non_finite == 0)).any():
        yield _told(
            f"{int(scan.repeated[bad].sum()):,} frames have the time of the frame before",
            scan.episodes[bad],
        )


def _implied_fps(view: DatasetView) -> float | None:
    """Return the frame rate that the timestamps have, where it is clearly not info.json's."""
    scan = _times(view)
    if scan is None or view.fps is None:
        return None
    steps = scan.mean_step[np.isfinite(scan.mean_step) & (scan.mean_step > 0)]
    if not len(steps):
        return None
    implied = 1 / float(np.median(steps))
    return implied if abs(implied / view.fps - 1) > FPS_SHARE else None


def fps_wrong(view: DatasetView) -> Iterator[Hit]:
    if (implied := _implied_fps(view)) is not None:
        yield hit(
            f"timestamps are those of {implied:.4g} frames per second, info.json says {view.fps:g}",
            file="data",
            column=_COLUMN,
        )


def off_grid(view: DatasetView) -> Iterator[Hit]:
    scan = _times(view)
    tolerance = view.tolerance_s
    if scan is None or tolerance is None or _implied_fps(view) is not None:
        return
    odd = (scan.backwards > 0) | (scan.repeated > 0) | (scan.non_finite > 0)
    bad = (scan.worst > tolerance) & ~odd
    if bad.any():
        yield _told(
            f"{int(bad.sum()):,} episodes are up to {scan.worst[bad].max():.3g} s off 1 / fps"
            f" between frames (tolerance_s is {tolerance:g})",
            scan.episodes[bad],
        )


def not_from_zero(view: DatasetView) -> Iterator[Hit]:
    scan = _times(view)
    if scan is None or view.fps is None:
        return
    bad = np.abs(scan.first) > 0.5 / view.fps
    if bad.any():
        first = scan.first[bad][0]
        yield _told(
            f"{int(bad.sum()):,} episodes do not begin at 0 s, the first at {first:.6g} s",
            scan.episodes[bad],
        )


RULES = (
    Rule(
        "T001",
        "timestamp-non-finite",
        "error",
        "Timestamps are NaN or infinite.",
        "LeRobot finds no picture for the frame; OpenTau and openpi refuse the dataset when"
        " they open it.",
        "Write them again as frame_index / fps.",
        non_finite,
        "frames",
    ),
    Rule(
        "T002",
        "timestamp-backwards",
        "error",
        "Timestamps decrease within an episode.",
        "Frames are out of order, or two recordings were joined: chunks jump in time. OpenTau"
        " and openpi refuse the dataset when they open it.",
        "Sort the frames, or cut the episode.",
        backwards,
        "frames",
    ),
    Rule(
        "T003",
        "timestamp-repeated",
        "error",
        "Neighbouring frames have the same timestamp.",
        "Frames were recorded twice, or the clock is too coarse. LeRobot pairs pictures"
        " wrongly; OpenTau and openpi refuse the dataset when they open it.",
        "Remove the double frames, or write timestamps as frame_index / fps.",
        repeated,
        "frames",
    ),
    Rule(
        "T004",
        "fps-wrong",
        "error",
        f"The timestamps have another frame rate than info.json, by over {FPS_SHARE:.0%}.",
        "Chunks at a given action_freq are stretched in time: the policy acts too fast or slow.",
        "Write the true rate to `fps`.",
        fps_wrong,
        "frames",
    ),
    Rule(
        "T005",
        "timestamp-off-grid",
        "error",
        "Neighbouring timestamps are not 1 / fps apart within `tolerance_s` (the entry's, or the"
        " mixture's; entries with skip_timestamp_check are left out). What float32 rounding"
        " explains is allowed.",
        "OpenTau and openpi refuse the dataset when they open it; LeRobot does not look. Frames"
        " were dropped where the gap is.",
        "Fill the gaps, raise tolerance_s, or set skip_timestamp_check if pictures do not matter.",
        off_grid,
        "frames",
    ),
    Rule(
        "T006",
        "timestamp-start",
        "warning",
        "Episodes do not begin at 0 s.",
        "LeRobot and openpi look pictures up by these times, counted from the episode's start:"
        " they show those of later frames, or stop. OpenTau counts rows.",
        "Subtract the first timestamp of each episode.",
        not_from_zero,
        "frames",
    ),
)
