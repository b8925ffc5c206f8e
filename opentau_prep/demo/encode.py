"""Episodes ready to be laid out: columns, tasks, stats and their place among the dataset's rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from opentau_prep.demo.spec import DatasetSpec, EpisodeData, ListType
from opentau_prep.errors import ConfigError

__all__ = [
    "QUANTILES",
    "Columns",
    "EncodedEpisode",
    "Stats",
    "column_stats",
    "concat_columns",
    "data_schema",
    "dataset_stats",
    "encode_episodes",
    "frame_columns",
    "frame_table",
    "image_stats",
    "json_stats",
    "pool_image_stats",
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


Array = npt.NDArray[Any]
Columns = Mapping[str, Array]


def frame_columns(
    spec: DatasetSpec, episode: EpisodeData, *, episode_index: int, first_row: int
) -> dict[str, Array]:
    """Return every column of one episode as it is stored, in the order of the data files.

    Args:
        spec: The dataset's options.
        episode: The frames, T of them.
        episode_index: The episode's index in the dataset.
        first_row: The first frame's `index`, which counts through the whole dataset.

    Returns:
        Column name to (T,) or (T, D).
    """
    frames = np.arange(len(episode), dtype=np.int64)
    columns: dict[str, Array] = {spec.state_feature: episode.state.astype(spec.float_dtype)}
    if episode.actions is not None:
        columns[spec.action_feature] = episode.actions.astype(spec.float_dtype)
    columns["timestamp"] = (frames / spec.fps).astype(np.float32)
    columns["frame_index"] = frames
    columns["episode_index"] = np.full_like(frames, episode_index)
    columns["index"] = frames + first_row
    columns["task_index"] = np.full_like(frames, episode.task_index)
    columns.update({name: np.asarray(values) for name, values in episode.extra.items()})
    return {name: v for name, v in columns.items() if name not in spec.omit_columns}


def concat_columns(parts: Sequence[Columns]) -> dict[str, Array]:
    """Return the episodes' columns one after the other, as one block."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def data_schema(columns: Columns, *, list_type: ListType, feature_class: str) -> pa.Schema:
    """Return the Arrow schema of a data file, with the metadata that the `datasets` library reads.

    Args:
        columns: One episode's columns.
        list_type: The Arrow type of the vectors.
        feature_class: What `datasets` calls a vector: `Sequence` in v2.x files, `List` in v3.0's.
    """
    fields = [pa.field(name, _arrow_type(values, list_type)) for name, values in columns.items()]
    features: dict[str, Any] = {}
    for name, values in columns.items():
        value = {"dtype": values.dtype.name, "_type": "Value"}
        length = values.shape[-1] if list_type == "fixed_size_list" else -1
        vector = {"feature": value, "length": length, "_type": feature_class}
        features[name] = value if values.ndim == 1 else vector
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=metadata)


def frame_table(columns: Columns, schema: pa.Schema) -> pa.Table:
    """Return the columns as a table of this schema, casting float widths where they differ."""
    arrays = [_to_arrow(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _arrow_type(values: Array, list_type: ListType) -> pa.DataType:
    value = pa.from_numpy_dtype(values.dtype)
    if values.ndim == 1:
        return value
    if list_type == "fixed_size_list":
        return pa.list_(value, values.shape[1])
    return pa.list_(value) if list_type == "list" else pa.large_list(value)


def _to_arrow(values: Array, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_nested(kind):
        return pa.array(values, kind, safe=False)
    flat = pa.array(values.reshape(-1)).cast(kind.value_type, safe=False)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    large = pa.types.is_large_list(kind)
    width = values.shape[1]
    offsets = np.arange(len(values) + 1, dtype=np.int64 if large else np.int32) * width
    builder = pa.LargeListArray if large else pa.ListArray
    return builder.from_arrays(
        pa.array(offsets, pa.int64() if large else pa.int32()), flat, type=kind
    )


QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_IMAGE_QUANTILE_Z = {"q01": -2.3, "q10": -1.3, "q50": 0.0, "q90": 1.3, "q99": 2.3}
_MAX_SAMPLED_IMAGES = 100

FeatureStats = dict[str, npt.NDArray[Any]]
Stats = dict[str, FeatureStats]


def column_stats(columns: Columns, *, quantiles: bool) -> Stats:
    """Return min, max, mean, std (population), count and, if asked, quantiles of each column.

    Args:
        columns: Column name to (T,) or (T, D), all of the same T.
        quantiles: Whether to add exact q01, q10, q50, q90 and q99 (linear interpolation).

    Returns:
        Feature to stat to (D,) float64; min and max keep integers; `count` is (1,) int64. All
        zeros, count included, where T is 0.
    """
    return {name: _one(values, quantiles=quantiles) for name, values in columns.items()}


def _one(values: npt.NDArray[Any], *, quantiles: bool) -> FeatureStats:
    rows = values if values.ndim == 2 else values[:, None]
    if rows.dtype == np.bool_:
        rows = rows.astype(np.int64)
    count = np.array([len(rows)], dtype=np.int64)
    if len(rows) == 0:
        rows = np.zeros((1, rows.shape[1]), dtype=rows.dtype)
    wide = rows.astype(np.float64)
    extremes = rows if rows.dtype.kind in "iu" else wide
    out: FeatureStats = {
        "min": extremes.min(axis=0),
        "max": extremes.max(axis=0),
        "mean": wide.mean(axis=0),
        "std": wide.std(axis=0),
        "count": count,
    }
    if quantiles:
        points = np.quantile(wide, list(QUANTILES.values()), axis=0)
        out.update(dict(zip(QUANTILES, points, strict=True)))
    return out


def image_stats(camera: int, episode_index: int, n_frames: int, *, quantiles: bool) -> FeatureStats:
    """Return made-up but plausible stats of a camera in one episode, (3, 1, 1) each.

    No image exists, so these are a smooth function of the camera and the episode; `count` is the
    number of images a recorder would have sampled.
    """
    channel = np.arange(3, dtype=np.float64).reshape(3, 1, 1)
    mean = 0.45 + 0.03 * camera - 0.02 * channel + 0.001 * (episode_index % 7)
    std = 0.20 + 0.01 * camera + 0.005 * channel
    out: FeatureStats = {
        "min": np.zeros((3, 1, 1)),
        "max": np.ones((3, 1, 1)),
        "mean": mean,
        "std": std,
        "count": np.array([min(n_frames, _MAX_SAMPLED_IMAGES)], dtype=np.int64),
    }
    if quantiles:
        for name, z in _IMAGE_QUANTILE_Z.items():
            out[name] = np.clip(mean + z * std, 0.0, 1.0)
    return out


def pool_image_stats(parts: Sequence[FeatureStats]) -> FeatureStats:
    """Return the whole dataset's stats of a camera from those of its episodes."""
    weights = np.array([part["count"][0] for part in parts], dtype=np.float64)
    weights = (weights / max(weights.sum(), 1.0)).reshape(-1, 1, 1, 1)
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    mean = (weights * stacked["mean"]).sum(axis=0)
    variance = (weights * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(axis=0)
    out: FeatureStats = {
        "min": stacked["min"].min(axis=0),
        "max": stacked["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": stacked["count"].sum(axis=0),
    }
    for name in QUANTILES:
        if name in stacked:
            out[name] = (weights * stacked[name]).sum(axis=0)
    return out
