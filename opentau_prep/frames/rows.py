"""Which file, and which of its rows, an episode's frames are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import DataError
from opentau_prep.frames.columns import check_columns, to_matrix
from opentau_prep.notices import some_names

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from opentau_prep.metadata import DatasetMetadata
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.storage import Storage

__all__ = ["DataPart", "data_parts", "episode_rows"]

EPISODE_COLUMN = "episode_index"


@dataclass(frozen=True)
class DataPart:
    """Chosen episodes that lie in one data file.

    Attributes:
        rel: The file, relative to the dataset root.
        episodes: (E,) int64, their `episode_index`, increasing.
        lengths: (E,) int64, their lengths by the episodes table.
        first_rows: (E,) int64, their first row in the file by the episodes table; None when the
            file holds one episode.
    """

    rel: str
    episodes: IntArray
    lengths: IntArray
    first_rows: IntArray | None


def data_parts(meta: DatasetMetadata, episodes: Sequence[int] | None = None) -> list[DataPart]:
    """Return the files that hold the chosen episodes, in order of their first episode.

    Args:
        meta: The dataset.
        episodes: `episode_index` values in any order; all by default.

    Raises:
        DataError: An episode is not in the episodes table.
        MetadataError: The table or the path template is missing or malformed.
    """
    table = meta.episodes
    by_file: dict[str, list[int]] = {}
    for position, rel in enumerate(meta.data_paths):
        by_file.setdefault(rel, []).append(position)
    chosen = _chosen(meta, episodes)
    parts: list[tuple[int, DataPart]] = []
    for rel, positions in by_file.items():
        if len(positions) == 1 and not meta.is_v3:
            row = positions[0]
            if chosen[row]:
                one = slice(row, row + 1)
                parts.append(
                    (row, DataPart(rel, table.episode_index[one], table.length[one], None))
                )
            continue
        everyone = np.array(positions, dtype=np.int64)
        kept = chosen[everyone]
        if not kept.any():
            continue
        mine = everyone[kept]
        first_rows = _first_rows(meta, everyone)[kept]
        part = DataPart(rel, table.episode_index[mine], table.length[mine], first_rows)
        parts.append((int(mine[0]), part))
    return [part for _, part in sorted(parts, key=lambda pair: pair[0])]


def _chosen(meta: DatasetMetadata, episodes: Sequence[int] | None) -> npt.NDArray[np.bool_]:
    """Return (E,) bool: which rows of the episodes table are chosen."""
    table = meta.episodes
    if episodes is None:
        return np.ones(len(table), dtype=np.bool_)
    chosen = np.zeros(len(table), dtype=np.bool_)
    unknown = [int(e) for e in episodes if int(e) not in table]
    if unknown:
        raise DataError(
            f"has no episode {some_names(unknown)} (it has {len(table):,} episodes)",
            where=meta.root,
            hint="Correct `episodes` in the mixture.",
        )
    chosen[table.positions(np.asarray(episodes, dtype=np.int64))] = True
    return chosen


def _first_rows(meta: DatasetMetadata, positions: IntArray) -> IntArray:
    """Rows within the file, from dataset-wide `dataset_from_index` or else from the lengths."""
    table = meta.episodes
    lengths = table.length[positions]
    by_length = np.cumsum(lengths) - lengths
    if table.from_index is None or not len(positions):
        return by_length
    starts = table.from_index[positions] - table.from_index[positions].min()
    order = np.argsort(starts, kind="stable")
    gaps = starts[order][1:] - (starts + lengths)[order][:-1]
    return starts if (gaps >= 0).all() else by_length  # episodes cannot overlap


def episode_rows(storage: Storage, part: DataPart, file: pq.ParquetFile) -> IntArray:
    """Return (E, 2) int64: first row and row after the last of each of a part's episodes.

    The file's own `episode_index` column decides where it has one, since published episode tables
    are sometimes wrong; otherwise the episodes table does. A file of one episode is that episode,
    whole. An episode without frames that the table gives no length either has an empty span.

    Raises:
        DataError: An episode is not in the file, or its rows do not lie together.
    """
    rows = int(file.metadata.num_rows)
    if part.first_rows is None:
        return np.array([[0, rows]], dtype=np.int64)
    where = f"{storage.url}/{part.rel}"
    if EPISODE_COLUMN in storage.column_names(part.rel, file):
        return _spans_from_column(_episode_column(storage, part, file, where), part, where)
    spans = np.stack([part.first_rows, part.first_rows + part.lengths], axis=1)
    if len(spans) and int(spans.max()) > rows:
        raise DataError(
            f"has {rows:,} rows, but its episodes should end at row {int(spans.max()):,}",
            where=where,
            hint="The file is cut short or the episodes table is wrong: download it again.",
        )
    return spans


def _episode_column(storage: Storage, part: DataPart, file: pq.ParquetFile, where: str) -> IntArray:
    check_columns([EPISODE_COLUMN], storage.column_names(part.rel, file), where)
    column = storage.read_table(part.rel, [EPISODE_COLUMN], file=file).column(EPISODE_COLUMN)
    place = f"{where}, column {EPISODE_COLUMN}"
    matrix = to_matrix(column, place)
    if len(matrix) and matrix.shape[1] != 1:
        raise DataError(f"has {matrix.shape[1]} values per row, expected one number", where=place)
    return matrix.reshape(-1)


def _spans_from_column(column: IntArray, part: DataPart, where: str) -> IntArray:
    starts = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]])[: len(column)])
    ends = np.append(starts[1:], len(column))
    order = np.argsort(column[starts], kind="stable")
    values = column[starts][order]
    low = np.searchsorted(values, part.episodes, side="left")
    runs = np.searchsorted(values, part.episodes, side="right") - low
    wrong = (runs > 1) | ((runs == 0) & (part.lengths > 0))
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        found = "no rows" if not runs[i] else f"rows in {runs[i]} separate places"
        raise DataError(
            f"episode {part.episodes[i]} has {found}",
            where=where,
            hint="Download both again: the episodes table and the data do not belong together.",
        )
    spans = np.zeros((len(part.episodes), 2), dtype=np.int64)
    there = runs == 1
    spans[there, 0] = starts[order[low[there]]]
    spans[there, 1] = ends[order[low[there]]]
    spans[~there] = spans[there].min(initial=len(column))  # empty, where it widens no block
    return spans
