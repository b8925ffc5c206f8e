"""The one pass over frames that `--deep` makes: every file read once, all rules fed from it.

Memory: one batch of files (about `_BATCH_ROWS` rows, or one file's block where that is longer), and
per episode a few numbers per dim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import PrepError
from opentau_prep.frames.read import FrameBlock, merge_blocks, read_part
from opentau_prep.stats.moments import span_moments
from opentau_prep.validate.behaviour import BehaviourScan, measure_behaviour
from opentau_prep.validate.frames import (
    ColumnScan,
    FrameSummary,
    ScalarScan,
    TimeScan,
    VectorScan,
    joined,
)
from opentau_prep.validate.lag import lag_curve

if TYPE_CHECKING:
    from opentau_prep.frames import DataPart
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.storage import Storage

__all__ = ["COUNTERS", "ScanPlan", "scan_parts"]

COUNTERS = ("frame_index", "index", "task_index")
_BATCH_ROWS = 1 << 16
_SAMPLE_ROWS = 2_000
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ScanPlan:
    """What to look at in a dataset's frames.

    Attributes:
        vectors: `state` and `actions` -> column.
        others: Further columns of floats.
        fps: Frames a second; None leaves the timestamps out.
        quantiles: Column -> (Q, D) quantiles of the stats whose rank is wanted.
        sample: Episodes whose steps are kept and whose lag is looked for.
        limits: `state` and `actions` -> (2, D) smallest and largest value by the stats.
    """

    vectors: Mapping[str, str]
    others: Sequence[str] = ()
    fps: float | None = None
    quantiles: Mapping[str, Array] = field(default_factory=dict)
    sample: frozenset[int] = frozenset()
    limits: Mapping[str, Array] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Every column that is wanted, as far as a file has it."""
        names = [*self.vectors.values(), *self.others, *COUNTERS, "timestamp"]
        return list(dict.fromkeys(names))


def scan_parts(storage: Storage, parts: Sequence[DataPart], plan: ScanPlan) -> FrameSummary:
    """Read files once and return what they hold; a file that cannot be read becomes a fault."""
    faults = _Faults([], [])
    blocks = merge_blocks(_blocks(storage, parts, plan, faults), _BATCH_ROWS)
    found = [_scan(block, plan) for block in blocks]
    return joined([*found, FrameSummary(unplaced=faults.unplaced, unreadable=faults.unreadable)])


@dataclass(frozen=True)
class _Faults:
    """What could not be read; filled as the files go by."""

    unplaced: list[tuple[str, PrepError]]
    unreadable: list[tuple[str, str, PrepError]]


def _present(storage: Storage, rel: str, plan: ScanPlan) -> list[str] | None:
    """Return the wanted columns that a file has; None when it cannot be opened."""
    try:
        names = storage.open_parquet(rel).schema_arrow.names
    except PrepError:
        return None  # known from the footers
    return [name for name in plan.columns if name in names]


def _blocks(
    storage: Storage, parts: Sequence[DataPart], plan: ScanPlan, faults: _Faults
) -> Iterator[FrameBlock]:
    """Read the columns that the first file has; a file that lacks one is looked at by itself."""
    usual: list[str] | None = None
    for part in parts:
        if usual is None:
            usual = _present(storage, part.rel, plan)
        try:
            yield from read_part(storage, part, usual or [])
        except PrepError:
            yield from _readable(storage, part, plan, faults)


def _readable(
    storage: Storage, part: DataPart, plan: ScanPlan, faults: _Faults
) -> Iterator[FrameBlock]:
    """Read what can be read of a file, and find out which column cannot."""
    columns = _present(storage, part.rel, plan)
    good = []
    for column in columns or ():
        try:
            for _ in read_part(storage, part, [column]):
                pass
            good.append(column)
        except PrepError as fault:
            faults.unreadable.append((part.rel, column, fault))
    if good:
        try:
            yield from read_part(storage, part, good)
        except PrepError as fault:
            faults.unplaced.append((part.rel, fault))
    elif columns:
        # When no column can be read the fault is the file's, and is reported once.
        faults.unplaced.append((part.rel, faults.unreadable[-1][2]))
        del faults.unreadable[-len(columns) :]


