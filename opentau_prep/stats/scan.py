"""One pass over a dataset's frames: moments and quantiles an episode, and the whole's quantiles.

Files are taken in order and cut into batches whose bounds depend on the dataset alone. Batches may
be read side by side; what they give is merged in their order, so that the number of workers never
changes a bit.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from opentau_prep.engine import Failure
from opentau_prep.errors import DataError, PrepError
from opentau_prep.frames.columns import ColumnError
from opentau_prep.frames.read import FrameBlock, merge_blocks, read_part
from opentau_prep.frames.rows import DataPart
from opentau_prep.stats.columns import Layout
from opentau_prep.stats.lanes import Lanes, join_lanes, lanes_of
from opentau_prep.stats.moments import Moments, merge_moments
from opentau_prep.stats.sketch import QuantileSketch, SketchTree

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.storage import Storage

__all__ = ["BLOCK_BYTES", "EpisodeStats", "PartFault", "Scan", "join_episodes", "scan_parts"]

# What is read, reduced and sketched at a time.
BLOCK_BYTES = 1 << 24
# 48 bits: two of a million episodes have the same with a chance of 1 in 560.
_DIGEST_BYTES = 6
# So many jobs a dataset is divided into on a cluster: enough for its workers to end together.
_JOBS = 64
# Small files are reduced together: a call a file would cost more than the arithmetic.
_REDUCED_ROWS = 8192

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PartFault:
    """A data file that gave nothing, and why.

    Attributes:
        rel: The file.
        episodes: Its episodes.
        error: What is wrong with it.
    """

    rel: str
    episodes: tuple[int, ...]
    error: PrepError


@dataclass(frozen=True, eq=False)
class EpisodeStats:
    """Stats of E episodes over D dims, side by side as a `Layout` says.

    Attributes:
        episode_index: (E,) int64.
        frames: (E,) int64.
        values: min, max, mean, std -> (E, D) float64, over finite values; NaN where there is none.
        quantiles: (E, Q, D) float64.
        digests: A few hex digits an episode that change with its values.
    """

    episode_index: NDArray[np.int64]
    frames: NDArray[np.int64]
    values: dict[str, Floats]
    quantiles: Floats
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.episode_index)


@dataclass(frozen=True, eq=False)
class Scan:
    """What a pass over some files has found.

    Attributes:
        episodes: The episodes' stats, in order of reading.
        moments: (D,) of all of them together; None when nothing was read.
        quantiles: (Q, D) exact quantiles of all frames; None when they were sketched only.
        sketch: All frames' sketch.
        empty: Episodes without a frame.
        faults: The files that gave nothing.
    """

    episodes: EpisodeStats
    moments: Moments | None
    quantiles: Floats | None
    sketch: QuantileSketch | None
    empty: tuple[int, ...]
    faults: tuple[PartFault, ...]


@dataclass(frozen=True, eq=False)
class _Piece:
    """A block's share: its frames, or the sketch of them once they are no longer needed."""

    episodes: EpisodeStats
    moments: Moments
    lanes: Lanes | None
    sketch: QuantileSketch | None


@dataclass(frozen=True, eq=False)
class _Batch:
    pieces: list[_Piece]
    empty: list[int]
    faults: list[PartFault]


