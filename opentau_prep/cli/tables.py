"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from opentau_prep.engine import Failure
    from opentau_prep.speed import SpeedReport

__all__ = ["Render", "demo_table", "failures_text", "speed_table", "table"]

Render = Callable[["Console"], None]
MAX_TASK_ROWS = 3


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """Return a plain table; columns whose name starts with `#` are numbers, flush right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Names come from users' files: they are text, never markup.
    heading = Text(printable(title), style="table.title") if title else None
    made = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", pad_edge=False)
    for column in columns:
        numeric = column.startswith("#")
        made.add_column(column.lstrip("#"), justify="right" if numeric else "left")
    for row in rows:
        made.add_row(*(Text(_cell(value)) for value in row))
    return made


def failures_text(console: Console, failures: Sequence[Failure]) -> None:
    """Print what failed, one dataset a line."""
    from rich.text import Text

    for failure in failures:
        console.print(Text.assemble(("failed ", "red"), f"{failure.label}: {failure.error}"))


def speed_table(report: SpeedReport) -> Render:
    """Return what draws the outcome of `speed-percentiles`."""

    def render(console: Console) -> None:
        rows = [
            (
                r.name,
                r.n_episodes,
                len(r.rows),
                sum(row.percentiles is None for row in r.rows),
                r.status,
            )
            for r in report.results
        ]
        columns = ("dataset", "#episodes", "#tasks", "#sparse", "status")
        console.print(table(columns, rows))
        details = [
            (r.name, row.task_index, row.n_episodes, *_ends(row.percentiles), row.task)
            for r in report.results
            for row in r.rows[:MAX_TASK_ROWS]
        ]
        if len(report.results) <= MAX_TASK_ROWS:
            names = ("dataset", "#task", "#episodes", "#p5", "#p45", "#p55", "#p95", "name")
            console.print(table(names, details))
        failures_text(console, report.failures)

    return render


def demo_table(
    path: Path, datasets: Sequence[Mapping[str, object]], *, dry_run: bool = False
) -> Render:
    """Return what draws the demo mixture and what to do with it."""

    def render(console: Console) -> None:
        columns = ("dataset", "version", "robot_type", "control_mode", "#fps", "#episodes")
        names = [column.lstrip("#") for column in columns]
        rows = [["-" if d[n] is None else d[n] for n in names] for d in datasets]
        console.print(table(columns, rows))
        if dry_run:
            console.print(f"Would write {path}.", markup=False, soft_wrap=True)
            return
        console.print(f"Wrote {path}. Now:", markup=False)
        console.print(f"  opentau-prep run --mixture-json {path}", markup=False, soft_wrap=True)

    return render


def _ends(percentiles: list[float] | None) -> tuple[object, ...]:
    if percentiles is None:
        return ("-",) * 4
    return tuple(f"{percentiles[i]:.1f}" for i in (0, 4, 5, 9))


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))
