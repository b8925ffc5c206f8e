"""What there is of a mixture's stats, and whether it is still true; reads no frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from opentau_prep.stats.dataset import DatasetWork, FoundStats
from opentau_prep.stats.delta import FOLDER, delta_recipe, delta_sizes
from opentau_prep.stats.delta_compute import inspect_delta
from opentau_prep.stats.options import StatsOptions, StatsRun

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["inspect_stats"]


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
