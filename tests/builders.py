"""Tiny datasets in one call, and copies of published ones, for any test.

from builders import copy_real, tiny_dataset, tiny_episodes
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from opentau_prep.demo.spec import DatasetSpec, EpisodeData, Version
from opentau_prep.demo.write import write_dataset

VERSIONS: tuple[Version, ...] = ("v2.0", "v2.1", "v3.0")


def tiny_episodes(
    n_episodes: int = 3,
    *,
    lengths: Sequence[int] | None = None,
    state_dim: int = 3,
    action_dim: int = 2,
    task_indices: Sequence[int] | None = None,
    seed: int = 0,
) -> list[EpisodeData]:
    """Return episodes of random float32 frames in [-1, 1), 5, 8, 11, ... frames long by default.

    Args:
        n_episodes: How many; ignored where `lengths` says it.
        lengths: Frames an episode.
        state_dim: Width of the state.
        action_dim: Width of the actions.
        task_indices: The episodes' tasks; all 0 by default.
        seed: Of the values.
    """
    if lengths is None:
        lengths = [5 + 3 * i for i in range(n_episodes)]
    tasks = task_indices or [0] * len(lengths)
    rng = np.random.Generator(np.random.PCG64(seed))

    def frames(length: int, dim: int) -> npt.NDArray[np.float32]:
        return (rng.random((length, dim)) * 2 - 1).astype(np.float32)

    return [
        EpisodeData(frames(length, state_dim), frames(length, action_dim), task)
        for length, task in zip(lengths, tasks, strict=True)
    ]


def tiny_dataset(
    parent: Path,
    version: Version = "v2.1",
    n_episodes: int = 3,
    *,
    name: str = "tiny",
    episodes: Sequence[EpisodeData] | None = None,
    lengths: Sequence[int] | None = None,
    state_dim: int = 3,
    action_dim: int = 2,
    task_indices: Sequence[int] | None = None,
    seed: int = 0,
    data: bool = True,
    **options: Any,
) -> Path:
    """Write a dataset to `parent / name` and return that root.

    Args:
        parent: A folder, mostly `tmp_path`.
        version: The format; in v3.0, two or more episodes share a file unless told otherwise.
        n_episodes: How many; ignored where `lengths` or `episodes` says it.
        name: The root's name, may hold slashes.
        episodes: The frames themselves, instead of `tiny_episodes`.
        lengths: See `tiny_episodes`, as for the next four.
        state_dim: Width of the state.
        action_dim: Width of the actions.
        task_indices: The episodes' tasks; as many task strings are made up as they need.
        seed: Of the values.
        data: False leaves `data/` out.
        **options: Any field of `DatasetSpec`.
    """
    if episodes is None:
        episodes = tiny_episodes(
            n_episodes,
            lengths=lengths,
            state_dim=state_dim,
            action_dim=action_dim,
            task_indices=task_indices,
            seed=seed,
        )
    n_tasks = 1 + max(episode.task_index for episode in episodes)
    options.setdefault("tasks", tuple(f"do task {i}" for i in range(n_tasks)))
    root = parent / name
    write_dataset(root, DatasetSpec(version=version, **options), episodes, data=data)
    return root


def real_data_dir() -> Path:
    """Return the folder of published datasets, or skip the test where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("OPENTAU_PREP_REAL_DATA", beside))
    if not path.is_dir():
        pytest.skip("no published datasets here (set OPENTAU_PREP_REAL_DATA)")
    return path


def copy_real(name: str, parent: Path) -> Path:
    """Copy a published dataset to `parent / name` (writable) and return that, or skip the test.

    Args:
        name: `g1_pick_bottle` (v2.1, 100 episodes) or `so101_record_test` (v3.0, 4 episodes).
        parent: A folder, mostly `tmp_path`.
    """
    source = real_data_dir() / name
    if not source.is_dir():
        pytest.skip(f"the published dataset {name} is not here")
    target = parent / name
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    return target
