"""One dataset of the demo: a robot, its tasks, and the episodes that show them."""

from __future__ import annotations

from dataclasses import dataclass

from opentau_prep.demo.spec import DatasetSpec, EpisodeData
from opentau_prep.demo.trajectories import Robot, demonstrate, demonstration_lengths

__all__ = ["DemoDataset", "DemoTask", "demo_episodes"]


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
