"""Stats in every format that `forecast` reads, written the way their own tools write them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Columns = Mapping[str, np.ndarray]
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def stats_of(values: np.ndarray) -> dict[str, list[float]]:
    """Return all stats of (N, D) values, by NumPy alone."""
    values = values.astype(np.float64)
    found = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        **{name: np.quantile(values, q, axis=0) for name, q in QUANTILES.items()},
    }
    return {name: array.tolist() for name, array in found.items()}


def write_json(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def lerobot_stats(path: Path, columns: Columns) -> Path:
    """Write a `stats.json`."""
    names = {"state": "observation.state", "actions": "action"}
    return write_json(
        path, {names[k]: {**stats_of(v), "count": [len(v)]} for k, v in columns.items()}
    )


def openpi_stats(path: Path, columns: Columns, *, width: int = 32) -> Path:
    """Write a `norm_stats.json`, zero-padded to the model's width as openpi's script does."""
    found = {}
    for name, values in columns.items():
        padded = np.zeros((len(values), width))
        padded[:, : values.shape[1]] = values
        found[name] = {s: stats_of(padded)[s] for s in ("mean", "std", "q01", "q99")}
    return write_json(path, {"norm_stats": found})


def rlds_statistics(path: Path, datasets: Mapping[str, Columns]) -> Path:
    """Write a `dataset_statistics.json`."""
    names = {"state": "proprio", "actions": "action"}
    return write_json(
        path,
        {
            name: {
                **{names[k]: stats_of(v) for k, v in columns.items()},
                "num_transitions": 100,
                "num_trajectories": 5,
            }
            for name, columns in datasets.items()
        },
    )


def safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write a safetensors file by the format's own description."""
    kinds = {"float32": "F32", "float64": "F64", "uint16": "BF16", "float16": "F16"}
    header, body = {}, b""
    for name, array in tensors.items():
        data = array.tobytes()
        where = [len(body), len(body) + len(data)]
        kind = kinds[str(array.dtype)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": where}
        body += data
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def lerobot_checkpoint(
    folder: Path, columns: Columns, *, mode: str = "MEAN_STD", prefix: str = ""
) -> Path:
    """Write what LeRobot 0.4 saves of a policy's normalizer, and nothing else."""
    names = {"state": "observation.state", "actions": "action"}
    tensors = {
        f"{prefix}{names[k]}.{stat}": np.float32(values)
        for k, v in columns.items()
        for stat, values in stats_of(v).items()
    }
    file = "policy_preprocessor_step_3_normalizer_processor.safetensors"
    safetensors(folder / file, tensors)
    norm_map = {"STATE": mode, "ACTION": mode, "VISUAL": "IDENTITY"}
    step = {
        "registry_name": "normalizer_processor",
        "config": {"eps": 1e-8, "features": {}, "norm_map": norm_map},
        "state_file": file,
    }
    write_json(
        folder / "policy_preprocessor.json", {"name": "policy_preprocessor", "steps": [step]}
    )
    return folder
