"""Sampling a mixture: the quantized chunks of all its datasets, in mixture order.

The corpus is allocated once, and every job's chunks are put where they belong, whichever finishes
first: the same seed gives the same corpus for any number of workers and on any engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.engine import Failure
from opentau_prep.errors import DataError
from opentau_prep.frames.rows import DataPart, data_parts
from opentau_prep.notices import some_names, warn
from opentau_prep.tokenizer.evaluate import ErrorSums
from opentau_prep.tokenizer.gather import ChunkRecipe, Sampled, SampleJob, sample_files

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.tokenizer.plan import DatasetPlan

__all__ = ["Corpus", "sample_corpus"]

Values = npt.NDArray[np.integer[Any]]

_JOB_FILES = 100
_JOB_CHUNKS = 4_000
# Below this, starting processes costs more than the work: bench_tokenizer.py.
_SMALL_FILES = 200
_SMALL_CHUNKS = 40_000


@dataclass(frozen=True)
class Corpus:
    """Quantized chunks in mixture order; R of them.

    Attributes:
        values: (R, T * D) int16 or int32 for each scale.
        dataset: (R,) int64, position of each chunk's dataset among the plans.
        is_held: (R,) whether it is held out.
        in_share: (R,) whether it is held out and stands for its dataset in the mixture's
            proportions; those that are there only to measure a small dataset are not.
        errors: What quantization loses of held-out chunks, for each scale and dataset.
        n_left_out: Chunks without finite numbers, by dataset.
        failures: Datasets that could not be sampled.
    """

    values: tuple[Values, ...]
    dataset: npt.NDArray[np.int64]
    is_held: npt.NDArray[np.bool_]
    in_share: npt.NDArray[np.bool_]
    errors: tuple[tuple[ErrorSums | None, ...], ...]
    n_left_out: tuple[int, ...]
    failures: tuple[Failure, ...]

    def counts(self, n_datasets: int) -> list[int]:
        """Return how many chunks there are to fit on, by dataset."""
        found = np.bincount(self.dataset[~self.is_held], minlength=n_datasets)
        return [int(count) for count in found]


def sample_corpus(
    plans: Sequence[DatasetPlan], recipes: Sequence[ChunkRecipe], context: RunContext
) -> Corpus:
    """Read the planned chunks of all datasets.

    Memory is that of the chunks as int16, where their numbers fit, else int32.

    Args:
        plans: What to take, by dataset.
        recipes: How chunks are made, by dataset; all have the same shape and scales.
        context: How to run.

    Raises:
        PrepError: A dataset cannot be read, and `context.keep_going` is off.
    """
    jobs: list[SampleJob] = []
    failures: dict[int, Failure] = {}
    for i, (plan, recipe) in enumerate(zip(plans, recipes, strict=True)):
        jobs += _jobs(i, plan, recipe)
    n_files = sum(len(job.parts) for job in jobs)
    n_chunks = sum(len(job.draws.slot) for job in jobs)
    small = n_files <= _SMALL_FILES and n_chunks <= _SMALL_CHUNKS
    results = context.map(
        "sampling chunks",
        sample_files,
        jobs,
        [job.name for job in jobs],
        items_per_worker=len(jobs) if small else 1,
    )
    sampled: list[Sampled] = []
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, Failure):
            failures.setdefault(job.dataset, result)
        else:
            sampled.append(result)
    _say_wrong_lengths(plans, sampled)
    return _assembled(plans, recipes, sampled, failures, context.keep_going)


def _jobs(dataset: int, plan: DatasetPlan, recipe: ChunkRecipe) -> list[SampleJob]:
    """Cut a dataset's work into jobs at file boundaries, so that no file is read twice."""
    needed = np.unique(plan.draws.episode)
    if not len(needed):
        return []
    meta = plan.entry.meta
    by_episode = np.sort(plan.draws.episode)
    groups: list[list[DataPart]] = [[]]
    n_chunks = 0
    for part in data_parts(meta, needed.tolist()):
        if len(groups[-1]) >= _JOB_FILES or n_chunks >= _JOB_CHUNKS:
            groups.append([])
            n_chunks = 0
        groups[-1].append(part)
        edges = [np.searchsorted(by_episode, part.episodes, side=s) for s in ("left", "right")]
        n_chunks += int((edges[1] - edges[0]).sum())
    jobs = []
    for group in groups:
        mine = np.isin(plan.draws.episode, np.concatenate([part.episodes for part in group]))
        draws = plan.draws.take(np.flatnonzero(mine))
        jobs.append(
            SampleJob(dataset, plan.entry.name, meta.storage, group, draws, plan.n_fit, recipe)
        )
    return jobs


