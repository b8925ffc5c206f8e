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

from opentau_prep.demo.columns import frame_columns, frame_table
from opentau_prep.demo.encode import EncodedEpisode, json_stats, write_json, write_parquet
from opentau_prep.demo.info import DATA_PATH_V2, DATA_PATH_V3
from opentau_prep.demo.layout_v2 import episode_row
from opentau_prep.demo.layout_v3 import EPISODES_PATH, stats_columns
from opentau_prep.demo.plain_stats import column_stats
from opentau_prep.demo.spec import DatasetSpec, EpisodeData
from opentau_prep.errors import ConfigError, MetadataError

__all__ = ["append_episode"]

_STATE_NAMES = ("observation.state", "state")
_ACTION_NAMES = ("action", "actions")
_CAMERA_DTYPES = ("video", "image")


@dataclass(frozen=True)
class _Existing:
    """What has to be known of a dataset before it can grow."""

    info: Mapping[str, Any]
    spec: DatasetSpec
    schema: pa.Schema
    n_episodes: int
    n_frames: int
    last_stats: Mapping[str, Any]  # v2.1: the last line's stats
    last_row: Mapping[str, Any]  # v3.0: the last row of the episodes table
    row_schema: pa.Schema | None


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
    try:
        existing = _load(root)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise MetadataError(
            f"cannot append to this dataset ({type(error).__name__}: {error})",
            where=str(root),
            hint="Check that it is a complete LeRobot dataset.",
        ) from error
    encoded = _encode(root, existing, episode)
    if existing.spec.version == "v3.0":
        _append_v3(root, existing, encoded)
    else:
        _append_v2(root, existing, encoded)
    if update_stats and (root / "meta/stats.json").exists():
        _recompute_stats(root)
    write_json(root / "meta/info.json", _grown_info(existing, encoded))


def _load(root: Path) -> _Existing:
    info = json.loads((root / "meta/info.json").read_text(encoding="utf-8"))
    last_stats: Mapping[str, Any] = {}
    last_row: Mapping[str, Any] = {}
    row_schema = None
    if info["codebase_version"] == "v3.0":
        files = sorted((root / "meta/episodes").glob("*/*.parquet"))
        lengths = np.concatenate([pq.read_table(f)["length"].to_numpy() for f in files])
        row_schema = pq.read_schema(files[-1])
        last_row = pq.read_table(files[-1]).to_pylist()[-1]
        quantiles = any(name.endswith("/q01") for name in row_schema.names)
        data_file = DATA_PATH_V3.format(
            chunk_index=last_row["data/chunk_index"], file_index=last_row["data/file_index"]
        )
    else:
        lengths = np.array([row["length"] for row in _read_lines(root / "meta/episodes.jsonl")])
        if (root / "meta/episodes_stats.jsonl").exists():
            last_stats = _read_lines(root / "meta/episodes_stats.jsonl")[-1]["stats"]
        quantiles = any("q01" in one for one in last_stats.values())
        data_file = _v2_data_file(len(lengths) - 1, info["chunks_size"])
    schema = pq.read_schema(root / data_file)
    spec = _spec(root, info, schema, quantiles=quantiles)
    n_frames = int(lengths.sum())
    return _Existing(info, spec, schema, len(lengths), n_frames, last_stats, last_row, row_schema)


def _spec(
    root: Path, info: Mapping[str, Any], schema: pa.Schema, *, quantiles: bool
) -> DatasetSpec:
    features = info["features"]
    return DatasetSpec(
        version=info["codebase_version"],
        fps=info["fps"],
        tasks=_read_tasks(root),
        state_feature=next(name for name in _STATE_NAMES if name in features),
        action_feature=next((name for name in _ACTION_NAMES if name in features), "action"),
        cameras=tuple(k for k, f in features.items() if f["dtype"] in _CAMERA_DTYPES),
        quantiles=quantiles,
        chunks_size=info["chunks_size"],
        omit_columns=tuple(
            {"timestamp", "frame_index", "episode_index", "index", "task_index"} - {*schema.names}
        ),
    )


def _encode(root: Path, existing: _Existing, episode: EpisodeData) -> EncodedEpisode:
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
        expected = _declared_width(existing.info["features"], field.name, width)
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


def _declared_width(features: Mapping[str, Any], name: str, default: int) -> int:
    """Return the declared width of a column, or the default where it is not declared."""
    shape = features.get(name, {}).get("shape") or [default]
    return int(shape[-1])


def _append_v2(root: Path, existing: _Existing, encoded: EncodedEpisode) -> None:
    rel = _v2_data_file(encoded.index, existing.spec.chunks_size)
    write_parquet(root / rel, [frame_table(encoded.columns, existing.schema)])
    _append_line(root / "meta/episodes.jsonl", episode_row(encoded))
    if existing.last_stats:
        stats = {**existing.last_stats, **json_stats(encoded.stats)}
        row = {"episode_index": encoded.index, "stats": stats}
        _append_line(root / "meta/episodes_stats.jsonl", row)


def _append_v3(root: Path, existing: _Existing, encoded: EncodedEpisode) -> None:
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
        **{name: value.tolist() for name, value in stats_columns(encoded.stats).items()},
    }
    table = pa.Table.from_pylist([row], schema=existing.row_schema)
    rel = EPISODES_PATH.format(chunk_index=meta_chunk, file_index=meta_file)
    write_parquet(root / rel, [table])


def _next_place(chunk: int, file: int, chunks_size: int) -> tuple[int, int]:
    number = chunk * chunks_size + file + 1
    return divmod(number, chunks_size)


def _v2_data_file(episode_index: int, chunks_size: int) -> str:
    chunk = episode_index // chunks_size
    return DATA_PATH_V2.format(episode_chunk=chunk, episode_index=episode_index)


def _recompute_stats(root: Path) -> None:
    path = root / "meta/stats.json"
    old = json.loads(path.read_text(encoding="utf-8"))
    columns = _read_all_columns(root)
    fresh = json_stats(column_stats(columns, quantiles=any("q01" in one for one in old.values())))
    new = {
        feature: {stat: fresh.get(feature, one).get(stat, value) for stat, value in one.items()}
        for feature, one in old.items()
    }
    write_json(path, new)


def _read_all_columns(root: Path) -> dict[str, npt.NDArray[Any]]:
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


def _grown_info(existing: _Existing, encoded: EncodedEpisode) -> dict[str, Any]:
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


def _read_tasks(root: Path) -> tuple[str, ...]:
    path = root / "meta/tasks.parquet"
    if path.exists():
        table = pq.read_table(path)
        column = next(name for name in table.column_names if name != "task_index")
        pairs = zip(table["task_index"].to_pylist(), table[column].to_pylist(), strict=True)
        rows = dict(pairs)
    else:
        rows = {r["task_index"]: r["task"] for r in _read_lines(root / "meta/tasks.jsonl")}
    return tuple(rows[index] for index in sorted(rows))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _append_line(path: Path, row: object) -> None:
    text = path.read_text(encoding="utf-8")
    separator = "" if not text or text.endswith("\n") else "\n"
    line = json.dumps(row, ensure_ascii=False)
    path.write_text(f"{text}{separator}{line}\n", encoding="utf-8", newline="\n")
