"""Which file, and which of its rows, an episode's frames are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.errors import DataError

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
        episodes: `episode_index` values; all by default.

    Raises:
        DataError: An episode is not in the episodes table.
    """
    table = meta.episodes
    paths = meta.data_paths
    by_file: dict[str, list[int]] = {}
    for position, rel in enumerate(paths):
        by_file.setdefault(rel, []).append(position)
    chosen = _positions(meta, episodes)
    parts: list[DataPart] = []
    for rel in dict.fromkeys(paths[p] for p in chosen):
        everyone = np.array(by_file[rel], dtype=np.int64)
        kept = np.array([p in chosen for p in by_file[rel]])
        mine = everyone[kept]
        shared = meta.is_v3 or len(everyone) > 1
        first_rows = _first_rows(meta, everyone)[kept] if shared else None
        parts.append(DataPart(rel, table.episode_index[mine], table.length[mine], first_rows))
    return parts


def _positions(meta: DatasetMetadata, episodes: Sequence[int] | None) -> dict[int, None]:
    table = meta.episodes
    if episodes is None:
        return dict.fromkeys(range(len(table)))
    unknown = [int(e) for e in episodes if int(e) not in table]
    if unknown:
        raise DataError(
            f"has no episode {', '.join(map(str, unknown[:10]))} (it has {len(table):,} episodes)",
            where=meta.root,
            hint="Correct `episodes` in the mixture.",
        )
    return dict.fromkeys(sorted(table.position(int(e)) for e in episodes))


def _first_rows(meta: DatasetMetadata, positions: IntArray) -> IntArray:
    """Rows within the file, from dataset-wide `dataset_from_index` or else from the lengths."""
    table = meta.episodes
    if table.from_index is not None:
        starts = table.from_index[positions]
        return np.asarray(starts - starts.min())
    lengths = table.length[positions]
    return np.asarray(np.cumsum(lengths) - lengths)


def episode_rows(storage: Storage, part: DataPart, file: pq.ParquetFile) -> IntArray:
    """Return (E, 2) int64: first row and row after the last of each of a part's episodes.

    The file's own `episode_index` column decides where it has one, since published episode tables
    are sometimes wrong; otherwise the episodes table does. A file of one episode is that episode,
    whole.

    Raises:
        DataError: An episode is not in the file, or its rows do not lie together.
    """
    rows = file.metadata.num_rows
    if part.first_rows is None:
        return np.array([[0, rows]], dtype=np.int64)
    where = f"{storage.url}/{part.rel}"
    if EPISODE_COLUMN in file.schema_arrow.names:
        table = storage.read_table(part.rel, [EPISODE_COLUMN], file=file)
        return _spans_from_column(table.column(0).to_numpy(), part, where)
    spans = np.stack([part.first_rows, part.first_rows + part.lengths], axis=1)
    if len(spans) and int(spans.max()) > rows:
        raise DataError(
            f"has {rows:,} rows, but its episodes should end at row {int(spans.max()):,}",
            where=where,
            hint="The file is cut short or the episodes table is wrong: download it again.",
        )
    return spans


def _spans_from_column(column: IntArray, part: DataPart, where: str) -> IntArray:
    change = np.flatnonzero(np.diff(column)) + 1
    starts = np.concatenate([[0], change]) if len(column) else np.zeros(0, dtype=np.int64)
    ends = np.concatenate([change, [len(column)]]) if len(column) else starts
    values = column[starts]
    spans = np.empty((len(part.episodes), 2), dtype=np.int64)
    for i, episode in enumerate(part.episodes):
        hits = np.flatnonzero(values == episode)
        if len(hits) != 1:
            found = "no rows" if not len(hits) else f"rows in {len(hits)} separate places"
            raise DataError(
                f"episode {episode} has {found}",
                where=where,
                hint="The episodes table and the data do not belong together.",
            )
        spans[i] = starts[hits[0]], ends[hits[0]]
    return spans