def _scan(block: FrameBlock, plan: ScanPlan) -> FrameSummary:
    full = np.flatnonzero(block.spans[:, 1] > block.spans[:, 0])
    episodes, spans = block.episode_index[full], block.spans[full]
    if not len(full):
        return FrameSummary()
    columns = {n: block.columns[n] for n in block.columns if n in _float_columns(plan)}
    columns = {n: m for n, m in columns.items() if m.dtype.kind == "f" and m.shape[1]}
    moving = [c for c in plan.vectors.values() if c in columns]
    steps = {n: _steps(columns[n], spans) for n in moving}
    sampled = [i for i, e in enumerate(episodes) if int(e) in plan.sample]
    ranks = {n: _ranks(columns[n], plan.quantiles[n]) for n in columns if n in plan.quantiles}
    return FrameSummary(
        columns={n: _column(m, episodes, spans, steps.get(n)) for n, m in columns.items()},
        scalars={
            n: _scalar(block.columns[n][:, 0], episodes, spans)
            for n in COUNTERS
            if n in block.columns and block.columns[n].dtype.kind in "iu"
        },
        times=_times(block.columns.get("timestamp"), episodes, spans, plan.fps),
        vectors=_vectors(columns, episodes, spans, plan),
        below={n: pair[0] for n, pair in ranks.items() if pair is not None},
        equal={n: pair[1] for n, pair in ranks.items() if pair is not None},
        steps=_sampled_steps(steps, spans, sampled),
        lags=_lags(columns, spans, sampled, plan),
        behaviour=_behaviour(columns, episodes, spans, plan),
    )


def _float_columns(plan: ScanPlan) -> set[str]:
    return {*plan.vectors.values(), *plan.others}


def _steps(matrix: Array, spans: IntArray) -> Array:
    """Return (N, D) |difference| to the frame before, 0 in each episode's first frame."""
    steps = np.zeros_like(matrix)
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(matrix[1:], matrix[:-1], out=steps[1:])
        np.abs(steps, out=steps)
    steps[spans[:, 0]] = 0
    return steps


def _column(matrix: Array, episodes: IntArray, spans: IntArray, steps: Array | None) -> ColumnScan:
    shape = (len(episodes), matrix.shape[1])
    largest = np.zeros(shape)
    if steps is not None:
        largest = np.maximum.reduceat(steps, spans[:, 0], axis=0).astype(np.float64)
    return ColumnScan(episodes, span_moments(matrix, spans), largest)


def _scalar(values: Array, episodes: IntArray, spans: IntArray) -> ScalarScan:
    steady = np.ones(len(values), dtype=bool)
    steady[1:] = values[1:] == values[:-1] + 1
    steady[spans[:, 0]] = True
    return ScalarScan(
        episodes,
        values[spans[:, 0]].astype(np.int64),
        np.minimum.reduceat(values, spans[:, 0]).astype(np.int64),
        np.maximum.reduceat(values, spans[:, 0]).astype(np.int64),
        np.logical_and.reduceat(steady, spans[:, 0]),
    )


def _times(
    column: Array | None, episodes: IntArray, spans: IntArray, fps: float | None
) -> TimeScan | None:
    if column is None or fps is None or column.dtype.kind != "f":
        return None
    starts, last = spans[:, 0], spans[:, 1] - 1
    values = column[:, 0].astype(np.float64)
    finite = np.isfinite(values)
    clean = np.where(finite, values, 0.0)
    step = np.diff(clean, prepend=clean[:1])
    off = np.abs(step - 1 / fps)
    off[starts] = 0
    step[starts] = 1 / fps
    # Each of two neighbours may be half a spacing of the column's float type off.
    spacing = np.abs(np.spacing(np.abs(column[:, 0]).max(initial=0, where=finite)))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (clean[last] - clean[starts]) / (last - starts)
    return TimeScan(
        episodes,
        values[starts],
        mean,
        np.maximum(np.maximum.reduceat(off, starts) - float(spacing), 0),
        np.add.reduceat((step < 0).astype(np.int64), starts),
        np.add.reduceat((step == 0).astype(np.int64), starts),
        np.add.reduceat((~finite).astype(np.int64), starts),
    )


