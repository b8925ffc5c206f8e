"""The arithmetic of speed buckets; nothing here reads a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

__all__ = [
    "MIN_DISTINCT_LENGTHS",
    "PERCENTILES",
    "SPARSE_BUCKET",
    "Percentiles",
    "bucket_episode_length",
    "compute_task_percentiles",
]

Percentiles = list[float] | None
"""Episode lengths in frames at p5, p15, ..., p95; None when a task has too few distinct lengths."""

PERCENTILES = (5, 15, 25, 35, 45, 55, 65, 75, 85, 95)
MIN_DISTINCT_LENGTHS = 10
SPARSE_BUCKET = 50


def compute_task_percentiles(
    lengths_by_task: Mapping[int, Iterable[int]],
) -> dict[int, Percentiles]:
    """Return the percentiles of the episode lengths of each task.

    Args:
        lengths_by_task: task_index -> episode lengths in frames, in any order.

    Returns:
        task_index -> ten lengths (NumPy's linear interpolation between order statistics), or None
        for a task with fewer than ten distinct lengths; in order of task_index.
    """
    return {
        int(task): _percentiles(np.fromiter(lengths_by_task[task], dtype=np.int64))
        for task in sorted(lengths_by_task)
    }


def _percentiles(lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Percentiles:
    if len(np.unique(lengths)) < MIN_DISTINCT_LENGTHS:
        return None
    return [float(p) for p in np.percentile(lengths, PERCENTILES)]


def bucket_episode_length(length: int, percentiles: Sequence[float] | None) -> int:
    """Return the speed bucket of an episode: 0 (shorter than p5) to 100 (p95 or longer), by tens.

    Args:
        length: Frames.
        percentiles: The task's, or None for a sparse or unknown task.

    Returns:
        Ten times the number of percentiles that are at most `length`; 50 without percentiles.

    Example:
        >>> bucket_episode_length(20, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100])
        20
    """
    if percentiles is None:
        return SPARSE_BUCKET
    return 10 * int(np.searchsorted(percentiles, length, side="right"))
