"""Mixtures of tiny datasets, and chunks recovered from what sampling keeps of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from opentau_prep.config.load import load_mixture
from opentau_prep.context import RunContext
from opentau_prep.demo.spec import EpisodeData
from opentau_prep.metadata.resolve import ResolvedMixture, resolve_mixture
from opentau_prep.tokenizer.options import FitOptions
from opentau_prep.tokenizer.prepare import Sampling, sample_mixture
from opentau_prep.tokenizer.quantize import dequantize


def mixture(folder: Path, *roots: Path, **fields: Any) -> ResolvedMixture:
    """Return the mixture of some datasets; `entries` holds more fields of each."""
    more = fields.pop("entries", [{}] * len(roots))
    entries = [
        {"repo_id": f"t/{root.name}", "root": str(root), **extra}
        for root, extra in zip(roots, more, strict=True)
    ]
    path = folder / "mixture.json"
    path.write_text(json.dumps({"datasets": entries, **fields}))
    return resolve_mixture(load_mixture(path))


def counted_episodes(lengths: list[int], dim: int = 2) -> list[EpisodeData]:
    """Return episodes in which every frame is different: actions [frame, 100 * episode, ...]."""
    episodes = []
    for number, length in enumerate(lengths):
        frames = np.zeros((length, dim), dtype=np.float32)
        frames[:, 0] = np.arange(length)
        frames[:, 1:] = 100 * number + np.arange(dim - 1)
        episodes.append(EpisodeData(frames * 0.5, frames))
    return episodes


def sample(resolved: ResolvedMixture, **options: Any) -> Sampling:
    """Sample in this process, with the smallest sensible options."""
    keep_going = options.pop("keep_going", False)
    chosen = {"chunk_size": 6, "action_dim": 4, "total_chunks": 60, **options}
    return sample_mixture(
        resolved, RunContext(workers=1, keep_going=keep_going), FitOptions(**chosen)
    )


def native_chunks(
    sampling: Sampling, options: dict[str, Any], dataset: int = 0, scale: float = 2000.0
) -> np.ndarray:
    """Return the (n, T, D) native actions of a dataset's chunks, as far as the scale tells."""
    rows = sampling.corpus.dataset == dataset
    steps, dims = options.get("chunk_size", 6), options.get("action_dim", 4)
    values = sampling.corpus.values[0][rows]
    normal = dequantize(values, scale, time_horizon=steps, action_dim=dims)
    return sampling.heads.convention.unnormalize(normal, *sampling.heads.stats_of(dataset))


def raw_episodes(root: Path, column: str = "action") -> dict[int, np.ndarray]:
    """Return episode -> rows, found by the `episode_index` column of every data file."""
    found: dict[int, np.ndarray] = {}
    for path in sorted(root.glob("data/*/*.parquet")):
        table = pq.read_table(path, columns=["episode_index", column])
        index = np.array(table["episode_index"].to_pylist())
        values = np.array(table[column].to_pylist())
        for episode in np.unique(index):
            found[int(episode)] = values[index == episode]
    return found


def window(rows: np.ndarray, start: int, steps: int, *, step: float = 1.0) -> np.ndarray:
    """Return rows start, start + step, ... by Python's own arithmetic; the last row repeats."""
    places = [min(start + k * step, len(rows) - 1) for k in range(steps)]
    return np.array([rows[round(place)] for place in places])
