"""Many or big datasets, quickly: what benchmarks are run on.

Values are uniform noise out of one block that is drawn once; episodes are windows of it, so that no
two begin alike. `write_many` lays out a few different datasets in full and copies them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from opentau_prep.demo.encode import write_json
from opentau_prep.demo.spec import DatasetSpec, EpisodeData, Version
from opentau_prep.demo.write import write_dataset
from opentau_prep.errors import ConfigError

__all__ = ["noise_episodes", "write_big", "write_many"]

_N_PATTERNS = 16
_STRIDE = 7


def noise_episodes(lengths: Sequence[int], *, dim: int, seed: int = 0) -> list[EpisodeData]:
    """Return episodes of float32 noise in [-1, 1), each a view into one shared block.

    Args:
        lengths: Frames an episode.
        dim: Width of state and of actions.
        seed: Of the block.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    n_rows = max(lengths) + _STRIDE * 1024
    block = (rng.random((n_rows, 2 * dim)) * 2 - 1).astype(np.float32)
    episodes = []
    for number, length in enumerate(lengths):
        start = number * _STRIDE % (n_rows - length + 1)
        rows = block[start : start + length]
        episodes.append(EpisodeData(rows[:, :dim], rows[:, dim:]))
    return episodes


def write_big(
    root: Path,
    *,
    n_frames: int = 600_000,
    n_episodes: int = 2_000,
    version: Version = "v2.1",
    n_files: int | None = None,
    dim: int = 14,
    seed: int = 0,
) -> None:
    """Write one dataset of many frames: in v2.x one file per episode, in v3.0 `n_files` files.

    Args:
        root: The dataset's root.
        n_frames: Frames in all; spread over the episodes as evenly as whole numbers allow.
        n_episodes: Episodes in all.
        version: The format.
        n_files: v3.0: about how many data files; None: one.
        dim: Width of state and of actions.
        seed: Of the values.

    Raises:
        ArtifactError: The folder holds a dataset already.
        ConfigError: Fewer than one frame an episode.
    """
    if not 1 <= n_episodes <= n_frames:
        raise ConfigError(f"{n_frames} frames cannot make {n_episodes} episodes")
    edges = [n_frames * i // n_episodes for i in range(n_episodes + 1)]
    lengths = [end - start for start, end in pairwise(edges)]
    per_file = -(-n_episodes // n_files) if n_files else None
    spec = DatasetSpec(version, "bench_arm", "joint", 30, episodes_per_file=per_file)
    write_dataset(root, spec, noise_episodes(lengths, dim=dim, seed=seed))


def write_many(
    out: Path,
    n_datasets: int,
    *,
    version: Version = "v2.1",
    n_episodes: int = 4,
    episode_frames: int = 50,
    dim: int = 7,
    n_robots: int = 10,
    data: bool = False,
    **of_spec: Any,
) -> Path:
    """Write a mixture of many small datasets; return its JSON file.

    Args:
        out: A folder that does not exist or is empty.
        n_datasets: How many, `bench/00000` and on, below `datasets/`.
        version: The format of all of them.
        n_episodes: Episodes a dataset.
        episode_frames: Frames an episode, give or take its number.
        dim: Width of state and of actions.
        n_robots: Over how many robot types (so heads) they are spread.
        data: Whether frames are written; without, they serve whatever reads metadata only.
        **of_spec: More of their `DatasetSpec`, such as `cameras`.

    Raises:
        ConfigError: The folder is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError("the folder is not empty", where=str(out), hint="Choose another one.")
    patterns = out / ".patterns"
    for number in range(min(_N_PATTERNS, n_datasets)):
        lengths = [episode_frames + number + i for i in range(n_episodes)]
        spec = DatasetSpec(version, "bench_00", "joint", 30, episodes_per_file=2, **of_spec)
        episodes = noise_episodes(lengths, dim=dim, seed=number)
        write_dataset(patterns / str(number), spec, episodes, data=data)
    entries = []
    for number in range(n_datasets):
        repo_id = f"bench/{number:05d}"
        root = out / "datasets" / repo_id
        shutil.copytree(patterns / str(number % _N_PATTERNS), root, copy_function=shutil.copyfile)
        info = root / "meta/info.json"
        content = json.loads(info.read_text(encoding="utf-8"))
        write_json(info, {**content, "robot_type": f"bench_{number % n_robots:02d}"})
        entries.append({"repo_id": repo_id, "root": f"datasets/{repo_id}"})
    shutil.rmtree(patterns)
    write_json(out / "mixture.json", {"datasets": entries, "weights": None})
    return out / "mixture.json"
