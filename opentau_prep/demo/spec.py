"""What a made-up dataset consists of: its options (`DatasetSpec`) and episodes (`EpisodeData`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from opentau_prep.demo.trajectories import Robot, demonstrate, demonstration_lengths
from opentau_prep.errors import ConfigError

__all__ = [
    "ABSENT",
    "Absent",
    "DatasetSpec",
    "DemoDataset",
    "DemoTask",
    "EpisodeData",
    "ListType",
    "Version",
    "demo_episodes",
]

Version = Literal["v2.0", "v2.1", "v3.0"]
ListType = Literal["fixed_size_list", "list", "large_list"]
Array = npt.NDArray[Any]

_CHOICES = {
    "version": ("v2.0", "v2.1", "v3.0"),
    "list_type": ("fixed_size_list", "list", "large_list"),
    "float_dtype": ("float32", "float64"),
}
_AT_LEAST_ONE = ("chunks_size", "episodes_per_file", "episodes_per_row_group", "rows_per_meta_file")


class Absent(Enum):
    """The type of `ABSENT`: a key that info.json lacks, which is not the same as null."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True)
class EpisodeData:
    """One episode's frames.

    Attributes:
        state: (T, D) in dataset units, written as the spec's float dtype.
        actions: (T, D), its own D; None for a dataset without actions.
        task_index: The row of `DatasetSpec.tasks` that every frame names.
        task_strings: The strings of the episodes table when they are not the task's own (real
            datasets paraphrase); None takes `tasks[task_index]`.
        extra: More columns, (T,) or (T, D), written in their own dtype. A standard column's name
            (`timestamp`, `task_index`, ...) replaces that column.
    """

    state: Array
    actions: Array | None
    task_index: int = 0
    task_strings: tuple[str, ...] | None = None
    extra: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {"state": len(self.state)}
        if self.actions is not None:
            lengths["actions"] = len(self.actions)
        lengths.update({name: len(values) for name, values in self.extra.items()})
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"the columns of an episode differ in length: {lengths}")
        if self.state.ndim != 2 or (self.actions is not None and self.actions.ndim != 2):
            raise ConfigError("state and actions of an episode must have the shape (T, D)")

    def __len__(self) -> int:
        return len(self.state)


@dataclass(frozen=True)
class DatasetSpec:
    """Everything about a dataset but its frames.

    Attributes:
        version: The format it is written in.
        robot_type: info.json's field; None is null, `ABSENT` leaves the key out.
        control_mode: The same for `control_mode`, which most published datasets lack.
        fps: Frames a second, int or float, kept as it is.
        tasks: The task strings; a task's index is its place.
        state_feature: The state column's name.
        action_feature: The action column's name.
        state_names: info.json's names of the state dims; None makes some up.
        action_names: The same for the action dims.
        cameras: Video features declared in info.json and in the stats; no video is written.
        list_type: The Arrow type of the vectors in the data files.
        float_dtype: The width of the vectors in the data files (info.json says the same).
        quantiles: Whether the stats carry q01, q10, q50, q90 and q99.
        chunks_size: Episodes (v2.x) or files (v3.0) a chunk folder.
        episodes_per_file: v3.0: episodes a data file; None puts all in one.
        episodes_per_row_group: v3.0: episodes a row group, as one file holds several.
        rows_per_meta_file: v3.0: episodes a file of `meta/episodes`; None puts all in one.
        task_column: v3.0: what tasks.parquet calls the task string (an unnamed pandas index is
            stored as `__index_level_0__`; later writers name it `task`).
        omit_columns: Frame columns that the dataset does not have at all, such as `index`.
    """

    version: Version = "v2.1"
    robot_type: str | Absent | None = "demo_arm"
    control_mode: str | Absent | None = ABSENT
    fps: float = 30
    tasks: tuple[str, ...] = ("put the block into the box",)
    state_feature: str = "observation.state"
    action_feature: str = "action"
    state_names: tuple[str, ...] | None = None
    action_names: tuple[str, ...] | None = None
    cameras: tuple[str, ...] = ()
    list_type: ListType = "fixed_size_list"
    float_dtype: Literal["float32", "float64"] = "float32"
    quantiles: bool = False
    chunks_size: int = 1000
    episodes_per_file: int | None = None
    episodes_per_row_group: int = 1
    rows_per_meta_file: int | None = None
    task_column: str = "__index_level_0__"
    omit_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value!r}, expected at least 1")
        if not np.isfinite(self.fps) or self.fps <= 0:
            raise ConfigError(f"fps is {self.fps!r}, expected a positive number")


@dataclass(frozen=True)
class DemoTask:
    """One task of a demo dataset.

    Attributes:
        text: The task string.
        n_episodes: How many demonstrations.
        usual_s: The usual duration in seconds.
        distinct: At most so many different lengths; None: about one per episode.
    """

    text: str
    n_episodes: int
    usual_s: float
    distinct: int | None = None


@dataclass(frozen=True)
class DemoDataset:
    """One dataset: how it is driven, what is done in it, how it is stored.

    Attributes:
        repo_id: Its name; also its folder below `datasets/`.
        robot: Dims, limits and names.
        tasks: Tasks in order of their index; episodes take turns between them.
        spec: Format and options (tasks and names are filled in from the above).
        seed: Of the trajectories.
    """

    repo_id: str
    robot: Robot
    tasks: tuple[DemoTask, ...]
    spec: DatasetSpec
    seed: int


def demo_episodes(dataset: DemoDataset) -> list[EpisodeData]:
    """Return the dataset's episodes: its tasks' demonstrations, taking turns."""
    turns: list[tuple[int, int, int]] = []  # (demonstration, task, frames)
    for index, task in enumerate(dataset.tasks):
        lengths = demonstration_lengths(
            task.n_episodes,
            usual_s=task.usual_s,
            fps=dataset.spec.fps,
            seed=dataset.seed * 100 + index,
            distinct=task.distinct,
        )
        turns += [(number, index, length) for number, length in enumerate(lengths)]
    episodes = []
    for number, task_index, length in sorted(turns):
        motion = demonstrate(
            dataset.robot,
            n_frames=length,
            task_seed=dataset.seed * 100 + task_index,
            episode_seed=number,
        )
        episodes.append(EpisodeData(motion.state, motion.actions, task_index))
    return episodes
