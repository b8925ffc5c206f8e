"""What one pass over a dataset's frames found: records that merge, and questions to them.

E episodes, D dims of a column, Q quantiles. Everything an episode contributes is kept apart from
the other episodes', so that slices of a dataset can be scanned anywhere and put together in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import PrepError
from opentau_prep.metadata.records import IntArray
from opentau_prep.stats.moments import Moments
from opentau_prep.validate.behaviour import BehaviourScan, VectorBehaviour

__all__ = ["ColumnScan", "FrameSummary", "ScalarScan", "TimeScan", "VectorScan", "joined"]

Floats = npt.NDArray[np.float64]
R = TypeVar("R")


@dataclass(frozen=True)
class ColumnScan:
    """One column of numbers.

    Attributes:
        episodes: (E,) int64.
        moments: (E, D).
        max_step: (E, D) largest |difference| between neighbouring frames; 0 for one frame.
    """

    episodes: IntArray
    moments: Moments
    max_step: Floats


@dataclass(frozen=True)
class ScalarScan:
    """One column of whole numbers.

    Attributes:
        episodes: (E,) int64.
        first: (E,) its value in the first frame.
        low: (E,) smallest.
        high: (E,) largest.
        counts_up: (E,) whether each frame has one more than the one before.
    """

    episodes: IntArray
    first: IntArray
    low: IntArray
    high: IntArray
    counts_up: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TimeScan:
    """The timestamps, in seconds.

    Attributes:
        episodes: (E,) int64.
        first: (E,) of the first frame.
        mean_step: (E,) mean difference between neighbours; NaN for one frame.
        worst: (E,) largest |difference - 1 / fps|, less what the column's own rounding explains.
        backwards: (E,) differences below 0.
        repeated: (E,) differences of 0.
        non_finite: (E,) values that are not finite.
    """

    episodes: IntArray
    first: Floats
    mean_step: Floats
    worst: Floats
    backwards: IntArray
    repeated: IntArray
    non_finite: IntArray


@dataclass(frozen=True)
class VectorScan:
    """State and actions together.

    Attributes:
        episodes: (E,) int64.
        digest: (E,) the hash of both, bit for bit.
        same: (E,) whether the actions are the same frame's state, bit for bit, and move.
    """

    episodes: IntArray
    digest: npt.NDArray[Any]
    same: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FrameSummary:
    """What the frames of a dataset, or of some of its files, hold.

    Attributes:
        columns: Column -> its numbers.
        scalars: Column -> its whole numbers.
        times: The timestamps, if there are any.
        vectors: State and actions, if there are both.
        below: Column -> (Q, D) values that lie below each of the stats' quantiles.
        equal: Column -> (Q, D) values equal to it.
        steps: Column -> (S, D) |differences| of a sample of episodes.
        lags: Column pair's (S, L, D) correlation of velocities, a curve a sampled episode; lag 0
            in the middle, positive where the state follows the action.
        behaviour: How the robot behaves in each episode; None without stats of both vectors.
        unplaced: Files whose episodes cannot be distinguished, and why.
        unreadable: (file, column, why).
    """

    columns: Mapping[str, ColumnScan] = field(default_factory=dict)
    scalars: Mapping[str, ScalarScan] = field(default_factory=dict)
    times: TimeScan | None = None
    vectors: VectorScan | None = None
    below: Mapping[str, IntArray] = field(default_factory=dict)
    equal: Mapping[str, IntArray] = field(default_factory=dict)
    steps: Mapping[str, Floats] = field(default_factory=dict)
    lags: Sequence[Floats] = ()
    behaviour: BehaviourScan | None = None
    unplaced: Sequence[tuple[str, PrepError]] = ()
    unreadable: Sequence[tuple[str, str, PrepError]] = ()

    def width(self, column: str) -> int | None:
        """Return D of a column; None when it was not read."""
        scan = self.columns.get(column)
        return None if scan is None else int(scan.max_step.shape[1])

    def flagged(self, name: str) -> IntArray:
        """Return the episodes in which a whole-number column does not count 0, 1, 2, ..."""
        scan = self.scalars.get(name)
        if scan is None:
            return np.zeros(0, dtype=np.int64)
        return np.asarray(scan.episodes[~scan.counts_up | (scan.first != 0)])

    def task_spans(self) -> tuple[IntArray, IntArray, IntArray] | None:
        """Return the episodes, and the smallest and largest task_index of each."""
        scan = self.scalars.get("task_index")
        return None if scan is None else (scan.episodes, scan.low, scan.high)

    def duplicates(self) -> list[list[int]]:
        """Return the groups of episodes whose state and actions are the same, bit for bit."""
        if self.vectors is None:
            return []
        groups: dict[bytes, list[int]] = {}
        for episode, digest in zip(self.vectors.episodes, self.vectors.digest, strict=True):
            groups.setdefault(bytes(digest), []).append(int(episode))
        return [sorted(group) for group in groups.values() if len(group) > 1]


def joined(parts: Sequence[FrameSummary]) -> FrameSummary:
    """Put the summaries of a dataset's slices together, in order."""
    return FrameSummary(
        columns=_by_name([p.columns for p in parts]),
        scalars=_by_name([p.scalars for p in parts]),
        times=_concatenated([p.times for p in parts if p.times is not None]),
        vectors=_concatenated([p.vectors for p in parts if p.vectors is not None]),
        below=_summed([p.below for p in parts]),
        equal=_summed([p.equal for p in parts]),
        steps=_stacked([p.steps for p in parts]),
        behaviour=_concatenated([p.behaviour for p in parts if p.behaviour is not None]),
        lags=_one_length([lag for p in parts for lag in p.lags]),
        unplaced=[fault for p in parts for fault in p.unplaced],
        unreadable=[fault for p in parts for fault in p.unreadable],
    )


def _by_name(parts: Sequence[Mapping[str, R]]) -> dict[str, R]:
    names = dict.fromkeys(name for part in parts for name in part)
    merged = {}
    for name in names:
        found = _concatenated(_same_width([part[name] for part in parts if name in part]))
        if found is not None:
            merged[name] = found
    return merged


def _same_width(parts: list[R]) -> list[R]:
    """Leave out slices whose width is not the first one's: another rule tells them."""
    widths = [getattr(part, "max_step", np.zeros((0, 0))).shape[1] for part in parts]
    return [part for part, width in zip(parts, widths, strict=True) if width == widths[0]]


def _concatenated(parts: Sequence[R]) -> R | None:
    if not parts:
        return None
    values: list[Any] = []
    for each in fields(parts[0]):  # type: ignore[arg-type]
        found = [getattr(part, each.name) for part in parts]
        values.append(
            _concatenated(found)
            if isinstance(found[0], Moments | VectorBehaviour)
            else np.concatenate(found)
        )
    return type(parts[0])(*values)


def _summed(parts: Sequence[Mapping[str, IntArray]]) -> dict[str, IntArray]:
    total: dict[str, IntArray] = {}
    for part in parts:
        for name, counts in part.items():
            if name not in total:
                total[name] = counts
            elif total[name].shape == counts.shape:
                total[name] = total[name] + counts
    return total


def _stacked(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    names = dict.fromkeys(name for part in parts for name in part)
    found: dict[str, Floats] = {}
    for name in names:
        blocks = [part[name] for part in parts if name in part]
        found[name] = np.concatenate([b for b in blocks if b.shape[1] == blocks[0].shape[1]])
    return found


def _one_length(lags: list[Floats]) -> list[Floats]:
    shapes = [lag.shape for lag in lags]
    return [lag for lag in lags if lag.shape == max(shapes, key=shapes.count)]
