"""The demo mixture: seven small datasets that show, between them, what a mixture can hold.

`DEMO_DATASETS` is a table to be read; `mixture_json` shows how a mixture file names them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from opentau_prep.demo.audit import write_audit_demo
from opentau_prep.demo.encode import write_json
from opentau_prep.demo.spec import DatasetSpec, DemoDataset, DemoTask, EpisodeData, demo_episodes
from opentau_prep.demo.target import check_folder, write_folder
from opentau_prep.demo.trajectories import (
    ARM6,
    ARM6_POSE,
    ARM8,
    BIMANUAL14,
    HUMANOID26,
    MOBILE11,
)
from opentau_prep.demo.write import write_dataset
from opentau_prep.errors import ConfigError

__all__ = [
    "DEMO_DATASETS",
    "check_demo_folder",
    "mixture_json",
    "write_demo",
    "write_demo_dataset",
]


_STANDARD: Final = "standard"


DEMO_DATASETS: Final = (
    # Two datasets of one robot and control mode: one shared head, from different fps and formats.
    DemoDataset(
        "demo/arm6_pick",
        ARM6,
        (
            DemoTask("pick up the red cube", 16, 4.0),
            DemoTask("open the small drawer", 5, 3.0),  # too few lengths for speed buckets
        ),
        DatasetSpec("v3.0", "demo_arm6", "joint", 30, episodes_per_file=8),
        seed=11,
    ),
    DemoDataset(
        "demo/arm6_stack",
        ARM6,
        (DemoTask("stack the blue block on the green one", 14, 5.0),),
        DatasetSpec("v2.1", "demo_arm6", "joint", 20, chunks_size=5),
        seed=12,
    ),
    # The same robot driven by the pose of its hand: another head.
    DemoDataset(
        "demo/arm6_pose",
        ARM6_POSE,
        (DemoTask("pour the cup into the bowl", 12, 6.0),),
        DatasetSpec("v3.0", "demo_arm6", "ee", 10, quantiles=True),
        seed=13,
    ),
    # Listed twice in the mixture, each time with other episodes.
    DemoDataset(
        "demo/bimanual_fold",
        BIMANUAL14,
        (
            DemoTask("fold the towel in half", 12, 4.0),
            DemoTask("hand the sponge over", 8, 2.0, distinct=2),  # fixed durations
        ),
        DatasetSpec("v2.1", "demo_bimanual", "joint", 25),
        seed=14,
    ),
    # v2.0: whole-dataset stats without counts.
    DemoDataset(
        "demo/humanoid_carry",
        HUMANOID26,
        (DemoTask("carry the box to the table", 14, 5.0),),
        DatasetSpec("v2.0", "demo_humanoid", "joint", 15),
        seed=15,
    ),
    # An old dataset without tags, with the older column names: falls back to a head of its own.
    DemoDataset(
        "demo/old_push",
        ARM8,
        (DemoTask("push the button", 6, 4.0),),
        DatasetSpec(
            "v2.1",
            None,
            fps=12.5,
            state_feature="state",
            action_feature="actions",
            list_type="list",
            float_dtype="float64",
        ),
        seed=16,
    ),
    # A mobile base that the mixture leaves out; the control mode is given by the mixture.
    DemoDataset(
        "demo/mobile_wipe",
        MOBILE11,
        (
            DemoTask("wipe the table with the cloth", 10, 3.0),
            DemoTask("wipe the table with the sponge", 4, 3.0),
        ),
        DatasetSpec(
            "v3.0", "demo_mobile", fps=50, quantiles=True, episodes_per_file=6, chunks_size=2
        ),
        seed=17,
    ),
)


def write_demo(out: Path, *, variant: Literal["standard", "audit"] = "standard") -> Path:
    """Write a small mixture of several robots and all three formats; return its JSON file.

    The folder appears whole or not at all. A second call leaves a demo that is there as it is,
    with whatever was written into it since.

    Args:
        out: The folder; must not exist, be empty, or hold the same variant.
        variant: `audit` is `write_audit_demo` with its default faults.

    Raises:
        ArtifactError: The folder holds something else, or cannot be written.
        ConfigError: There is no such variant.
    """
    if variant == "audit":
        return write_audit_demo(out)
    if variant != "standard":
        raise ConfigError(f"there is no demo variant {variant!r}", hint="Use standard or audit.")
    return write_folder(out, _write_standard, made_as=_STANDARD)


def check_demo_folder(out: Path) -> Path:
    """Return the mixture file that `write_demo(out)` would give; nothing is written.

    Raises:
        ArtifactError: The folder holds something else.
    """
    return check_folder(out, made_as=_STANDARD)


def mixture_json() -> dict[str, Any]:
    """Return the content of mixture.json."""

    def entry(name: str, **fields: object) -> dict[str, Any]:
        return {"repo_id": f"demo/{name}", "root": f"datasets/demo/{name}", **fields}

    # Keys next to "$ref" are laid over what the file holds: one part, used twice.
    bimanual = {"$ref": "parts/bimanual_fold.json", "root": "datasets/demo/bimanual_fold"}
    arm = list(range(3, MOBILE11.dim))
    return {
        "datasets": [
            entry("arm6_pick"),
            entry("arm6_stack", excluded_episodes=[3]),
            entry("arm6_pose"),
            {**bimanual, "episodes": list(range(12))},
            {**bimanual, "excluded_episodes": list(range(12))},
            entry("humanoid_carry"),
            entry("old_push", data_features_name_mapping={"state": "state", "actions": "actions"}),
            entry("mobile_wipe", control_mode="joint", state_index=arm, action_index=arm),
        ],
        "weights": [0.2, 0.15, 0.1, 0.15, 0.1, 0.1, 0.05, 0.15],
        "action_freq": 10.0,
        "vector_resample_strategy": "nearest",
        "val_split_ratio": 0.1,
    }


def _bimanual_part() -> dict[str, Any]:
    mapping = {
        "state": "observation.state",
        "actions": "action",
    }
    return {"repo_id": "demo/bimanual_fold", "data_features_name_mapping": mapping}


def _write_standard(folder: Path) -> None:
    for dataset in DEMO_DATASETS:
        write_demo_dataset(folder, dataset)
    write_json(folder / "parts/bimanual_fold.json", _bimanual_part())
    write_json(folder / "mixture.json", mixture_json())


def write_demo_dataset(
    folder: Path, dataset: DemoDataset, episodes: list[EpisodeData] | None = None
) -> None:
    """Write one dataset below `datasets/` of a demo folder; `episodes` replaces its own."""
    tasks = tuple(task.text for task in dataset.tasks)
    names = dataset.robot.names
    spec = replace(dataset.spec, tasks=tasks, state_names=names, action_names=names)
    episodes = demo_episodes(dataset) if episodes is None else episodes
    write_dataset(folder / "datasets" / dataset.repo_id, spec, episodes)
