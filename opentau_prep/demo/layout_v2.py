"""The files of a v2.0 or v2.1 dataset: JSON lines under `meta/`, one data file per episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from opentau_prep.demo.columns import data_schema, frame_table
from opentau_prep.demo.encode import (
    EncodedEpisode,
    dataset_stats,
    json_stats,
    write_json,
    write_jsonl,
    write_parquet,
)
from opentau_prep.demo.info import DATA_PATH_V2
from opentau_prep.demo.spec import DatasetSpec

__all__ = ["episode_row", "episode_stats_row", "write_data_v2", "write_meta_v2"]


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
