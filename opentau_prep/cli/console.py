"""The consoles of the command line: whatever is printed on them, a terminal only shows it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from opentau_prep.text import printable_lines

__all__ = ["PlainFormatter", "SafeConsole"]


class SafeConsole(Console):
    """A console that spells out what a terminal would obey, in whatever is printed on it.

    Tables and messages treat the names they show already, so that columns stay aligned; this is for
    the one that forgets to. Styles and cursor movements are Rich's own and pass.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See `rich.console.Console.render`."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable_lines(text), style)


class PlainFormatter(logging.Formatter):
    """Formats a log record, tracebacks included, as `printable_lines` does."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return printable_lines(super().format(record))