def _vectors(
    columns: Mapping[str, Array], episodes: IntArray, spans: IntArray, plan: ScanPlan
) -> VectorScan | None:
    names = [plan.vectors.get("state", ""), plan.vectors.get("actions", "")]
    if any(name not in columns for name in names):
        return None
    state, actions = (np.ascontiguousarray(columns[name]) for name in names)
    digests, same = [], []
    for start, stop in spans:
        a, b = state[start:stop], actions[start:stop]
        digest = hashlib.blake2b(a.data, digest_size=16)
        digest.update(b.data)
        digests.append(digest.digest())
        # The first frame settles nearly every case without a look at the others.
        equal = a.shape == b.shape and np.array_equal(a[0], b[0]) and np.array_equal(a, b)
        same.append(bool(equal) and bool((a != a[0]).any()))
    return VectorScan(episodes, np.array(digests, dtype="V16"), np.array(same, dtype=bool))


def _behaviour(
    columns: Mapping[str, Array], episodes: IntArray, spans: IntArray, plan: ScanPlan
) -> BehaviourScan | None:
    vectors = {n: columns[c] for n, c in plan.vectors.items() if c in columns}
    if plan.fps is None:
        return None
    # Rows between episodes belong to none: they are closed up, so that sums by span are whole.
    if (spans[1:, 0] != spans[:-1, 1]).any() or spans[0, 0]:
        rows = np.concatenate([np.arange(a, b) for a, b in spans])
        vectors = {name: matrix[rows] for name, matrix in vectors.items()}
        ends = np.cumsum(spans[:, 1] - spans[:, 0])
        spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    else:
        vectors = {name: matrix[: spans[-1, 1]] for name, matrix in vectors.items()}
    return measure_behaviour(vectors, plan.limits, episodes, spans, plan.fps)


def _ranks(matrix: Array, quantiles: Array) -> tuple[IntArray, IntArray] | None:
    if quantiles.shape[1:] != matrix.shape[1:]:
        return None
    # In the column's own type: a float32 value and the float64 it was written as are equal.
    with np.errstate(over="ignore"):
        asked = quantiles.astype(matrix.dtype)
    below = np.stack([np.count_nonzero(matrix < q, axis=0) for q in asked])
    equal = np.stack([np.count_nonzero(matrix == q, axis=0) for q in asked])
    return below.astype(np.int64), equal.astype(np.int64)


def _sampled_steps(
    steps: Mapping[str, Array], spans: IntArray, sampled: Sequence[int]
) -> dict[str, npt.NDArray[np.float64]]:
    if not sampled:
        return {}
    return {
        name: np.concatenate(
            [matrix[a + 1 : min(b, a + _SAMPLE_ROWS)] for a, b in spans[list(sampled)]]
        ).astype(np.float64)
        for name, matrix in steps.items()
    }


def _lags(
    columns: Mapping[str, Array], spans: IntArray, sampled: Sequence[int], plan: ScanPlan
) -> list[npt.NDArray[np.float64]]:
    state = columns.get(plan.vectors.get("state", ""))
    actions = columns.get(plan.vectors.get("actions", ""))
    if state is None or actions is None or plan.fps is None or state.shape != actions.shape:
        return []
    found = []
    for a, b in spans[list(sampled)]:
        stop = min(b, a + _SAMPLE_ROWS)
        curve = lag_curve(state[a:stop], actions[a:stop], fps=plan.fps)
        if curve is not None:
            found.append(curve)
    return found
