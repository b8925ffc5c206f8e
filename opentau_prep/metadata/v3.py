"""LeRobot v3.0: parquet under `meta/`, several episodes a data file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.arrow import integers, string_lists, strings, values_block
from opentau_prep.metadata.paths import EPISODES_DIR, V3_TASKS, choose_template
from opentau_prep.metadata.records import EpisodesStats, EpisodeTable, StackedStat

if TYPE_CHECKING:
    from opentau_prep.storage import Storage

__all__ = [
    "DEFAULT_DATA_PATH",
    "data_paths",
    "episode_files",
    "read_episodes",
    "read_episodes_stats",
    "read_tasks",
]

DEFAULT_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

_FROM, _TO = "dataset_from_index", "dataset_to_index"
_PLACES = {
    "data_chunk": "data/chunk_index",
    "data_file": "data/file_index",
    "from_index": _FROM,
    "to_index": _TO,
}
_WANTED = frozenset({"episode_index", "length", "tasks", *_PLACES.values()})


def episode_files(storage: Storage) -> Sequence[str]:
    """Return the files of the episodes table, in path order."""
    return storage.list_files(EPISODES_DIR, ".parquet")


def read_episodes(storage: Storage) -> EpisodeTable:
    """Read the episodes table without its stats and video columns.

    Raises:
        MetadataError: A file is unreadable, a column is missing or of another type, or an episode
            occurs twice.
    """
    table, where = _read(storage, _WANTED.__contains__)
    index = integers(table, "episode_index", where)
    order = np.argsort(index, kind="stable")
    twice = np.flatnonzero(np.diff(index[order]) == 0)
    if len(twice):
        episode = index[order[twice[0]]]
        raise MetadataError(
            f"episode {episode} occurs twice", where=where, hint="Remove one of the rows."
        )
    places = {
        field: integers(table, column, where)[order]
        for field, column in _PLACES.items()
        if column in table.column_names
    }
    if "length" not in table.column_names and {"from_index", "to_index"} <= places.keys():
        length = np.maximum(places["to_index"] - places["from_index"], 0)
    else:
        length = integers(table, "length", where)[order]
    tasks = string_lists(table, "tasks", where)
    return EpisodeTable(index[order], length, tuple(tasks[i] for i in order.tolist()), **places)


def read_tasks(storage: Storage) -> dict[int, str]:
    """Read `meta/tasks.parquet` as task_index -> task; of rows with one index the last wins.

    The string is in a column `task` or in whichever column pandas made of its index.

    Raises:
        MetadataError: The file is missing or lacks one of both columns.
    """
    where = f"{storage.url}/{V3_TASKS}"
    table = storage.read_table(V3_TASKS)
    names = strings(table, ("task", "__index_level_0__"), where)
    tasks = dict(zip(integers(table, "task_index", where).tolist(), names, strict=True))
    return dict(sorted(tasks.items()))


def read_episodes_stats(storage: Storage) -> EpisodesStats:
    """Read the flattened `stats/<feature>/<stat>` columns.

    Every array has the stat's own shape, (3, 1, 1) for images. A null is a stat that the episode
    does not have.

    Raises:
        MetadataError: A file is unreadable, or a stat is ragged or not made of numbers.
    """
    table, where = _read(storage, lambda name: name == "episode_index" or name[:6] == "stats/")
    episodes = integers(table, "episode_index", where)
    order = np.argsort(episodes, kind="stable")
    in_order = bool((order[1:] > order[:-1]).all())
    blocks: dict[str, dict[str, StackedStat]] = {}
    for column in table.column_names:
        feature, _, stat = column[6:].rpartition("/")
        if column[:6] != "stats/" or not feature:
            continue
        block, rows = values_block(table, column, where)
        if not in_order:
            block, rows = _reordered(block, rows, order)
        if len(block):
            blocks.setdefault(feature, {})[stat] = StackedStat(block, rows)
    return EpisodesStats(episodes[order], blocks)


def _reordered(block: Any, rows: Any, order: Any) -> tuple[Any, Any]:
    if rows is None:
        return block[order], None
    new_row = np.empty(len(order), dtype=np.int64)
    new_row[order] = np.arange(len(order))
    by_row = np.argsort(new_row[rows], kind="stable")
    return block[by_row], new_row[rows][by_row]


def data_paths(storage: Storage, info: Mapping[str, Any], table: EpisodeTable) -> list[str]:
    """Return the data file of each episode, in table order; files need not exist.

    A template of v2.x, or one that leads to no file, gives way to LeRobot's default.

    Raises:
        MetadataError: `data_path` is malformed, or the table does not say which file is whose.
    """
    if table.data_chunk is None or table.data_file is None:
        raise MetadataError(
            "the episodes table lacks the columns data/chunk_index and data/file_index",
            where=f"{storage.url}/{EPISODES_DIR}",
            hint="Convert the dataset again with LeRobot's v3.0 converter.",
        )
    pairs = list(zip(table.data_chunk.tolist(), table.data_file.tolist(), strict=True))

    def path(template: str, pair: tuple[int, int]) -> str:
        return template.format(chunk_index=pair[0], file_index=pair[1])

    template = choose_template(
        storage,
        info,
        default=DEFAULT_DATA_PATH,
        known=("chunk_index", "file_index"),
        foreign=("episode_index", "episode_chunk"),
        example=(lambda template: path(template, pairs[0])) if pairs else None,
    )
    files = {pair: path(template, pair) for pair in set(pairs)}
    return [files[pair] for pair in pairs]


def _read(storage: Storage, wanted: Callable[[str], bool]) -> tuple[pa.Table, str]:
    """Return the wanted columns of the episodes table, and its place for messages."""
    where = f"{storage.url}/{EPISODES_DIR}"
    tables: list[pa.Table] = []
    for rel in episode_files(storage):
        file = storage.open_parquet(rel)
        columns = [name for name in storage.column_names(rel, file) if wanted(name)]
        tables.append(storage.read_table(rel, columns, file=file))
    if not tables:
        raise MetadataError("holds no parquet file", where=where, hint="Download it again.")
    if len(tables) == 1:
        return tables[0], where
    try:
        return pa.concat_tables(tables, promote_options="permissive"), where
    except (pa.ArrowException, OSError) as error:
        raise MetadataError(
            "its files have columns of different types", where=where, hint="Download it again."
        ) from error
