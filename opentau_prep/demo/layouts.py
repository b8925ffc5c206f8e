"""The files of a dataset: v2.x with one data file per episode, v3.0 with several.

In v3.0, files are numbered through the chunks: file n lies in chunk n // chunks_size as file
n % chunks_size. `dataset_from_index` and `dataset_to_index` count rows through the whole dataset,
not through the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from opentau_prep.demo.encode import (
    EncodedEpisode,
    Stats,
    concat_columns,
    data_schema,
    dataset_stats,
    frame_table,
    json_stats,
    write_json,
    write_jsonl,
    write_parquet,
)
from opentau_prep.demo.info import DATA_PATH_V2, DATA_PATH_V3
from opentau_prep.demo.spec import DatasetSpec

__all__ = [
    "EPISODES_PATH",
    "batches",
    "episode_row",
    "episode_stats_row",
    "stats_columns",
    "write_data_v2",
    "write_data_v3",
    "write_meta_v2",
    "write_meta_v3",
]

EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_PANDAS_VERSION = "2.2.3"  # the version whose metadata layout is written, not one that is used

Item = TypeVar("Item")


def batches(items: Sequence[Item], size: int | None) -> list[Sequence[Item]]:
    """Return the items in runs of `size`, all in one run where that is None."""
    step = size or max(len(items), 1)
    return [items[start : start + step] for start in range(0, len(items), step)]


def write_data_v3(root: Path, spec: DatasetSpec, episodes: Sequence[EncodedEpisode]) -> None:
    """Write the data files, their episodes in row groups."""
    columns = episodes[0].columns
    schema = data_schema(columns, list_type=spec.list_type, feature_class="List")
    for number, members in enumerate(batches(episodes, spec.episodes_per_file)):
        tables = []
        for group in batches(members, spec.episodes_per_row_group):
            block = concat_columns([episode.columns for episode in group])
            tables.append(frame_table(block, schema))
        chunk, file = divmod(number, spec.chunks_size)
        write_parquet(root / DATA_PATH_V3.format(chunk_index=chunk, file_index=file), tables)


def write_meta_v3(root: Path, spec: DatasetSpec, episodes: Sequence[EncodedEpisode]) -> None:
    """Write tasks.parquet, stats.json and the episodes table."""
    write_parquet(root / "meta/tasks.parquet", [_tasks_table(spec.tasks, spec.task_column)])
    write_json(root / "meta/stats.json", json_stats(dataset_stats(spec, episodes)))
    per_file = spec.episodes_per_file or len(episodes)
    starts = _video_starts(episodes, spec, per_file)
    for number, members in enumerate(batches(episodes, spec.rows_per_meta_file)):
        meta_chunk, meta_file = divmod(number, spec.chunks_size)
        rows = []
        for episode in members:
            chunk, file = divmod(episode.index // per_file, spec.chunks_size)
            row = _episode_row(episode, chunk, file)
            row |= _video_columns(episode, spec, (chunk, file), starts[episode.index])
            row |= stats_columns(episode.stats)
            row |= {"meta/episodes/chunk_index": meta_chunk, "meta/episodes/file_index": meta_file}
            rows.append(row)
        rel = EPISODES_PATH.format(chunk_index=meta_chunk, file_index=meta_file)
        write_parquet(root / rel, [_rows_table(rows)])


def stats_columns(stats: Stats) -> dict[str, np.ndarray[Any, Any]]:
    """Return stats as the flat columns `stats/<feature>/<stat>`."""
    return {
        f"stats/{feature}/{stat}": value
        for feature, one in stats.items()
        for stat, value in one.items()
    }


def _episode_row(episode: EncodedEpisode, chunk: int, file: int) -> dict[str, Any]:
    return {
        "episode_index": episode.index,
        "tasks": list(episode.tasks),
        "length": episode.length,
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": episode.first_row,
        "dataset_to_index": episode.first_row + episode.length,
    }


def _video_starts(
    episodes: Sequence[EncodedEpisode], spec: DatasetSpec, per_file: int
) -> list[float]:
    """Return where each episode would begin in its video file, in seconds."""
    out: list[float] = []
    for members in batches(episodes, per_file):
        first_row = members[0].first_row
        out += [(episode.first_row - first_row) / spec.fps for episode in members]
    return out


def _video_columns(
    episode: EncodedEpisode, spec: DatasetSpec, place: tuple[int, int], start_s: float
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for camera in spec.cameras:
        out[f"videos/{camera}/chunk_index"] = place[0]
        out[f"videos/{camera}/file_index"] = place[1]
        out[f"videos/{camera}/from_timestamp"] = start_s
        out[f"videos/{camera}/to_timestamp"] = start_s + episode.length / spec.fps
    return out


def _rows_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    arrays = {name: _rows_array([row[name] for row in rows]) for name in rows[0]}
    return pa.table(arrays)


def _rows_array(values: list[Any]) -> pa.Array:
    if isinstance(values[0], list):
        return pa.array(values, pa.list_(pa.string()))
    if not isinstance(values[0], np.ndarray):
        return pa.array(values)
    kind = pa.from_numpy_dtype(values[0].dtype)
    for _ in range(values[0].ndim):
        kind = pa.list_(kind)
    return pa.array([value.tolist() for value in values], kind)


def _tasks_table(tasks: Sequence[str], column: str) -> pa.Table:
    """Return tasks.parquet as pandas would write it with the task strings as the index."""
    unnamed = column == "__index_level_0__"
    name = None if unnamed else column
    field = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    number = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    pandas = {
        "index_columns": [column],
        "column_indexes": [
            {"name": None, "field_name": None, **field, "metadata": {"encoding": "UTF-8"}}
        ],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **number},
            {"name": name, "field_name": column, **field},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": _PANDAS_VERSION,
    }
    schema = pa.schema(
        [("task_index", pa.int64()), (column, pa.string())], {"pandas": json.dumps(pandas)}
    )
    indices = np.arange(len(tasks), dtype=np.int64)
    return pa.table([pa.array(indices), pa.array(list(tasks), pa.string())], schema=schema)


def write_meta_v2(root: Path, spec: DatasetSpec, episodes: Sequence[EncodedEpisode]) -> None:
    """Write tasks, episodes and stats: whole-dataset stats in v2.0, an episode's own in v2.1."""
    meta = root / "meta"
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(spec.tasks)]
    write_jsonl(meta / "tasks.jsonl", tasks)
    write_jsonl(meta / "episodes.jsonl", [episode_row(episode) for episode in episodes])
    if spec.version == "v2.0":
        stats = json_stats(dataset_stats(spec, episodes))
        for one in stats.values():
            one.pop("count")
        write_json(meta / "stats.json", stats)
    else:
        write_jsonl(meta / "episodes_stats.jsonl", [episode_stats_row(e) for e in episodes])


def write_data_v2(root: Path, spec: DatasetSpec, episodes: Sequence[EncodedEpisode]) -> None:
    """Write the data files, `chunks_size` to a folder."""
    columns = episodes[0].columns
    schema = data_schema(columns, list_type=spec.list_type, feature_class="Sequence")
    for episode in episodes:
        _write_episode(root, episode, schema, spec.chunks_size)


def _write_episode(
    root: Path, episode: EncodedEpisode, schema: pa.Schema, chunks_size: int
) -> None:
    chunk = episode.index // chunks_size
    rel = DATA_PATH_V2.format(episode_chunk=chunk, episode_index=episode.index)
    write_parquet(root / rel, [frame_table(episode.columns, schema)])


def episode_row(episode: EncodedEpisode) -> dict[str, Any]:
    """Return the episode's line of episodes.jsonl."""
    return {
        "episode_index": episode.index,
        "tasks": list(episode.tasks),
        "length": episode.length,
    }


def episode_stats_row(episode: EncodedEpisode) -> dict[str, Any]:
    """Return the episode's line of episodes_stats.jsonl."""
    return {"episode_index": episode.index, "stats": json_stats(episode.stats)}
