"""The verb behind `stats`: every dataset's LeRobot stats, made, completed, or left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from opentau_prep.artifacts.place import check_artifact_root
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.engine import Failure
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
    run = StatsRun.of(context, options, jobs=len(jobs), keep_options=keep_options)
    with main_rank_notices(context.this_rank):
        warn_vqa(resolved.vqa)
        names = [entry.name for entry in jobs]
        results = context.map(COMMAND, partial(_prepare_one, run=run), jobs, names)
        done = [r for r in results if isinstance(r, StatsResult)]
        failures = [r for r in results if isinstance(r, Failure)]
        delta, failed = prepare_delta(resolved, context, run)
        report = StatsReport(done, [*resolved.faults, *failures, *failed], delta)
        warn_kept(report, run)
        warn_pooled(report, run)
        if report.undecided:
            report = replace(report, commands=going_on_commands(report.undecided, run))
        return report


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
        PrepError: The dataset's tables, or a our file, cannot be read.
    """
    options = StatsOptions()
    run = StatsRun.of(context, options, jobs=2, keep_options=True)
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
