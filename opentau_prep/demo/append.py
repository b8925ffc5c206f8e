"""Add one episode to a dataset on disk, as a recorder that resumes does.

For demonstrations of what happens when a dataset grows: works on datasets of `write_dataset` and on
copies of published ones that follow the usual layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from opentau_prep.demo.encode import (
    EncodedEpisode,
    column_stats,
    frame_columns,
    frame_table,
    json_stats,
    write_json,
    write_parquet,
)
from opentau_prep.demo.info import DATA_PATH_V2, DATA_PATH_V3
from opentau_prep.demo.layouts import EPISODES_PATH, episode_row, stats_columns
from opentau_prep.demo.spec import DatasetSpec, EpisodeData
from opentau_prep.errors import ConfigError, MetadataError

__all__ = ["ExistingDataset", "append_episode", "data_file_v2", "load_existing", "read_all_columns"]


def append_episode(root: Path, episode: EpisodeData, *, update_stats: bool = True) -> None:
    """Add an episode at the end: its frames, its row, its stats, and the counts of info.json.

    v2.x gets one more data file and line; v3.0 one more data file and episodes file. Cameras cannot
    grow without images: their stats and video columns repeat the last episode's, and the
    whole-dataset stats of cameras stay as they are.

    Args:
        root: The dataset.
        episode: Frames with the dataset's columns and widths; its task must exist already.
        update_stats: Whether a whole-dataset `stats.json` is recomputed from all frames (every stat
            that is there); False leaves it behind the data.

    Raises:
        ConfigError: The episode does not fit the dataset.
        MetadataError: The dataset cannot be read.
    """
    existing = load_existing(root)
    encoded = _encode(root, existing, episode)
    if existing.spec.version == "v3.0":
        _append_v3(root, existing, encoded)
    else:
        _append_v2(root, existing, encoded)
    if update_stats and (root / "meta/stats.json").exists():
        _recompute_stats(root)
    write_json(root / "meta/info.json", _grown_info(existing, encoded))


def _encode(root: Path, existing: ExistingDataset, episode: EpisodeData) -> EncodedEpisode:
    spec = existing.spec
    columns = frame_columns(
        spec, episode, episode_index=existing.n_episodes, first_row=existing.n_frames
    )
    for field in existing.schema:
        values = columns.get(field.name)
        if values is None:
            raise ConfigError(
                "the episode lacks a column of the dataset", where=f"{root}: {field.name}"
            )
        width = values.shape[1] if values.ndim == 2 else 1
        expected = existing.declared_width(field.name, width)
        if width != expected:
            raise ConfigError(
                f"the episode is {width} wide, the dataset {expected}",
                where=f"{root}: {field.name}",
            )
    if episode.task_strings is None and not 0 <= episode.task_index < len(spec.tasks):
        raise ConfigError(f"task_index {episode.task_index} names no task", where=str(root))
    tasks = episode.task_strings or (spec.tasks[episode.task_index],)
    kept = {field.name: columns[field.name] for field in existing.schema}
    stats = column_stats(kept, quantiles=spec.quantiles)
    n_episodes, n_frames = existing.n_episodes, existing.n_frames
    return EncodedEpisode(n_episodes, kept, tasks, stats, n_frames, len(episode))


def _append_v2(root: Path, existing: ExistingDataset, encoded: EncodedEpisode) -> None:
    rel = data_file_v2(encoded.index, existing.spec.chunks_size)
    write_parquet(root / rel, [frame_table(encoded.columns, existing.schema)])
    _append_line(root / "meta/episodes.jsonl", episode_row(encoded))
    if existing.last_stats:
        stats = {**existing.last_stats, **json_stats(encoded.stats)}
        row = {"episode_index": encoded.index, "stats": stats}
        _append_line(root / "meta/episodes_stats.jsonl", row)


def _append_v3(root: Path, existing: ExistingDataset, encoded: EncodedEpisode) -> None:
    last, size = existing.last_row, existing.spec.chunks_size
    chunk, file = _next_place(last["data/chunk_index"], last["data/file_index"], size)
    rel = DATA_PATH_V3.format(chunk_index=chunk, file_index=file)
    write_parquet(root / rel, [frame_table(encoded.columns, existing.schema)])
    meta_chunk, meta_file = _next_place(
        last.get("meta/episodes/chunk_index", 0), last.get("meta/episodes/file_index", 0), size
    )
    row = {
        **last,
        **episode_row(encoded),
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": encoded.first_row,
        "dataset_to_index": encoded.first_row + encoded.length,
        "meta/episodes/chunk_index": meta_chunk,
        "meta/episodes/file_index": meta_file,
        **_video_times(last, encoded.length / existing.spec.fps),
        **{name: value.tolist() for name, value in stats_columns(encoded.stats).items()},
    }
    table = pa.Table.from_pylist([row], schema=existing.row_schema)
    rel = EPISODES_PATH.format(chunk_index=meta_chunk, file_index=meta_file)
    write_parquet(root / rel, [table])


def _video_times(last: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Return where the new episode is in each camera's video: behind the last one."""
    times = {}
    for name in last:
        if name.startswith("videos/") and name.endswith("/from_timestamp"):
            end = name.replace("/from_timestamp", "/to_timestamp")
            times[name], times[end] = last[end], last[end] + seconds
    return times


