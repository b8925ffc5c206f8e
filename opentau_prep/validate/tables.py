"""Rows of the metadata tables that the metadata layer passes over or settles silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.metadata import v2
from opentau_prep.metadata.info import as_integer
from opentau_prep.metadata.jsonread import read_json_lines
from opentau_prep.metadata.paths import EPISODES_DIR, V3_TASKS

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from opentau_prep.metadata import DatasetMetadata
    from opentau_prep.metadata.records import IntArray

__all__ = ["TaskRow", "read_row_ranges", "read_task_rows", "tasks_file"]


@dataclass(frozen=True)
class TaskRow:
    """One row of the tasks table."""

    index: int
    text: str


def tasks_file(meta: DatasetMetadata) -> str:
    """Return the tasks table's file, relative to the root."""
    return V3_TASKS if meta.is_v3 else v2.TASKS


def read_task_rows(meta: DatasetMetadata) -> Sequence[TaskRow]:
    """Return the rows as they are; call it only once `meta.tasks` could be read."""
    if not meta.is_v3:
        rows = read_json_lines(meta.storage, v2.TASKS).rows
        return [TaskRow(as_integer(r["task_index"]) or 0, str(r["task"])) for r in rows]
    table = meta.storage.read_table(V3_TASKS, ["task_index"])
    # The metadata layer keeps the last row of an index: repeated ones show the same text here.
    return [TaskRow(int(i), meta.tasks[int(i)]) for i in table.column(0).to_pylist()]


def _whole(column: pa.ChunkedArray) -> NDArray[Any]:
    from opentau_prep.metadata.arrow import plain_numpy

    return np.concatenate([plain_numpy(chunk) for chunk in column.chunks])


def read_row_ranges(meta: DatasetMetadata) -> IntArray | None:
    """Return (E, 2) first row and row after the last in the whole dataset, in table order.

    None where the table lacks one of the columns, or they are not whole numbers.
    """
    names = ["episode_index", "dataset_from_index", "dataset_to_index"]
    parts = []
    for rel in meta.storage.list_files(EPISODES_DIR, ".parquet"):
        file = meta.storage.open_parquet(rel)
        if not set(names) <= set(file.schema_arrow.names):
            return None
        table = meta.storage.read_table(rel, names, file=file)
        parts.append(np.stack([_whole(table.column(n)) for n in names], axis=1))
    block = np.concatenate(parts)
    if block.dtype.kind != "i":
        return None
    return np.asarray(block[np.argsort(block[:, 0], kind="stable"), 1:])
