"""Frames as columns: one episode's arrays to the columns of a data file, and those to Arrow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from opentau_prep.demo.spec import DatasetSpec, EpisodeData, ListType

__all__ = ["Columns", "concat_columns", "data_schema", "frame_columns", "frame_table"]

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
