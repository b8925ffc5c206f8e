"""LeRobot v2.0 and v2.1: JSON lines under `meta/`, one parquet file per episode."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.info import INFO, MAX_INDEX, as_integer, chunks_size, shown
from opentau_prep.metadata.jsonread import JsonLines, read_json_lines
from opentau_prep.metadata.paths import choose_template
from opentau_prep.metadata.records import EpisodesStats, EpisodeTable, IntArray
from opentau_prep.metadata.statsread import stack_stats

if TYPE_CHECKING:
    from opentau_prep.storage import Storage

__all__ = [
    "DEFAULT_DATA_PATH",
    "EPISODES",
    "EPISODES_STATS",
    "TASKS",
    "data_paths",
    "read_episodes",
    "read_episodes_stats",
    "read_tasks",
]

EPISODES = "meta/episodes.jsonl"
EPISODES_STATS = "meta/episodes_stats.jsonl"
TASKS = "meta/tasks.jsonl"
DEFAULT_DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"


def read_episodes(storage: Storage) -> EpisodeTable:
    """Read `meta/episodes.jsonl`.

    Raises:
        MetadataError: A row lacks a usable `episode_index` or `length`, or an episode occurs twice.
    """
    lines = read_json_lines(storage, EPISODES)
    index = _integers(lines, "episode_index")
    length = _integers(lines, "length")
    order = np.argsort(index, kind="stable")
    twice = np.flatnonzero(np.diff(index[order]) == 0)
    if len(twice):
        a, b = order[twice[0]], order[twice[0] + 1]
        raise MetadataError(
            f"episode {index[a]} occurs twice (lines {lines.numbers[a]} and {lines.numbers[b]})",
            where=lines.where,
            hint="Remove one of the rows.",
        )
    tasks = tuple(_task_strings(lines.rows[i]) for i in order.tolist())
    return EpisodeTable(index[order], length[order], tasks)


def read_tasks(storage: Storage) -> dict[int, str]:
    """Read `meta/tasks.jsonl` as task_index -> task; of rows with one index the last wins.

    Raises:
        MetadataError: The file is missing, or a row lacks a usable `task_index` or `task`.
    """
    lines = read_json_lines(storage, TASKS)
    tasks = [row.get("task") for row in lines.rows]
    for i, task in enumerate(tasks):
        if not isinstance(task, str):
            raise MetadataError(
                f"field `task` is {shown(task)}; expected a string",
                where=lines.place(i),
                hint="Restore the file from its source.",
            )
    named: dict[int, Any] = dict(zip(_integers(lines, "task_index").tolist(), tasks, strict=True))
    return dict(sorted(named.items()))


def read_episodes_stats(storage: Storage, columns: Collection[str] | None = None) -> EpisodesStats:
    """Read `meta/episodes_stats.jsonl`; of rows with one episode_index the last wins.

    Args:
        storage: The dataset.
        columns: The features to read; all by default.

    Raises:
        MetadataError: The file is missing, or a row has no usable `episode_index` or stats.
    """

    def pick(row: Any) -> Any:
        stats = row.get("stats") if isinstance(row, dict) else None
        if columns is None or not isinstance(stats, dict):
            return row
        return {**row, "stats": {name: stats[name] for name in columns if name in stats}}

    lines = read_json_lines(storage, EPISODES_STATS, pick)
    episodes = _integers(lines, "episode_index").tolist()
    if all(map(operator.lt, episodes, episodes[1:])):  # in order, each once: the usual file
        return stack_stats(lines, np.array(episodes, dtype=np.int64), columns)
    kept = sorted({episode: row for row, episode in enumerate(episodes)}.items())
    rows = JsonLines(
        lines.where, [lines.rows[row] for _, row in kept], [lines.numbers[row] for _, row in kept]
    )
    return stack_stats(rows, np.array([episode for episode, _ in kept], dtype=np.int64), columns)


def data_paths(storage: Storage, info: Mapping[str, Any], table: EpisodeTable) -> list[str]:
    """Return the data file of each episode, in table order; files need not exist.

    Published datasets use `{chunk_index}` for `{episode_chunk}`: both are understood. A template
    of v3.0, or one that leads to no file, gives way to LeRobot's default.

    Raises:
        MetadataError: `data_path` or `chunks_size` is malformed.
    """
    size = chunks_size(info, f"{storage.url}/{INFO}")
    episodes = table.episode_index.tolist()

    def path(template: str, episode: int) -> str:
        chunk = episode // size
        return template.format(episode_chunk=chunk, chunk_index=chunk, episode_index=episode)

    template = choose_template(
        storage,
        info,
        default=DEFAULT_DATA_PATH,
        known=("episode_chunk", "chunk_index", "episode_index"),
        foreign=("file_index",),
        example=(lambda template: path(template, episodes[0])) if episodes else None,
    )
    return [path(template, episode) for episode in episodes]


def _integers(lines: JsonLines, name: str) -> IntArray:
    """Return a field of all rows as (N,) int64."""
    values: list[Any] = [row.get(name) for row in lines.rows]
    if set(map(type, values)) <= {int} and all(0 <= v <= MAX_INDEX for v in values):
        return np.array(values, dtype=np.int64)
    numbers = [as_integer(value) for value in values]
    for i, number in enumerate(numbers):
        if number is None or number < 0:
            found = f"is {shown(values[i])}" if name in lines.rows[i] else "is missing"
            raise MetadataError(
                f"field `{name}` {found}; expected a whole number of 0 or more",
                where=lines.place(i),
                hint="Restore the file from its source.",
            )
    return np.array(numbers, dtype=np.int64)


def _task_strings(row: Mapping[str, Any]) -> tuple[str, ...]:
    tasks = row.get("tasks", row.get("task"))
    if isinstance(tasks, str):
        return (tasks,)
    if not isinstance(tasks, list):
        return ()
    return tuple(task for task in tasks if isinstance(task, str))
