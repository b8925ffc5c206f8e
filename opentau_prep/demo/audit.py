"""A mixture of one shared head: members that resemble each other, some wrong on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from opentau_prep.demo.encode import write_json
from opentau_prep.demo.spec import (
    DatasetSpec,
    DemoDataset,
    DemoTask,
    EpisodeData,
    Version,
    demo_episodes,
)
from opentau_prep.demo.target import write_folder
from opentau_prep.demo.trajectories import ARM6, ARM6_POSE
from opentau_prep.demo.write import write_dataset
from opentau_prep.errors import ConfigError

__all__ = ["DEFAULT_FAULTS", "FAULT_DIMS", "Fault", "write_audit_demo"]

Fault = Literal["degrees", "ticks", "swapped_dims", "inverted_gripper", "pose_as_joint"]
Array = npt.NDArray[Any]

DEFAULT_FAULTS: Final = ((3, "degrees"), (7, "swapped_dims"))
FAULT_DIMS: Final = (
    ("degrees", (0, 1, 2, 3, 4)),
    ("ticks", (0, 1, 2, 3, 4, 5)),
    ("swapped_dims", (1, 2)),
    ("inverted_gripper", (5,)),
    ("pose_as_joint", (0, 1, 2, 3, 4, 5)),
)
_VERSIONS: Final[tuple[Version, ...]] = ("v2.1", "v3.0", "v2.0")
_TICKS_PER_TURN = 4096
_OBJECTS: Final = ("cube", "cup", "bottle", "sponge", "bowl", "spoon", "box", "ball", "pen", "can")


def write_audit_demo(
    out: Path,
    *,
    n_datasets: int = 12,
    faults: Mapping[int, Fault] | None = None,
    episodes_per_dataset: int = 6,
) -> Path:
    """Write datasets of one robot and control mode, so of one head; return the mixture's JSON file.

    Each dataset has tasks of its own, so means and ranges vary as they do among real datasets. They
    are `demo/audit_00`, `demo/audit_01`, ... in turn v2.1, v3.0 and v2.0.

    Args:
        out: The folder, as in `write_demo`.
        n_datasets: How many.
        faults: What is wrong with which dataset, by its number: `degrees` (joints, not radians),
            `ticks` (motor ticks), `swapped_dims` (shoulder lift and elbow), `inverted_gripper`
            (1 is closed), `pose_as_joint` (hand poses labelled `joint`). None: degrees in 3
            and swapped dims in 7. An empty mapping: nothing is wrong.
        episodes_per_dataset: How many demonstrations each.

    Raises:
        ArtifactError: See `write_demo`.
        ConfigError: A fault that does not exist, or of a dataset that does not.
    """
    chosen = dict(DEFAULT_FAULTS if faults is None else faults)
    for number, fault in chosen.items():
        if fault not in get_args(Fault) or not 0 <= number < n_datasets:
            raise ConfigError(
                f"fault {fault!r} of dataset {number} is not known",
                hint=f"Use {', '.join(get_args(Fault))} for datasets 0 to {n_datasets - 1}.",
            )

    def write(folder: Path) -> None:
        entries = []
        for number in range(n_datasets):
            dataset = _audit_dataset(number, episodes_per_dataset)
            _write_one(folder, dataset, chosen.get(number))
            root = f"datasets/{dataset.repo_id}"
            entries.append({"repo_id": dataset.repo_id, "root": root})
        write_json(folder / "mixture.json", {"datasets": entries, "weights": None})

    labels = [f"{number}:{fault}" for number, fault in sorted(chosen.items())]
    made_as = f"audit {n_datasets}x{episodes_per_dataset} {' '.join(labels)}".rstrip()
    return write_folder(out, write, made_as=made_as)


def _audit_dataset(number: int, n_episodes: int) -> DemoDataset:
    thing = _OBJECTS[number % len(_OBJECTS)]
    return DemoDataset(
        repo_id=f"demo/audit_{number:02d}",
        robot=ARM6,
        tasks=(
            DemoTask(f"pick up the {thing}", n_episodes - n_episodes // 2, 3.0),
            DemoTask(f"put the {thing} away", n_episodes // 2, 3.0),
        ),
        spec=DatasetSpec(_VERSIONS[number % len(_VERSIONS)], "demo_arm6", "joint", 10),
        seed=500 + number,
    )


def _write_one(folder: Path, dataset: DemoDataset, fault: str | None) -> None:
    if fault == "pose_as_joint":
        dataset = replace(dataset, robot=ARM6_POSE)
    tasks = tuple(task.text for task in dataset.tasks)
    spec = replace(dataset.spec, tasks=tasks, state_names=ARM6.names, action_names=ARM6.names)
    episodes = demo_episodes(dataset)
    if fault is not None:
        episodes = [_with_fault(episode, fault) for episode in episodes]
    write_dataset(folder / "datasets" / dataset.repo_id, spec, episodes)


def _with_fault(episode: EpisodeData, fault: str) -> EpisodeData:
    assert episode.actions is not None
    state, actions = _broken(episode.state, fault), _broken(episode.actions, fault)
    return replace(episode, state=state, actions=actions)


def _broken(values: Array, fault: str) -> Array:
    """Return (T, 6) values with the fault; the dims it touches are listed in `FAULT_DIMS`."""
    out = values.astype(np.float64)
    gripper = ARM6.grippers[0]
    if fault == "degrees":
        out[:, :gripper] *= 180 / np.pi
    elif fault == "ticks":
        out[:, :gripper] = np.rint((out[:, :gripper] / (2 * np.pi) + 0.5) * _TICKS_PER_TURN)
        out[:, gripper] = np.rint(out[:, gripper] * _TICKS_PER_TURN / 4)
    elif fault == "swapped_dims":
        out[:, [1, 2]] = out[:, [2, 1]]
    elif fault == "inverted_gripper":
        out[:, gripper] = 1 - out[:, gripper]
    else:  # hand poses: the robot was another one already; x, y, z, roll, pitch, gripper
        out = out[:, [0, 1, 2, 3, 4, 6]]
    return out.astype(np.float32)
