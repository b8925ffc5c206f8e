"""The frame reader: columns of chosen episodes, each file opened once, memory bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import DataError
from opentau_prep.frames.columns import check_columns, to_matrix
from opentau_prep.frames.rows import DataPart, data_parts, episode_rows

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from opentau_prep.metadata import DatasetMetadata
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.storage import Storage

__all__ = ["FrameBlock", "iter_frames", "read_frames", "read_part"]

DEFAULT_MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class FrameBlock:
    """Frames of some episodes; N rows, E episodes.

    Attributes:
        columns: name -> (N, D) array in the file's own dtype; read-only.
        episode_index: (E,) int64, in increasing order.
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
    if len(blocks) == 1:
        return blocks[0]
    if not blocks:
        raise DataError("no episode is selected", where=meta.root)
    return _joined(blocks, columns, meta.root)


def iter_frames(
    meta: DatasetMetadata,
    columns: Sequence[str],
    episodes: Sequence[int] | None = None,
    *,
    max_rows: int = DEFAULT_MAX_ROWS,
) -> Iterator[FrameBlock]:
    """Read the same as `read_frames`, one block after the other.

    Every file is opened once. A block holds episodes of one file and at most `max_rows` rows, or
    one episode where that is longer: this bounds the memory.

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
    where = f"{storage.url}/{part.rel}"
    file = storage.open_parquet(part.rel)
    check_columns(columns, file.schema_arrow.names, where)
    rows = episode_rows(storage, part, file)
    order = np.argsort(rows[:, 0], kind="stable")
    for group in _groups(rows[order], max_rows):
        yield _read_group(storage, part, file, columns, order[group], rows)


def _groups(rows: IntArray, max_rows: int) -> Iterator[slice]:
    """Cut episodes in row order into runs of at most `max_rows` rows."""
    start, count = 0, 0
    for i, n in enumerate(rows[:, 1] - rows[:, 0]):
        if i > start and count + n > max_rows:
            yield slice(start, i)
            start, count = i, 0
        count += int(n)
    if start < len(rows):
        yield slice(start, len(rows))


def _read_group(
    storage: Storage,
    part: DataPart,
    file: pq.ParquetFile,
    columns: Sequence[str],
    chosen: IntArray,
    all_rows: IntArray,
) -> FrameBlock:
    rows = all_rows[chosen]
    lo, hi = int(rows[:, 0].min()), int(rows[:, 1].max())
    groups, base = _row_groups(file, lo, hi)
    whole = base == 0 and len(groups) == file.metadata.num_row_groups
    table = storage.read_table(
        part.rel, columns, row_groups=None if whole else groups, file=file
    ).slice(lo - base, hi - lo)
    lengths = rows[:, 1] - rows[:, 0]
    ends = np.cumsum(lengths)
    where = f"{storage.url}/{part.rel}"
    matrices = {name: to_matrix(table.column(name), f"{where}, column {name}") for name in columns}
    if int(ends[-1]) != hi - lo:
        keep = np.concatenate([np.arange(a - lo, b - lo) for a, b in rows])
        matrices = {name: matrix[keep] for name, matrix in matrices.items()}
    for matrix in matrices.values():
        matrix.setflags(write=False)
    return FrameBlock(
        matrices,
        part.episodes[chosen],
        np.stack([ends - lengths, ends], axis=1),
        part.lengths[chosen],
        (part.rel,),
    )


def _row_groups(file: pq.ParquetFile, lo: int, hi: int) -> tuple[list[int], int]:
    """Return the row groups that hold rows lo..hi, and the first row of the first of them."""
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    ends = np.cumsum(sizes)
    first = int(np.searchsorted(ends, lo, side="right"))
    last = int(np.searchsorted(ends, hi, side="left"))
    groups = list(range(first, min(last, len(sizes) - 1) + 1))
    return groups, int(ends[first] - sizes[first]) if first < len(sizes) else 0


def _joined(blocks: Sequence[FrameBlock], columns: Sequence[str], root: str) -> FrameBlock:
    offsets = np.cumsum([0, *(block.n_frames for block in blocks)])
    order = np.argsort(np.concatenate([b.episode_index for b in blocks]), kind="stable")
    spans = np.concatenate([b.spans + o for b, o in zip(blocks, offsets, strict=False)])
    matrices: dict[str, npt.NDArray[Any]] = {}
    for name in columns:
        widths = {b.columns[name].shape[1] for b in blocks}
        if len(widths) > 1:
            raise DataError(f"column {name!r} has different widths {sorted(widths)}", where=root)
        matrices[name] = np.concatenate([b.columns[name] for b in blocks])
    if (np.diff(spans[order, 0]) < 0).any():
        keep = np.concatenate([np.arange(a, b) for a, b in spans[order]])
        matrices = {name: matrix[keep] for name, matrix in matrices.items()}
        lengths = np.diff(spans[order], axis=1)[:, 0]
        ends = np.cumsum(lengths)
        spans = np.stack([ends - lengths, ends], axis=1)
    else:
        spans = spans[order]
    for matrix in matrices.values():
        matrix.setflags(write=False)
    return FrameBlock(
        matrices,
        np.concatenate([b.episode_index for b in blocks])[order],
        spans,
        np.concatenate([b.lengths for b in blocks])[order],
        tuple(dict.fromkeys(f for b in blocks for f in b.files)),
    )
