"""The outcome of `report` for people: the verdict, what to do, and where the page is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentau_prep.cli.tables import Render
from opentau_prep.report.page import verdict_of
from opentau_prep.text import printable_lines

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.report import MadeReport

__all__ = ["report_tables"]


def report_tables(made: MadeReport) -> Render:
    """Return what draws the outcome of `report`."""

    def render(console: Console) -> None:
        def say(text: str) -> None:
            console.print(printable_lines(text), markup=False, soft_wrap=True)

        facts = made.facts
        words = verdict_of(facts)
        say(words[0].upper() + words[1:])
        for number, each in enumerate(facts.to_do, 1):
            mark = "" if each.level == "do" else "look: "
            say(f"{number:3}. {mark}{each.what}")
            if each.command:
                say(f"     {each.command}")
        if facts.at_once:
            say(f"Several of these at once: {facts.at_once}")
        say(f"{made.path}: {made.status}")

    return render
