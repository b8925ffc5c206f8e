"""Which task each episode belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.errors import DataError
from opentau_prep.frames.rows import DataPart, data_parts, episode_rows
from opentau_prep.notices import warn
from opentau_prep.text import several

if TYPE_CHECKING:
    from opentau_prep.metadata import DatasetMetadata
    from opentau_prep.metadata.records import IntArray

__all__ = ["EpisodeTasks", "resolve_episode_tasks", "tasks_of_tables"]

TASK_COLUMN = "task_index"


@dataclass(frozen=True)
class EpisodeTasks:
    """The tasks of some episodes.

    Attributes:
        task_index: episode_index -> task_index; episodes without a resolvable task are left out.
        unresolved: The episodes that were left out.
    """

    task_index: Mapping[int, int]
    unresolved: tuple[int, ...]


def resolve_episode_tasks(meta: DatasetMetadata, episodes: IntArray) -> EpisodeTasks:
    """Return the task of each episode.

    It is the `task_index` of the episode's first frame where the data has that column, which is
    authoritative; else the index, in the tasks table, of the first string in the episodes table.
    Data files that cannot be read give way to the tables, with one notice that names them.

    Args:
        meta: The dataset.
        episodes: (E,) int64, `episode_index` values.

    Raises:
        MetadataError: A table is missing or malformed.
    """
    from_data: dict[int, int] = {}
    faults: list[DataError] = []
    for part in data_parts(meta, episodes.tolist()):
        try:
            from_data.update(_first_tasks(meta, part))
        except DataError as fault:
            faults.append(fault)
    if faults:
        warn(
            "tasks_from_tables",
            f"{meta.repo_id}: {several(len(faults), 'data file')} cannot be read, so the tasks of"
            f" their episodes come from the episodes table; the first: {faults[0]}",
            dataset=meta.repo_id,
            files=len(faults),
        )
    found = {**tasks_of_tables(meta, episodes).task_index, **from_data}
    ordered = {e: found[e] for e in episodes.tolist() if e in found}
    return EpisodeTasks(ordered, tuple(e for e in episodes.tolist() if e not in found))


def tasks_of_tables(meta: DatasetMetadata, episodes: IntArray) -> EpisodeTasks:
    """Return the task of each episode as the tables alone tell it, without opening data.

    Args:
        meta: The dataset.
        episodes: (E,) int64, `episode_index` values.

    Raises:
        MetadataError: A table is missing or malformed.
    """
    index_of = {task: index for index, task in reversed(list(meta.tasks.items()))}
    found: dict[int, int] = {}
    for episode in episodes.tolist():
        strings = meta.episodes.tasks[meta.episodes.position(episode)]
        task = index_of.get(strings[0]) if strings else None
        if task is not None:
            found[episode] = task
    return EpisodeTasks(found, tuple(e for e in episodes.tolist() if e not in found))


def _first_tasks(meta: DatasetMetadata, part: DataPart) -> dict[int, int]:
    """Read the first frame's task_index of a file's episodes; empty when it has no such column."""
    file = meta.storage.open_parquet(part.rel)
    if TASK_COLUMN not in file.schema_arrow.names:
        return {}
    rows = episode_rows(meta.storage, part, file)
    column = meta.storage.read_table(part.rel, [TASK_COLUMN], file=file).column(0)
    values = column.to_numpy()
    if values.dtype.kind not in "iu":
        where = f"{meta.root}/{part.rel}, column {TASK_COLUMN}"
        raise DataError(f"must hold whole numbers, found {column.type}", where=where)
    filled = np.flatnonzero(rows[:, 1] > rows[:, 0])
    return {int(part.episodes[i]): int(values[rows[i, 0]]) for i in filled}