def _next_place(chunk: int, file: int, chunks_size: int) -> tuple[int, int]:
    number = chunk * chunks_size + file + 1
    return divmod(number, chunks_size)


def _recompute_stats(root: Path) -> None:
    path = root / "meta/stats.json"
    old = json.loads(path.read_text(encoding="utf-8"))
    columns = read_all_columns(root)
    fresh = json_stats(column_stats(columns, quantiles=any("q01" in one for one in old.values())))
    new = {
        feature: {stat: fresh.get(feature, one).get(stat, value) for stat, value in one.items()}
        for feature, one in old.items()
    }
    write_json(path, new)


def _grown_info(existing: ExistingDataset, encoded: EncodedEpisode) -> dict[str, Any]:
    info = dict(existing.info)
    n_episodes = encoded.index + 1
    info["total_episodes"] = n_episodes
    info["total_frames"] = existing.n_frames + encoded.length
    if "total_chunks" in info:
        info["total_chunks"] = math.ceil(n_episodes / existing.spec.chunks_size)
    if "total_videos" in info:
        info["total_videos"] = n_episodes * len(existing.spec.cameras)
    if "train" in (info.get("splits") or {}):
        info["splits"] = {**info["splits"], "train": f"0:{n_episodes}"}
    return info


def _append_line(path: Path, row: object) -> None:
    text = path.read_text(encoding="utf-8")
    separator = "" if not text or text.endswith("\n") else "\n"
    line = json.dumps(row, ensure_ascii=False)
    path.write_text(f"{text}{separator}{line}\n", encoding="utf-8", newline="\n")


_STATE_NAMES = ("observation.state", "state")
_ACTION_NAMES = ("action", "actions")
_CAMERA_DTYPES = ("video", "image")
_STANDARD_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class ExistingDataset:
    """A dataset as it is.

    Attributes:
        info: info.json.
        spec: The options it was, or might have been, written with.
        schema: The data files' schema.
        n_episodes: Episodes in its episodes table.
        n_frames: The sum of their lengths.
        last_stats: v2.1: the last episode's stats; empty elsewhere.
        last_row: v3.0: the last row of the episodes table; empty elsewhere.
        row_schema: v3.0: the schema of that table.
    """

    info: Mapping[str, Any]
    spec: DatasetSpec
    schema: pa.Schema
    n_episodes: int
    n_frames: int
    last_stats: Mapping[str, Any]
    last_row: Mapping[str, Any]
    row_schema: pa.Schema | None

    def declared_width(self, name: str, default: int) -> int:
        """Return a column's width by info.json, or the default where it says nothing."""
        shape = self.info["features"].get(name, {}).get("shape") or [default]
        return int(shape[-1])


