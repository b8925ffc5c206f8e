"""LeRobot v2.0 and v2.1: JSON lines under `meta/`, one parquet file an episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.info import (
    DEFAULT_CHUNKS_SIZE,
    DEFAULT_DATA_PATH,
    INFO,
    as_integer,
    fill_template,
    template_fields,
)
from opentau_prep.metadata.jsonread import read_json_lines
from opentau_prep.metadata.records import EpisodeTable, Stats
from opentau_prep.metadata.statsread import parse_stats
from opentau_prep.notices import warn

if TYPE_CHECKING:
    from opentau_prep.storage import Storage

__all__ = [
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


def read_episodes(storage: Storage) -> EpisodeTable:
    """Read `meta/episodes.jsonl`.

    Raises:
        MetadataError: A row lacks a usable `episode_index` or `length`, or an episode occurs twice.
    """
    where = f"{storage.url}/{EPISODES}"
    rows = read_json_lines(storage, EPISODES)
    index = np.array([_field(r, "episode_index", where, n) for n, r in rows], dtype=np.int64)
    length = np.array([_field(r, "length", where, n) for n, r in rows], dtype=np.int64)
    order = np.argsort(index, kind="stable")
    twice = np.flatnonzero(np.diff(index[order]) == 0)
    if len(twice):
        a, b = order[twice[0]], order[twice[0] + 1]
        raise MetadataError(
            f"episode {index[a]} stands there twice (lines {rows[a][0]} and {rows[b][0]})",
            where=where,
            hint="Remove one of the rows.",
        )
    tasks = [_task_strings(row) for _, row in rows]
    return EpisodeTable(index[order], length[order], tuple(tasks[i] for i in order))


def read_tasks(storage: Storage) -> dict[int, str]:
    """Read `meta/tasks.jsonl` as task_index -> task; of rows with one index the last wins."""
    where = f"{storage.url}/{TASKS}"
    tasks: dict[int, str] = {}
    for line, row in read_json_lines(storage, TASKS):
        task = row.get("task")
        if not isinstance(task, str):
            raise MetadataError("field `task` must be a string", where=f"{where}, line {line}")
        tasks[_field(row, "task_index", where, line)] = task
    return dict(sorted(tasks.items()))


def read_episodes_stats(storage: Storage) -> dict[int, Stats]:
    """Read `meta/episodes_stats.jsonl` as episode_index -> stats."""
    where = f"{storage.url}/{EPISODES_STATS}"
    found: dict[int, Stats] = {}
    for line, row in read_json_lines(storage, EPISODES_STATS):
        episode = _field(row, "episode_index", where, line)
        found[episode] = parse_stats(row.get("stats"), f"{where}, line {line}")
    return dict(sorted(found.items()))


def data_paths(storage: Storage, info: Mapping[str, Any], table: EpisodeTable) -> list[str]:
    """Return the data file of each episode, in table order; files need not exist.

    Published datasets use `{chunk_index}` for `{episode_chunk}`: both are understood. A template
    that leads to no file gives way to LeRobot's default when that one does.
    """
    where = f"{storage.url}/{INFO}"
    size = as_integer(info.get("chunks_size")) or DEFAULT_CHUNKS_SIZE
    default = DEFAULT_DATA_PATH["v2"]
    template = info.get("data_path", default)
    if not isinstance(template, str):
        raise MetadataError("field `data_path` must be a string", where=where)

    def path(template: str, episode: int) -> str:
        chunk = episode // size
        fields = {"episode_chunk": chunk, "chunk_index": chunk, "episode_index": episode}
        return fill_template(template, fields, where)

    episodes = [int(e) for e in table.episode_index]
    stray = "file_index" in template_fields(template)
    if template != default and episodes:
        first = path(default, episodes[0])
        if stray or (not storage.exists(path(template, episodes[0])) and storage.exists(first)):
            warn(
                "data_path_mismatch",
                f"{where}: data_path {template!r} leads to no file; using {default!r}",
                dataset=storage.url,
            )
            template = default
    return [path(template, episode) for episode in episodes]


def _field(row: Mapping[str, Any], name: str, where: str, line: int) -> int:
    value = as_integer(row.get(name))
    if value is not None and value >= 0:
        return value
    found = f"is {row[name]!r}"[:60] if name in row else "is missing"
    raise MetadataError(
        f"field `{name}` {found}; expected a whole number of 0 or more",
        where=f"{where}, line {line}",
        hint="Restore the file from its source.",
    )


def _task_strings(row: Mapping[str, Any]) -> tuple[str, ...]:
    tasks = row.get("tasks", row.get("task", []))
    if isinstance(tasks, str):
        tasks = [tasks]
    if not isinstance(tasks, list):
        return ()
    return tuple(task for task in tasks if isinstance(task, str))
