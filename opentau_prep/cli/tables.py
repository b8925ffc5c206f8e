"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.storage.urls import shell_command
from opentau_prep.text import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from opentau_prep.engine import Failure
    from opentau_prep.speed import SpeedReport

__all__ = [
    "FittedTable",
    "Render",
    "demo_table",
    "failures_text",
    "shortened",
    "speed_table",
    "table",
]

Render = Callable[["Console"], None]
MAX_TASK_ROWS = 3
_COLUMN_GAP = 3  # what Rich puts between columns of a table without edges
_EDGES = 2
_LEAST_TEXT = 8
_HEAD_SHARES = (1 / 3, 0.5, 0.7, 0.9, 0.1)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> FittedTable:
    """Return a plain table that fits the terminal: no row ever takes two lines.

    Columns whose name starts with `#` are numbers, flush right. Where the terminal is too narrow,
    columns whose name starts with `?` are left out, from the right, and then long texts are
    shortened in the middle, so that names that differ at their ends stay distinct.
    """
    # Names come from users' files: they are text, never markup.
    cells = [[printable(_cell(value)) for value in row] for row in rows]
    return FittedTable(columns, cells, printable(title))


class FittedTable:
    """See `table`; drawn when the width of the console is known."""

    def __init__(self, columns: Sequence[str], rows: list[list[str]], title: str) -> None:
        self._columns, self._rows, self._title = list(columns), rows, title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table at the width of the console."""
        from rich import box
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        kept, widths = self._fitted(options.max_width)
        heading = Text(self._title, style="table.title") if self._title else None
        made = Table(
            box=box.SIMPLE_HEAD,
            title=heading,
            title_justify="left",
            pad_edge=False,
            show_edge=False,
        )
        for k in kept:
            name = self._columns[k]
            justify: Any = "right" if "#" in name[:2] else "left"
            made.add_column(shortened(name.lstrip("?#"), widths[k]), justify=justify, no_wrap=True)
        shares = {k: _head_share([row[k] for row in self._rows], widths[k]) for k in kept}
        for row in self._rows:
            made.add_row(*(Text(shortened(row[k], widths[k], shares[k])) for k in kept))
        yield Padding(made, (0, 0, 0, 1), expand=False)

    def _fitted(self, width: int) -> tuple[list[int], dict[int, int]]:
        """Return the columns that are shown, and how wide each may be."""
        from rich.cells import cell_len

        kept = list(range(len(self._columns)))
        widths = {
            k: max([cell_len(self._columns[k].lstrip("?#")), *(cell_len(r[k]) for r in self._rows)])
            for k in kept
        }

        def excess() -> int:
            return sum(widths[k] + _COLUMN_GAP for k in kept) - _COLUMN_GAP + _EDGES - width

        for k in reversed(kept.copy()):
            if excess() > 0 and self._columns[k].startswith("?"):
                kept.remove(k)
        texts = [k for k in kept if "#" not in self._columns[k][:2]] or kept
        while excess() > 0:
            widest = max(texts, key=lambda k: widths[k])
            if widths[widest] <= _LEAST_TEXT:
                break
            widths[widest] -= 1
        return kept, widths


def _head_share(texts: Sequence[str], width: int) -> float:
    """Return where to cut texts so that those that differ stay distinct, if any place does."""
    different = set(texts)
    for share in _HEAD_SHARES:
        if len({shortened(text, width, share) for text in different}) == len(different):
            return share
    return _HEAD_SHARES[0]


def shortened(text: str, width: int, head_share: float = 1 / 3) -> str:
    """Return a text of at most so many cells, cut in the middle; `head_share` of them begin it."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width or width < 1:
        return text
    head = max(0, int((width - 1) * head_share))
    tail = text
    while cell_len(tail) > width - 1 - head:
        tail = tail[1:]
    return f"{set_cell_size(text, head)}…{tail}"


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
        columns = ("dataset", "version", "robot_type", "?control_mode", "#fps", "?#episodes")
        names = [column.lstrip("?#") for column in columns]
        rows = [["-" if d[n] is None else d[n] for n in names] for d in datasets]
        console.print(table(columns, rows))
        shown = printable(str(path))
        if dry_run:
            console.print(f"Would write {shown}.", markup=False, soft_wrap=True)
            return
        console.print(f"Wrote {shown}. Now:", markup=False)
        command = shell_command("run", [], "--mixture-json", path)
        console.print(f"  {command}", markup=False, soft_wrap=True)

    return render


def _ends(percentiles: list[float] | None) -> tuple[object, ...]:
    if percentiles is None:
        return ("-",) * 4
    return tuple(f"{percentiles[i]:.1f}" for i in (0, 4, 5, 9))


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))
