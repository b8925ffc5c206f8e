"""What `stats` shows people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.cli.tables import Render, failures_text, table
from opentau_prep.cli.verdict_lines import say, say_command
from opentau_prep.pooling.columns import is_quantile
from opentau_prep.text import several

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.stats.compare import Difference
    from opentau_prep.stats.report import FileResult, StatsReport, StatsResult

__all__ = ["stats_table"]

INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")
MAX_DATASETS = 3
MAX_DIFFERENCES = 3
MAX_FINDINGS = 5


def stats_table(report: StatsReport) -> Render:
    """Return what draws the outcome of `stats`."""

    def render(console: Console) -> None:
        for result in report.partial:
            say(console, f"{result.name}: {result.findings[0].message}")
        whole = [result for result in report.results if result not in report.partial]
        if whole:
            console.print(table(_COLUMNS, [_row(result) for result in whole]))
        # Of files that differ, the numbers are shown.
        rows = [row for r in whole if not any(map(_left, r.files)) for row in _file_rows(r)]
        if rows and len(whole) <= MAX_DATASETS:
            console.print(table(("dataset", "file", "status", "?added", "?backup"), rows))
        if report.delta:
            delta = [(d.name, d.column, d.chunk_size, d.starts, d.status) for d in report.delta]
            names = ("delta actions of", "column", "#chunk", "#chunks", "status")
            console.print(table(names, delta))
        _findings(console, report.results)
        _differences(console, report)
        failures_text(console, report.failures)

    return render


_COLUMNS = (
    "dataset",
    "#episodes",
    "#frames",
    "?#features",
    "?zero range",
    "?quantiles",
    "?#files read",
    "?biggest change",
    "status",
)


def _row(result: StatsResult) -> tuple[object, ...]:
    biggest = result.biggest
    return (
        result.name,
        result.episodes,
        result.frames,
        len(result.layout.columns),
        ", ".join(f"{name} {_dims(dims)}" for name, dims in result.zero_range.items()) or "-",
        result.quantiles,
        result.files_read,
        "-" if biggest is None else _share(biggest),
        result.status,
    )


def _share(d: Difference) -> str:
    if not math.isfinite(d.share):
        return f"{d.feature}/{d.stat} {d.published:.3g} -> {d.computed:.3g}"
    return f"{d.feature}/{d.stat} by {d.share:.2g} of its range"


def _file_rows(result: StatsResult) -> list[tuple[object, ...]]:
    return [
        (
            result.name,
            file.name,
            file.status,
            _added(file),
            "-" if file.backup is None else file.backup.name,
        )
        for file in result.files
    ]


def _added(file: FileResult) -> str:
    stats = sorted({name.rsplit("/", 1)[-1] for name in file.added if "/" in name})
    episodes = sum(name.startswith("episode ") for name in file.added)
    parts = [several(episodes, "episode")] if episodes else []
    return ", ".join([*parts, *stats]) or "-"


def _findings(console: Console, results: Sequence[StatsResult]) -> None:
    from rich.text import Text

    found = [
        (result, finding)
        for result in results
        for finding in result.findings
        if finding.code != "partial_dataset"
    ]
    for result, finding in found[:MAX_FINDINGS]:
        place = finding.where if finding.code == "unreadable_file" else result.name
        words = (
            finding.message if finding.message.startswith(place) else f"{place}: {finding.message}"
        )
        console.print(Text.assemble(("Warning: ", "bold"), words))
    if len(found) > MAX_FINDINGS:
        console.print(f"... and {len(found) - MAX_FINDINGS:,} more (--json lists all)")


def _differences(console: Console, report: StatsReport) -> None:
    left = [(result, file) for result in report.results for file in result.files if _left(file)]
    if not left:
        return
    found = [(result, file, d) for result, file in left for d in file.differences]
    worst = sorted(found, key=lambda each: _order(each[2]))[:MAX_DIFFERENCES]
    rows = [(r.name, Path(f.name).name, *_difference_row(d)) for r, f, d in worst]
    console.print(table(_DIFFERENCE, rows))
    files = "1 file differs" if len(left) == 1 else f"{len(left):,} files differ"
    more = len(found) - len(worst)
    others = f" in {more:,} more stats (--json lists all)" if more else ""
    say(console, f"{files} from the frames{others}. Keep the published numbers, or replace them:")
    for line in report.commands:
        say_command(console, line)


_DIFFERENCE = (
    "dataset",
    "file",
    "feature",
    "stat",
    "?dims",
    "?#episodes",
    "?worst dim",
    "#published",
    "#frames say",
    "?#of the range",
    "?true quantile",
)


def _left(file: FileResult) -> bool:
    return file.status == "differs"


def _order(d: Difference) -> tuple[bool, bool, float]:
    """Order by size: differences of quantiles, and of index columns, come last."""
    return d.feature in INDEX, is_quantile(d.stat), -d.share


def _difference_row(d: Difference) -> tuple[object, ...]:
    worst = str(d.dim) if d.episode is None else f"{d.dim} of episode {d.episode}"
    return (
        d.feature,
        d.stat,
        _dims(d.dims),
        "-" if d.episode is None else d.rows,
        worst,
        f"{d.published:.6g}",
        f"{d.computed:.6g}",
        f"{d.share:.2%}" if math.isfinite(d.share) else "-",
        "" if d.rank is None else f"the {d.rank:.1%} quantile",
    )


def _dims(dims: Sequence[int]) -> str:
    if len(dims) > 2 and list(dims) == list(range(dims[0], dims[-1] + 1)):
        return f"[{dims[0]}..{dims[-1]}]"
    shown = ", ".join(map(str, dims[:6]))
    return f"[{shown}{', ...' if len(dims) > 6 else ''}]"
