"""Episodes ready to be laid out: columns, tasks, stats and their place among the dataset's rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from opentau_prep.demo.columns import Columns, concat_columns, frame_columns
from opentau_prep.demo.plain_stats import Stats, column_stats, image_stats, pool_image_stats
from opentau_prep.demo.spec import DatasetSpec, EpisodeData
from opentau_prep.errors import ConfigError

__all__ = [
    "EncodedEpisode",
    "dataset_stats",
    "encode_episodes",
    "json_stats",
    "write_json",
    "write_jsonl",
    "write_parquet",
]


@dataclass(frozen=True)
class EncodedEpisode:
    """One episode as it will be stored.

    Attributes:
        index: Its `episode_index`.
        columns: The data file's columns, T rows.
        tasks: The strings of the episodes table.
        stats: Its own stats, cameras included.
        first_row: Its first frame's `index` in the whole dataset.
        length: T.
    """

    index: int
    columns: Columns
    tasks: tuple[str, ...]
    stats: Stats
    first_row: int
    length: int


def encode_episodes(spec: DatasetSpec, episodes: Sequence[EpisodeData]) -> list[EncodedEpisode]:
    """Return all episodes of a dataset, numbered from 0, rows counted through.

    Raises:
        ConfigError: No episode, a task index without a task, or columns that differ.
    """
    if not episodes:
        raise ConfigError("a dataset needs at least one episode to tell its features")
    out: list[EncodedEpisode] = []
    first_row = 0
    for index, episode in enumerate(episodes):
        columns = frame_columns(spec, episode, episode_index=index, first_row=first_row)
        _check_same_columns(out[0].columns if out else columns, columns, index)
        stats = column_stats(columns, quantiles=spec.quantiles)
        for number, camera in enumerate(spec.cameras):
            stats[camera] = image_stats(number, index, len(episode), quantiles=spec.quantiles)
        tasks = _task_strings(spec, episode, index)
        out.append(EncodedEpisode(index, columns, tasks, stats, first_row, len(episode)))
        first_row += len(episode)
    return out


def dataset_stats(spec: DatasetSpec, episodes: Sequence[EncodedEpisode]) -> Stats:
    """Return the stats of the whole dataset, from all of its frames at once."""
    columns = concat_columns([episode.columns for episode in episodes])
    stats = column_stats(columns, quantiles=spec.quantiles)
    for camera in spec.cameras:
        stats[camera] = pool_image_stats([episode.stats[camera] for episode in episodes])
    return stats


def json_stats(stats: Stats) -> dict[str, dict[str, Any]]:
    """Return stats as nested lists."""
    return {name: {k: v.tolist() for k, v in one.items()} for name, one in stats.items()}


def write_json(path: Path, content: object) -> None:
    """Write one JSON document, indented as published `meta/` files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=4, ensure_ascii=False)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Write one JSON document a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def write_parquet(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write the tables into one file, a row group each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, tables[0].schema, compression="snappy") as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(table.num_rows, 1))


def _task_strings(spec: DatasetSpec, episode: EpisodeData, index: int) -> tuple[str, ...]:
    if episode.task_strings is not None:
        return episode.task_strings
    if not 0 <= episode.task_index < len(spec.tasks):
        raise ConfigError(
            f"task_index {episode.task_index} names no task, there are {len(spec.tasks)}",
            where=f"episode {index}",
        )
    return (spec.tasks[episode.task_index],)


def _check_same_columns(first: Columns, columns: Columns, index: int) -> None:
    def shapes(of: Columns) -> dict[str, tuple[Any, ...]]:
        return {name: (values.dtype.name, *values.shape[1:]) for name, values in of.items()}

    if shapes(first) != shapes(columns):
        raise ConfigError(
            f"columns {shapes(columns)} differ from those of episode 0, {shapes(first)}",
            where=f"episode {index}",
        )
