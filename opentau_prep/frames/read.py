"""The frame reader: columns of chosen episodes, each file opened once, memory bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import DataError
from opentau_prep.frames.rows import DataPart, data_parts, episode_rows
from opentau_prep.frames.window import RowWindow, to_matrices

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from opentau_prep.metadata import DatasetMetadata
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.storage import Storage

__all__ = ["FrameBlock", "iter_frames", "merge_blocks", "read_frames", "read_part"]

DEFAULT_MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class FrameBlock:
    """Frames of some episodes; N rows, E episodes.

    Attributes:
        columns: name -> (N, D) array in the file's own dtype; read-only.
        episode_index: (E,) int64, in the order of the rows; increasing in `read_frames`.
        spans: (E, 2) int64, first row and row after the last of each episode in `columns`.
        lengths: (E,) int64, the lengths that the episodes table promised.
        files: The data files the block came from, relative to the root.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    episode_index: IntArray
    spans: IntArray
    lengths: IntArray
    files: tuple[str, ...]

    @property
    def n_frames(self) -> int:
        """N."""
        return int(self.spans[-1, 1]) if len(self.spans) else 0

    def episode(self, name: str, episode: int) -> npt.NDArray[Any]:
        """Return one episode's rows of a column as (T, D); raise `KeyError` when it is not here."""
        hits = np.flatnonzero(self.episode_index == episode)
        if not len(hits):
            raise KeyError(episode)
        start, stop = self.spans[hits[0]]
        return self.columns[name][start:stop]


def read_frames(
    meta: DatasetMetadata, columns: Sequence[str], episodes: Sequence[int] | None = None
) -> FrameBlock:
    """Read columns of the chosen episodes into one block, in order of `episode_index`.

    Args:
        meta: The dataset.
        columns: Column names, vectors or scalars.
        episodes: `episode_index` values; all by default.

    Returns:
        One block; its memory is that of the columns.

    Raises:
        DataError: A file is missing or damaged, lacks a column, or an episode is not in it.
    """
    blocks = list(iter_frames(meta, columns, episodes))
    if not blocks:
        raise DataError("no episode is selected", where=meta.root)
    for name in columns:
        widths = {block.columns[name].shape[1]: block.files[0] for block in _filled(blocks)}
        if len(widths) > 1:
            found = ", ".join(f"{width} in {rel}" for width, rel in sorted(widths.items()))
            raise DataError(
                f"column {name!r} has different widths: {found}",
                where=meta.root,
                hint="Leave those episodes out, or write their files again.",
            )
    return _in_order(_joined(blocks))


def iter_frames(
    meta: DatasetMetadata,
    columns: Sequence[str],
    episodes: Sequence[int] | None = None,
    *,
    max_rows: int = DEFAULT_MAX_ROWS,
) -> Iterator[FrameBlock]:
    """Read the same as `read_frames`, one block after the other.

    Every file is opened once, and each of its row groups decoded once. A block holds episodes of
    one file, and at most `max_rows` rows or one episode where that is longer. Besides the block, at
    most the row groups that these rows lie in are in memory.

    Raises:
        DataError: As `read_frames`.
    """
    for part in data_parts(meta, episodes):
        yield from read_part(meta.storage, part, columns, max_rows=max_rows)


def read_part(
    storage: Storage,
    part: DataPart,
    columns: Sequence[str],
    *,
    max_rows: int = DEFAULT_MAX_ROWS,
) -> Iterator[FrameBlock]:
    """Read the chosen episodes of one file in blocks; see `iter_frames`."""
    file = storage.open_parquet(part.rel)
    if part.first_rows is None:
        yield _whole_file(storage, part, file, columns)
        return
    window = RowWindow(storage, part.rel, file, columns)
    rows = episode_rows(storage, part, file)
    order = np.argsort(rows[:, 0], kind="stable")
    for chosen in _runs(rows, order, window, max_rows):
        yield _block(part, chosen, rows[chosen], window.read(rows[chosen]))


def _whole_file(
    storage: Storage, part: DataPart, file: pq.ParquetFile, columns: Sequence[str]
) -> FrameBlock:
    """Read a file of one episode: there are many, so this way is kept short."""
    names = list(dict.fromkeys(columns))
    table = storage.read_table(part.rel, names, file=file)
    matrices = to_matrices(table, names, file, storage, part.rel)
    return _block(part, slice(None), np.array([[0, len(table)]]), matrices)


