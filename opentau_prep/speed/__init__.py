"""Speed buckets: how fast an episode is among those of its task."""

from opentau_prep.speed.compute import prepare_speed
from opentau_prep.speed.report import SpeedReport
from opentau_prep.speed.rows import bucket_episode_length, compute_task_percentiles
from opentau_prep.speed.training import load_or_compute_speed_percentiles

__all__ = [
    "SpeedReport",
    "bucket_episode_length",
    "compute_task_percentiles",
    "load_or_compute_speed_percentiles",
    "prepare_speed",
]
