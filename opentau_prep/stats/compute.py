"""The verb behind `stats`: every dataset's LeRobot stats, made, completed, or left alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from opentau_prep.artifacts.place import check_artifact_root
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.engine import Failure
from opentau_prep.engine.local import default_workers
from opentau_prep.metadata.resolve import warn_vqa
from opentau_prep.stats.advice import going_on_commands, warn_kept, warn_pooled
from opentau_prep.stats.dataset import DatasetWork, FoundStats
from opentau_prep.stats.delta import FOLDER, delta_recipe, delta_sizes
from opentau_prep.stats.delta_compute import inspect_delta, prepare_delta
from opentau_prep.stats.options import StatsOptions, StatsRun
from opentau_prep.stats.report import StatsReport, StatsResult

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["inspect_stats", "prepare_stats"]

COMMAND = "stats"
# Below that, a dataset takes less time than handing its parts to workers.
_LARGE_FRAMES = 200_000


def prepare_stats(
    resolved: ResolvedMixture,
    context: RunContext,
    options: StatsOptions | None = None,
    *,
    keep_options: bool = False,
) -> StatsReport:
    """Compute the stats of every dataset of a mixture, or say that they are up to date.

    Args:
        resolved: The mixture. Stats are of whole datasets, whatever episodes an entry selects.
        context: How to run.
        options: What to compute.
        keep_options: Leave a dataset the quantiles that its stats were made with, unless forced:
            for callers whose options are only defaults.

    Returns:
        The report; the same values on every rank.

    Raises:
        PrepError: A dataset failed and `context.keep_going` is off, or one lies in a store and
            there is no `context.artifact_root`.
    """
    options = options or StatsOptions()
    check_artifact_root((entry.meta.root for entry in resolved.entries), context.artifact_root)
    jobs = resolved.first_entries
    run = StatsRun.of(context, options, here=False, keep_options=keep_options)
    with main_rank_notices(context.this_rank):
        warn_vqa(resolved.vqa)
        results = _each_dataset(jobs, context, run)
        done = [r for r in results if isinstance(r, StatsResult)]
        failures = [r for r in results if isinstance(r, Failure)]
        delta, failed = prepare_delta(resolved, context, run)
        report = StatsReport(done, [*resolved.faults, *failures, *failed], delta)
        warn_kept(report, run)
        warn_pooled(report, run)
        if report.undecided:
            report = replace(report, commands=going_on_commands(report.undecided, run))
        return report


def _each_dataset(
    jobs: Sequence[ResolvedEntry], context: RunContext, run: StatsRun
) -> list[StatsResult | Failure]:
    """Do the datasets, in order of the jobs: large ones one after the other, on all workers."""
    large = _are_large(jobs, context)
    here = StatsRun.of(context, run.stats, here=True, keep_options=run.keep_options)
    results: dict[int, StatsResult | Failure] = {}
    for chosen, how, options in ((large, context.alone(), here), (~large, context, run)):
        index = np.flatnonzero(chosen).tolist()
        if index:
            names = [jobs[i].name for i in index]
            work = partial(_prepare_one, run=options)
            found = how.map(COMMAND, work, [jobs[i] for i in index], names)
            results |= dict(zip(index, found, strict=True))
    return [results[i] for i in range(len(jobs))]


def _are_large(jobs: Sequence[ResolvedEntry], context: RunContext) -> NDArray[np.bool_]:
    """Return (N,) which datasets would keep one worker busy when the others have finished."""
    frames = np.array([entry.dataset.declared.frames for entry in jobs], dtype=np.float64)
    if len(jobs) == 1:
        return np.array([context.engine == "local" or frames[0] >= _LARGE_FRAMES])
    workers = context.workers or default_workers()
    large: NDArray[np.bool_] = (frames >= _LARGE_FRAMES) & (frames * workers > frames.sum())
    return large


def _prepare_one(entry: ResolvedEntry, *, run: StatsRun) -> StatsResult:
    work = DatasetWork(entry, run)
    if work.is_partial and not work.run.stats.allow_partial:
        return work.partial()
    return run.context.ensure(work)


def inspect_stats(
    resolved: ResolvedMixture, entry: ResolvedEntry, context: RunContext
) -> Iterator[FoundStats]:
    """Yield the files of a dataset that `stats` makes, each with its state.

    Data files are compared by content where their hashes are remembered, else by number and size.

    Args:
        resolved: The mixture.
        entry: Any entry of the dataset.
        context: Where artifacts are.

    Raises:
        PrepError: The dataset's tables, or a file of this tool, cannot be read.
    """
    options = StatsOptions()
    run = StatsRun.of(context, options, here=False, keep_options=True)
    run = replace(run, read_data=False)
    yield from DatasetWork(entry, run).found()
    words = set()
    for each in resolved.entries_of(entry.dataset):
        if not each.config.use_delta_joint_actions:
            continue
        recipe = delta_recipe(each, resolved.mixture)
        # Where there are none yet, those that `stats` would make on its own are missed.
        for size in delta_sizes(each, recipe, context.artifact_root) or [options.chunk_size]:
            if (recipe.digest, size) not in words:
                words.add((recipe.digest, size))
                sized = replace(run, stats=replace(options, chunk_size=size))
                found = inspect_delta(each, resolved.mixture, sized)
                yield FoundStats(f"{FOLDER}/{found.path.name}", found)