def _runs(rows: IntArray, order: IntArray, window: RowWindow, max_rows: int) -> Iterator[IntArray]:
    """Cut episodes in row order into runs of at most `max_rows` rows, decoded ones included."""
    if window.num_rows <= max_rows:
        yield order
        return
    start, taken, decoded, last = 0, 0, 0, -1
    for i, episode in enumerate(order):
        lo, hi = rows[episode]
        fresh = window.rows_in_groups(lo, hi, after=last)
        if i > start and (taken + hi - lo > max_rows or (fresh and decoded + fresh > max_rows)):
            yield order[start:i]
            start, taken, decoded = i, 0, 0
        taken, decoded, last = taken + hi - lo, decoded + fresh, window.last_group(hi, last)
    if start < len(order):
        yield order[start:]


def _block(
    part: DataPart,
    chosen: IntArray | slice,
    rows: IntArray,
    matrices: Mapping[str, npt.NDArray[Any]],
) -> FrameBlock:
    lengths = rows[:, 1] - rows[:, 0]
    ends = lengths.cumsum()
    for matrix in matrices.values():
        matrix.setflags(write=False)
    return FrameBlock(
        matrices,
        part.episodes[chosen],
        np.array([ends - lengths, ends]).T,
        part.lengths[chosen],
        (part.rel,),
    )


def merge_blocks(blocks: Iterable[FrameBlock], rows: int) -> Iterator[FrameBlock]:
    """Put blocks with like columns, one after the other, together until they have `rows` rows.

    Where files are small, a call per file costs more than the arithmetic on its frames.
    """
    waiting: list[FrameBlock] = []
    n_rows = 0
    for block in blocks:
        if n_rows and block.n_frames and not _alike(_filled(waiting)[-1], block):
            yield _joined(waiting)
            waiting, n_rows = [], 0
        waiting.append(block)
        n_rows += block.n_frames
        if n_rows >= rows:
            yield _joined(waiting)
            waiting, n_rows = [], 0
    if waiting:
        yield _joined(waiting)


def _filled(blocks: Sequence[FrameBlock]) -> Sequence[FrameBlock]:
    """Return the blocks with rows: a file without any cannot tell how wide its lists are."""
    return [block for block in blocks if block.n_frames] or blocks[:1]


def _alike(a: FrameBlock, b: FrameBlock) -> bool:
    return a.columns.keys() == b.columns.keys() and all(
        m.dtype == b.columns[name].dtype and m.shape[1] == b.columns[name].shape[1]
        for name, m in a.columns.items()
    )


def _joined(blocks: Sequence[FrameBlock]) -> FrameBlock:
    """Put blocks one after the other; the widths of their columns are the same."""
    if len(blocks) == 1:
        return blocks[0]
    offsets = np.cumsum([0, *(block.n_frames for block in blocks)])
    filled = _filled(blocks)
    matrices = {n: np.concatenate([b.columns[n] for b in filled]) for n in filled[0].columns}
    for matrix in matrices.values():
        matrix.setflags(write=False)
    return FrameBlock(
        matrices,
        np.concatenate([block.episode_index for block in blocks]),
        np.concatenate([b.spans + o for b, o in zip(blocks, offsets, strict=False)]),
        np.concatenate([block.lengths for block in blocks]),
        tuple(dict.fromkeys(file for block in blocks for file in block.files)),
    )


def _in_order(block: FrameBlock) -> FrameBlock:
    """Return a block with its episodes in order of `episode_index`, and no other rows."""
    order = np.argsort(block.episode_index, kind="stable")
    spans = block.spans[order]
    columns = block.columns
    if (np.diff(spans[:, 0]) < 0).any():
        keep = np.concatenate([np.arange(a, b) for a, b in spans])
        columns = {name: matrix[keep] for name, matrix in columns.items()}
        for matrix in columns.values():
            matrix.setflags(write=False)
        lengths = spans[:, 1] - spans[:, 0]
        ends = np.cumsum(lengths)
        spans = np.stack([ends - lengths, ends], axis=1)
    return FrameBlock(columns, block.episode_index[order], spans, block.lengths[order], block.files)
