"""LeRobot v3.0: parquet under `meta/`, several episodes a data file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.info import DEFAULT_DATA_PATH, INFO, fill_template
from opentau_prep.metadata.records import EpisodeTable, IntArray, Stats

if TYPE_CHECKING:
    from opentau_prep.storage import Storage

__all__ = [
    "EPISODES_DIR",
    "TASKS",
    "data_paths",
    "episode_files",
    "read_episodes",
    "read_episodes_stats",
    "read_tasks",
]

EPISODES_DIR = "meta/episodes"
TASKS = "meta/tasks.parquet"
_OPTIONAL = {
    "data_chunk": "data/chunk_index",
    "data_file": "data/file_index",
    "from_index": "dataset_from_index",
}


def episode_files(storage: Storage) -> Sequence[str]:
    """Return the files of the episodes table, in path order."""
    return storage.list_files(EPISODES_DIR, ".parquet")


def read_episodes(storage: Storage) -> EpisodeTable:
    """Read the episodes table without its stats and video columns.

    Raises:
        MetadataError: A file is unreadable, a column is missing or of another type, or an episode
            occurs twice.
    """
    wanted = ["episode_index", "length", "tasks", *_OPTIONAL.values()]
    table, where = _read(storage, lambda name: name in wanted)
    index = _integers(table, "episode_index", where)
    order = np.argsort(index, kind="stable")
    twice = np.flatnonzero(np.diff(index[order]) == 0)
    if len(twice):
        episode = index[order[twice[0]]]
        raise MetadataError(f"episode {episode} stands there twice", where=where)
    optional = {
        field: _integers(table, column, where)[order]
        for field, column in _OPTIONAL.items()
        if column in table.column_names
    }
    tasks = _task_strings(table)
    return EpisodeTable(
        index[order],
        _integers(table, "length", where)[order],
        tuple(tasks[i] for i in order),
        **optional,
    )


def read_tasks(storage: Storage) -> dict[int, str]:
    """Read `meta/tasks.parquet` as task_index -> task.

    The string stands in a column `task` or in whichever column pandas made of its index.
    """
    where = f"{storage.url}/{TASKS}"
    table = storage.read_table(TASKS)
    strings = [f.name for f in table.schema if _is_string(f.type)]
    column = "task" if "task" in strings else (strings[0] if strings else None)
    if column is None:
        raise MetadataError(
            f"has no column of task strings (columns: {', '.join(table.column_names)})", where=where
        )
    index = _integers(table, "task_index", where)
    names = table.column(column).to_pylist()
    return {int(i): names[row] or "" for row, i in sorted(enumerate(index), key=lambda p: p[1])}


def read_episodes_stats(storage: Storage) -> dict[int, Stats]:
    """Read the flattened `stats/<feature>/<stat>` columns as episode_index -> stats.

    Every array has the stat's own shape, (3, 1, 1) for images; rows of a stat share one block.
    """
    table, where = _read(storage, lambda name: name == "episode_index" or name[:6] == "stats/")
    episodes = _integers(table, "episode_index", where)
    found: dict[int, Stats] = {int(e): {} for e in np.sort(episodes)}
    for column in table.column_names:
        prefix, _, rest = column.partition("/")
        feature, _, stat = rest.rpartition("/")
        if prefix != "stats" or not feature:
            continue
        block = _stacked(table.column(column), f"{where}, column {column}")
        for row, episode in enumerate(episodes):
            found[int(episode)].setdefault(feature, {})[stat] = block[row]
    return found


def data_paths(storage: Storage, info: Mapping[str, Any], table: EpisodeTable) -> list[str]:
    """Return the data file of each episode, in table order; files need not exist."""
    where = f"{storage.url}/{INFO}"
    template = info.get("data_path", DEFAULT_DATA_PATH["v3"])
    if not isinstance(template, str):
        raise MetadataError("field `data_path` must be a string", where=where)
    if table.data_chunk is None or table.data_file is None:
        raise MetadataError(
            "the episodes table lacks the columns data/chunk_index and data/file_index",
            where=f"{storage.url}/{EPISODES_DIR}",
            hint="Convert the dataset again with LeRobot's v3.0 converter.",
        )
    pairs = zip(table.data_chunk.tolist(), table.data_file.tolist(), strict=True)
    files = {
        pair: fill_template(template, {"chunk_index": pair[0], "file_index": pair[1]}, where)
        for pair in dict.fromkeys(pairs)
    }
    pairs = zip(table.data_chunk.tolist(), table.data_file.tolist(), strict=True)
    return [files[pair] for pair in pairs]


def _read(storage: Storage, wanted: Any) -> tuple[pa.Table, str]:
    where = f"{storage.url}/{EPISODES_DIR}"
    tables: list[pa.Table] = []
    for rel in episode_files(storage):
        file = storage.open_parquet(rel)
        columns = [name for name in file.schema_arrow.names if wanted(name)]
        tables.append(storage.read_table(rel, columns, file=file))
    if not tables:
        raise MetadataError("holds no parquet file", where=where, hint="Download it again.")
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise MetadataError("its files have columns of different types", where=where) from error
    return table, where


def _integers(table: pa.Table, column: str, where: str) -> IntArray:
    if column not in table.column_names:
        raise MetadataError(
            f"has no column `{column}`", where=where, hint="Restore the file from its source."
        )
    values = table.column(column)
    if not pa.types.is_integer(values.type) or values.null_count:
        raise MetadataError(
            f"column `{column}` must hold whole numbers, found {values.type}"
            + (f" with {values.null_count} nulls" if values.null_count else ""),
            where=where,
        )
    numbers: IntArray = values.to_numpy().astype(np.int64)
    if len(numbers) and numbers.min() < 0:
        raise MetadataError(f"column `{column}` has negative numbers", where=where)
    return numbers


def _task_strings(table: pa.Table) -> list[tuple[str, ...]]:
    if "tasks" not in table.column_names:
        return [()] * len(table)
    column = table.column("tasks")
    if _is_string(column.type):
        return [(task,) if task is not None else () for task in column.to_pylist()]
    if not _is_list(column.type) or not _is_string(column.type.value_type):
        return [()] * len(table)
    return [tuple(t for t in (row or ()) if t is not None) for row in column.to_pylist()]


def _stacked(column: pa.ChunkedArray, where: str) -> Any:
    """Return (E, *shape) from a column of E nested lists of one shape."""
    array = column.combine_chunks()
    shape = [len(array)]
    while _is_list(array.type):
        sizes = np.unique(pc.list_value_length(array).to_numpy(zero_copy_only=False))
        if array.null_count or len(sizes) > 1:
            raise MetadataError("rows differ in shape or are null", where=where)
        shape.append(int(sizes[0]) if len(sizes) else 0)
        array = array.flatten()
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "iuf":
        raise MetadataError("does not hold numbers", where=where)
    block = values.reshape(shape if len(shape) > 1 else (shape[0], 1))
    block.setflags(write=False)
    return block


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
