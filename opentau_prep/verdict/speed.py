"""The speed percentiles' part of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.errors import PrepError
from opentau_prep.speed import bucket_episode_length
from opentau_prep.speed.compute import inspect_speed
from opentau_prep.speed.rows import PERCENTILES, SpeedRow, decode_rows
from opentau_prep.speed.tasks import tasks_of_tables
from opentau_prep.verdict.artifacts import names_of
from opentau_prep.verdict.details import SpeedFacts, TaskFacts

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["speed_facts"]

MAX_TASKS = 12
_BARS = 30


def speed_facts(resolved: ResolvedMixture, context: RunContext) -> Iterator[SpeedFacts]:
    """Yield the percentiles of every dataset, and the buckets of the episodes that are selected.

    An episode's task is the one that the tables tell: data files are not opened.
    """
    for entry in resolved.first_entries:
        names = names_of(resolved, entry)
        try:
            found = inspect_speed(entry, artifact_root=context.artifact_root)
            if found.content is None:
                yield SpeedFacts(names, fault="no file")
                continue
            rows = decode_rows(found.content, str(found.path))
            yield _of_rows(names, rows, _lengths(resolved, entry))
        except PrepError as fault:
            yield SpeedFacts(names, fault=str(fault))


def _lengths(resolved: ResolvedMixture, entry: ResolvedEntry) -> dict[int | None, list[int]]:
    """Return task -> the lengths of the selected episodes; None is an unknown task."""
    meta = entry.meta
    selected = [each.episodes for each in resolved.entries_of(entry.dataset)]
    episodes = np.unique(np.concatenate(selected))
    tasks = tasks_of_tables(meta, episodes).task_index
    found: dict[int | None, list[int]] = {}
    for episode in episodes.tolist():
        length = int(meta.episodes.length[meta.episodes.position(episode)])
        found.setdefault(tasks.get(episode), []).append(length)
    return found


def _of_rows(
    names: Sequence[str], rows: Sequence[SpeedRow], lengths: Mapping[int | None, Sequence[int]]
) -> SpeedFacts:
    there = {row.task_index for row in rows}
    largest = sorted(rows, key=lambda row: (-row.n_episodes, row.task_index))[:MAX_TASKS]
    tasks = [
        TaskFacts(
            row.task_index,
            row.task,
            row.n_episodes,
            row.percentiles,
            _buckets(lengths.get(row.task_index, ()), row.percentiles),
            *_histogram(lengths.get(row.task_index, ())),
        )
        for row in sorted(largest, key=lambda row: row.task_index)
    ]
    return SpeedFacts(
        names,
        tasks,
        len(rows),
        sum(row.percentiles is None for row in rows),
        sorted(task for task in lengths if task is not None and task not in there),
        len(lengths.get(None, ())),
    )


def _buckets(lengths: Sequence[int], percentiles: Sequence[float] | None) -> list[int]:
    counts = [0] * (len(PERCENTILES) + 1)
    for length in lengths:
        counts[bucket_episode_length(length, percentiles) // 10] += 1
    return counts


def _histogram(lengths: Sequence[int]) -> tuple[list[float], list[int]]:
    """Return edges and counts of episode lengths, in whole frames; nothing where there are none."""
    if not lengths:
        return [], []
    low, high = min(lengths), max(lengths) + 1
    step = max(1, -(-(high - low) // _BARS))
    edges = np.arange(low, low + step * (-(-(high - low) // step)) + 1, step)
    counts, _ = np.histogram(lengths, edges)
    return edges.astype(float).tolist(), counts.tolist()
