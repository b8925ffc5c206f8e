"""The outcome of `report` for people: what to do, where the page is, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentau_prep.cli.tables import Render
from opentau_prep.cli.verdict_lines import say, show_to_do

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.report import MadeReport

__all__ = ["report_tables"]


def report_tables(made: MadeReport) -> Render:
    """Return what draws the outcome of `report`."""

    def render(console: Console) -> None:
        show_to_do(console, made.facts)
        say(console, f"{made.path}: {made.status}")
        say(console, made.facts.words)

    return render