def _assembled(
    plans: Sequence[DatasetPlan],
    recipes: Sequence[ChunkRecipe],
    sampled: Sequence[Sampled],
    failures: dict[int, Failure],
    keep_going: bool,
) -> Corpus:
    sizes = [plan.n_fit + plan.n_held for plan in plans]
    first = np.cumsum([0, *sizes])
    there = np.zeros(first[-1], dtype=np.bool_)
    n_left_out = np.zeros((len(plans), 2), dtype=np.int64)
    errors: list[list[ErrorSums | None]] = [[None] * len(plans) for _ in recipes[0].scales]
    for part in sampled:
        there[first[part.dataset] + part.slot] = part.dataset not in failures
        n_left_out[part.dataset] += part.n_left_out
        for own, more in zip(errors, part.errors, strict=True):
            own[part.dataset] = ErrorSums.total([own[part.dataset], more])
    failures.update(_all_left_out(plans, first, there, n_left_out))
    if failures and not keep_going:
        raise failures[min(failures)].error
    values = tuple(_placed(sampled, first, i) for i in range(len(recipes[0].scales)))
    slot = np.concatenate([np.arange(size) for size in sizes])
    n_fit = np.repeat([plan.n_fit for plan in plans], sizes)
    n_share = np.repeat([plan.n_fit + plan.n_share for plan in plans], sizes)
    _say_left_out(plans, n_left_out)
    return Corpus(
        values=tuple(found if there.all() else found[there] for found in values),
        dataset=np.repeat(np.arange(len(plans)), sizes)[there],
        is_held=(slot >= n_fit)[there],
        in_share=((slot >= n_fit) & (slot < n_share))[there],
        errors=tuple(tuple(own) for own in errors),
        n_left_out=tuple(int(n) for n in n_left_out.sum(axis=1)),
        failures=tuple(failures[i] for i in sorted(failures)),
    )


def _placed(sampled: Sequence[Sampled], first: npt.NDArray[np.int64], scale: int) -> Values:
    wide = any(part.values[scale].dtype != np.int16 for part in sampled)
    width = sampled[0].values[scale].shape[1] if sampled else 0
    placed = np.zeros((first[-1], width), dtype=np.int32 if wide else np.int16)
    for part in sampled:
        placed[first[part.dataset] + part.slot] = part.values[scale]
    return placed


def _all_left_out(
    plans: Sequence[DatasetPlan],
    first: npt.NDArray[np.int64],
    there: npt.NDArray[np.bool_],
    n_left_out: npt.NDArray[np.int64],
) -> dict[int, Failure]:
    found = {}
    for i, plan in enumerate(plans):
        lost = int(n_left_out[i, 0])
        if lost and lost == plan.n_fit and not there[first[i] : first[i] + plan.n_fit].any():
            error = DataError(
                f"every one of {lost:,} sampled action chunks holds values that are not finite",
                where=plan.entry.name,
                hint="Look at the actions with `opentau-prep validate`.",
            )
            found[i] = Failure(plan.entry.name, error)
    return found


def _say_left_out(plans: Sequence[DatasetPlan], n_left_out: npt.NDArray[np.int64]) -> None:
    for plan, counts in zip(plans, n_left_out, strict=True):
        total = plan.n_fit + plan.n_held
        if counts.any():
            warn(
                "chunks_left_out",
                f"{plan.entry.name}: {int(counts.sum()):,} of {total:,} sampled action chunks hold"
                " values that are not finite and were left out; training would see them",
                dataset=plan.entry.name,
                chunks=int(counts.sum()),
            )


def _say_wrong_lengths(plans: Sequence[DatasetPlan], sampled: Sequence[Sampled]) -> None:
    wrong: dict[int, list[int]] = {}
    for part in sampled:
        wrong.setdefault(part.dataset, []).extend(part.wrong_lengths)
    for dataset, episodes in wrong.items():
        if episodes:
            name = plans[dataset].entry.name
            warn(
                "episode_lengths_differ",
                f"{name}: episodes {some_names(episodes)} have another number"
                " of rows than the episodes table says; their chunks end where the rows end",
                dataset=name,
                episodes=episodes,
            )
