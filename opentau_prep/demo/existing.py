"""What has to be known of a dataset on disk before an episode can be added to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from opentau_prep.demo.info import DATA_PATH_V2, DATA_PATH_V3
from opentau_prep.demo.spec import DatasetSpec
from opentau_prep.errors import MetadataError

__all__ = ["ExistingDataset", "data_file_v2", "load_existing", "read_all_columns"]

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