@dataclass(frozen=True)
class _Task:
    storage: Storage
    layout: Layout
    q: tuple[float, ...]
    exact: bool
    keep_going: bool
    on_part: Callable[[], None]

    @property
    def block_rows(self) -> int:
        return max(1, BLOCK_BYTES // max(1, self.layout.row_bytes))


def scan_parts(
    storage: Storage,
    parts: Sequence[DataPart],
    layout: Layout,
    q: Sequence[float],
    *,
    exact: bool,
    keep_going: bool = False,
    workers: int | RunContext = 1,
    on_part: Callable[[], None] = lambda: None,
) -> Scan:
    """Read files once and reduce them.

    Memory: a few blocks of `BLOCK_BYTES` a thread and the episodes' stats; with `exact`, three
    times the columns too.

    Args:
        storage: The dataset.
        parts: Files and their episodes, in order.
        layout: The columns.
        q: Fractions of the quantiles.
        exact: Whether all frames are kept for exact quantiles; else they are sketched by block.
        keep_going: Whether a file that cannot be used becomes a `PartFault` rather than an error.
        workers: How many batches are worked on side by side in threads; or the context whose
            cluster engine works on them: frames come back from it only when they are kept.
        on_part: Called after each file.

    Raises:
        DataError: A file cannot be read, or lacks a column.
        ColumnError: A column is ragged, or of another width than in the files before.
    """
    task = _Task(storage, layout, tuple(q), exact, keep_going, on_part)
    batches: list[_Batch] = []
    tree = SketchTree()
    cut = _cut(parts, task.block_rows)
    done = _ordered(task, cut, workers) if isinstance(workers, int) else _spread(task, cut, workers)
    for batch in done:
        # Merged as they come: kept side by side, sketches would grow with the dataset.
        for piece in batch.pieces:
            if piece.sketch is not None:
                tree.add(piece.sketch)
        batches.append(replace(batch, pieces=[replace(p, sketch=None) for p in batch.pieces]))
    pieces = [piece for batch in batches for piece in batch.pieces]
    quantiles, sketch = None, tree.finish()
    if task.exact and pieces:
        lanes = join_lanes([piece.lanes for piece in pieces if piece.lanes])
        threads = workers if isinstance(workers, int) else 1
        quantiles, sketch = lanes.summarize(task.q, threads)
    return Scan(
        join_episodes([piece.episodes for piece in pieces], layout.dims, len(task.q)),
        merge_moments([piece.moments for piece in pieces]) if pieces else None,
        quantiles,
        sketch,
        tuple(e for batch in batches for e in batch.empty),
        tuple(f for batch in batches for f in batch.faults),
    )


def join_episodes(parts: Sequence[EpisodeStats], dims: int, n_quantiles: int) -> EpisodeStats:
    """Put the episodes of several records into one, in order."""
    none = np.zeros(0, dtype=np.int64)
    return EpisodeStats(
        np.concatenate([none, *(part.episode_index for part in parts)]),
        np.concatenate([none, *(part.frames for part in parts)]),
        {
            name: np.concatenate([np.zeros((0, dims)), *(part.values[name] for part in parts)])
            for name in ("min", "max", "mean", "std")
        },
        np.concatenate([np.zeros((0, n_quantiles, dims)), *(part.quantiles for part in parts)]),
        tuple(digest for part in parts for digest in part.digests),
    )


def _cut(parts: Sequence[DataPart], limit: int) -> list[list[DataPart]]:
    """Group consecutive files into batches of about a block."""
    batches: list[list[DataPart]] = []
    rows = limit
    for part in parts:
        if rows >= limit:
            batches.append([])
            rows = 0
        batches[-1].append(part)
        rows += int(part.lengths.sum())
    return batches


def _ordered(task: _Task, batches: list[list[DataPart]], threads: int) -> Iterator[_Batch]:
    """Work on batches, at most one a thread ahead; yield them in order."""
    if threads <= 1 or len(batches) <= 1:
        for parts in batches:
            yield _scan_batch(task, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[_Batch]] = deque()
        try:
            for parts in batches:
                running.append(pool.submit(_scan_batch, task, parts))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _spread(task: _Task, batches: list[list[DataPart]], cluster: RunContext) -> Iterator[_Batch]:
    """Work on batches on a cluster, a few per job; yield them in order."""
    size = -(-len(batches) // _JOBS)
    jobs = [batches[at : at + size] for at in range(0, len(batches), size)]
    work = partial(_scan_batches, replace(task, on_part=_no_word))
    # A file that cannot be used is a fault in its batch, as it is without a cluster.
    found = replace(cluster, keep_going=False).map(
        "frames", work, jobs, [job[0][0].rel for job in jobs]
    )
    for done in found:
        if not isinstance(done, Failure):
            yield from done


def _no_word() -> None:
    """Take the place of a callback that does not travel."""


def _scan_batches(task: _Task, batches: Sequence[Sequence[DataPart]]) -> list[_Batch]:
    return [_scan_batch(task, parts) for parts in batches]


def _scan_batch(task: _Task, parts: Sequence[DataPart]) -> _Batch:
    batch = _Batch([], [], [])
    for block in merge_blocks(_blocks(task, parts, batch), _REDUCED_ROWS):
        batch.pieces.append(_reduce(task, block))
    return batch if task.exact else _Batch(_sketched(batch.pieces), batch.empty, batch.faults)


def _blocks(task: _Task, parts: Sequence[DataPart], batch: _Batch) -> Iterator[FrameBlock]:
    """Read files; with `keep_going`, all of each or nothing."""
    names, max_rows = task.layout.names, task.block_rows
    for part in parts:
        try:
            if task.keep_going and int(part.lengths.sum()) > max_rows:
                # A fault further down must not leave the blocks before it in the result.
                for _ in read_part(task.storage, part, names, max_rows=max_rows):
                    pass
            for block in read_part(task.storage, part, names, max_rows=max_rows):
                full = block.spans[:, 1] > block.spans[:, 0]
                batch.empty.extend(block.episode_index[~full].tolist())
                if full.any():
                    yield block
        except ColumnError:
            raise  # it costs that column only, of all files
        except DataError as error:
            if not task.keep_going:
                raise
            batch.faults.append(PartFault(part.rel, tuple(part.episodes.tolist()), error))
        task.on_part()


def _reduce(task: _Task, block: FrameBlock) -> _Piece:
    """Reduce a block; it is sketched at once if it is large, unless all frames are to be kept."""
    full = np.flatnonzero(block.spans[:, 1] > block.spans[:, 0])
    spans = block.spans[full]
    lanes = lanes_of(block.columns, task.layout, f"{task.storage.url}/{block.files[0]}")
    moments = lanes.moments(spans)
    episodes = EpisodeStats(
        block.episode_index[full],
        spans[:, 1] - spans[:, 0],
        {name: getattr(moments, name) for name in ("min", "max", "mean", "std")},
        lanes.span_quantiles(spans, task.q),
        _digests(moments),
    )
    if task.exact or lanes.rows < task.block_rows // 2:
        return _Piece(episodes, moments.total(), lanes, None)
    return _Piece(episodes, moments.total(), None, lanes.summarize(())[1])


def _sketched(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Replace the frames of a batch's small blocks by one sketch, which the first of them keeps."""
    small = [piece for piece in pieces if piece.lanes is not None]
    if not small:
        return list(pieces)
    sketch = join_lanes([piece.lanes for piece in small if piece.lanes]).summarize(())[1]
    return [
        piece
        if piece.lanes is None
        else replace(piece, lanes=None, sketch=sketch if piece is small[0] else None)
        for piece in pieces
    ]


def _digests(moments: Moments) -> tuple[str, ...]:
    """Return a fingerprint of each span's values, taken from their moments to the last bit."""
    state = (moments.count, moments.mean, moments.mean_rest, moments.m2, moments.min, moments.max)
    rows = np.concatenate([np.asarray(each, dtype="<f8") for each in state], axis=1)
    return tuple(
        hashlib.blake2b(row.tobytes(), digest_size=_DIGEST_BYTES).hexdigest() for row in rows
    )