def load_existing(root: Path) -> ExistingDataset:
    """Read what `ExistingDataset` holds.

    Raises:
        MetadataError: The dataset is not whole, or not laid out as usual.
    """
    try:
        info = json.loads((root / "meta/info.json").read_text(encoding="utf-8"))
        return (_load_v3 if info["codebase_version"] == "v3.0" else _load_v2)(root, info)
    except (OSError, ValueError, KeyError, IndexError, StopIteration) as error:
        raise MetadataError(
            f"cannot append to this dataset ({type(error).__name__}: {error})",
            where=str(root),
            hint="Check that it is a complete LeRobot dataset.",
        ) from error


def _load_v2(root: Path, info: Mapping[str, Any]) -> ExistingDataset:
    lengths = [row["length"] for row in _read_lines(root / "meta/episodes.jsonl")]
    stats_file = root / "meta/episodes_stats.jsonl"
    last_stats = _read_lines(stats_file)[-1]["stats"] if stats_file.exists() else {}
    schema = pq.read_schema(root / data_file_v2(len(lengths) - 1, info["chunks_size"]))
    quantiles = any("q01" in one for one in last_stats.values())
    rows = _read_lines(root / "meta/tasks.jsonl")
    tasks = {row["task_index"]: row["task"] for row in rows}
    spec = _spec(info, tasks, schema, quantiles=quantiles)
    return ExistingDataset(info, spec, schema, len(lengths), sum(lengths), last_stats, {}, None)


def _load_v3(root: Path, info: Mapping[str, Any]) -> ExistingDataset:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    lengths = np.concatenate([pq.read_table(file)["length"].to_numpy() for file in files])
    row_schema = pq.read_schema(files[-1])
    row = pq.read_table(files[-1]).to_pylist()[-1]
    place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
    schema = pq.read_schema(root / DATA_PATH_V3.format(**place))
    quantiles = any(name.endswith("/q01") for name in row_schema.names)
    table = pq.read_table(root / "meta/tasks.parquet")
    column = next(name for name in table.column_names if name != "task_index")
    pairs = zip(table["task_index"].to_pylist(), table[column].to_pylist(), strict=True)
    spec = _spec(info, dict(pairs), schema, quantiles=quantiles)
    n_frames = int(lengths.sum())
    return ExistingDataset(info, spec, schema, len(lengths), n_frames, {}, row, row_schema)


def _spec(
    info: Mapping[str, Any], tasks: Mapping[int, str], schema: pa.Schema, *, quantiles: bool
) -> DatasetSpec:
    features = info["features"]
    return DatasetSpec(
        version=info["codebase_version"],
        fps=info["fps"],
        tasks=tuple(tasks[index] for index in sorted(tasks)),
        state_feature=next(name for name in _STATE_NAMES if name in features),
        action_feature=next((name for name in _ACTION_NAMES if name in features), "action"),
        cameras=tuple(k for k, f in features.items() if f["dtype"] in _CAMERA_DTYPES),
        quantiles=quantiles,
        chunks_size=info["chunks_size"],
        omit_columns=tuple(name for name in _STANDARD_COLUMNS if name not in schema.names),
    )


def data_file_v2(episode_index: int, chunks_size: int) -> str:
    """Return where a v2.x episode's data file lies."""
    chunk = episode_index // chunks_size
    return DATA_PATH_V2.format(episode_chunk=chunk, episode_index=episode_index)


def read_all_columns(root: Path) -> dict[str, npt.NDArray[Any]]:
    """Return every frame of the dataset, column name to (N,) or (N, D)."""
    files = sorted((root / "data").rglob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files])
    out: dict[str, npt.NDArray[Any]] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_nested(column.type):
            out[name] = np.asarray(column.flatten()).reshape(table.num_rows, -1)
        else:
            out[name] = np.asarray(column)
    return out


def _read_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]
