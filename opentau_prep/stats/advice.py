"""The commands that settle what `stats` found, complete enough to paste."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from opentau_prep.notices import some_names, warn
from opentau_prep.stats.columns import INDEX_COLUMNS
from opentau_prep.stats.report import QUANTILES_KEPT
from opentau_prep.storage import shell_command

if TYPE_CHECKING:
    from opentau_prep.stats.compare import Difference
    from opentau_prep.stats.options import StatsRun
    from opentau_prep.stats.report import StatsReport, StatsResult

__all__ = ["going_on_commands", "stats_command", "warn_kept", "warn_pooled"]


def stats_command(roots: Iterable[str], *options: str, run: StatsRun | None = None) -> str:
    """Return a `stats` command line.

    Args:
        roots: Of the datasets.
        options: What follows them.
        run: The run it follows, for its `--artifact-root`.
    """
    elsewhere = None if run is None else run.context.artifact_root
    where = [] if elsewhere is None else ["--artifact-root", elsewhere.absolute()]
    return shell_command("stats", roots, *options, *where)


def going_on_commands(
    results: Sequence[StatsResult], run: StatsRun | None = None
) -> tuple[str, str]:
    """Return the two commands that go on after published stats that differ: keep, and replace."""
    roots = [result.root for result in results]
    keep, replace = (
        stats_command(roots, "--published-stats", choice, run=run) for choice in ("keep", "replace")
    )
    return keep, replace


def warn_pooled(report: StatsReport, run: StatsRun) -> None:
    """Warn once of episodes' own quantiles that pool to numbers that are no quantiles."""
    found = [(r, f.pooled) for r in report.results for f in r.files if f.pooled is not None]
    if not found:
        return
    names = [result.name for result, _ in found]
    result, worst = max(found, key=lambda pair: pair[1].share)
    rank = "" if worst.rank is None else f" (the {worst.rank:.1%} quantile of the frames)"
    warn(
        "pooled_quantiles",
        f"the episodes' rows of {some_names(names)} have quantiles of their own, which OpenTau and"
        f" LeRobot's converter to v3.0 average. In {result.name}, {worst.stat} of"
        f" {worst.feature}[{worst.dim}] becomes {worst.published:.4g}{rank} instead of"
        f" {worst.computed:.4g}. Give every row the dataset's:"
        f" `{going_on_commands([result for result, _ in found], run)[1]}`",
        datasets=names,
    )


def _interest(difference: Difference) -> tuple[bool, bool, float]:
    is_feature = difference.feature not in INDEX_COLUMNS
    return is_feature, difference.rank is not None, difference.share


def warn_kept(report: StatsReport, run: StatsRun) -> None:
    """Warn once of all published quantiles that differ from the frames and stay."""
    undecided = report.undecided  # their differences are shown in full
    found = [
        (result, difference)
        for result in report.results
        if result not in undecided
        for file in result.files
        if file.status == QUANTILES_KEPT
        for difference in file.differences
    ]
    if not found:
        return
    kept = list({result.root: result for result, _ in found}.values())
    result, worst = max(found, key=lambda pair: _interest(pair[1]))
    command = going_on_commands(kept, run)[1]
    warn(
        "published_quantiles",
        f"published quantiles of {some_names(r.name for r in kept)} differ from the frames and"
        f" stay. The largest difference, in {result.name}: {worst}. Recompute: `{command}`",
        datasets=[r.name for r in kept],
    )
