"""Accessible tables, badges and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from opentau_prep.report.markup import Element, Node, el
from opentau_prep.verdict.facts import Level

__all__ = ["badge", "bullets", "command", "count", "number", "percent", "table"]

_MISSING = "-"


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Node]],
    *,
    foot: Sequence[Node] | None = None,
) -> Element:
    """Return a table that scrolls sideways by itself where there is no room.

    Args:
        caption: What it shows.
        columns: Their names: of numbers begin with `#`, of long texts with `~`.
        rows: Cells; the first of each names its row.
        foot: A last row with totals.
    """
    kinds = [{"#": "n", "~": "text"}.get(name[:1]) for name in columns]
    names = [name.lstrip("#~") for name in columns]
    head = [
        el("th", n, scope="col", class_=k if k == "n" else None)
        for n, k in zip(names, kinds, strict=True)
    ]
    made = el(
        "table",
        el("caption", caption),
        el("thead", el("tr", head)),
        el("tbody", [_row(cells, kinds) for cells in rows]),
        None if foot is None else el("tfoot", _row(foot, kinds)),
    )
    return el("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(cells: Sequence[Node], kinds: Sequence[str | None]) -> Element:
    first, *others = cells
    own = zip(others, kinds[1:], strict=True)
    return el(
        "tr",
        el("th", first, scope="row", class_="n" if kinds[0] == "n" else None),
        [el("td", cell, class_=kind) for cell, kind in own],
    )


def badge(text: str, level: Level | str) -> Element:
    """Return a word with the colour of a level; the word alone tells it, too."""
    return el("span", text, class_=f"badge {level}")


def command(text: str) -> Element:
    """Return a command to run."""
    return el("pre", el("code", text))


def bullets(lines: Iterable[Node]) -> Element | None:
    """Return a list; None for an empty one."""
    items = [el("li", line) for line in lines]
    return el("ul", items) if items else None


def number(value: float | None, digits: int = 4) -> str:
    """Return a number in few digits."""
    if value is None:
        return _MISSING
    if not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return f"{value:.{digits}g}"


def count(value: float | None) -> str:
    """Return a whole number with separators."""
    if value is None or not math.isfinite(value):
        return _MISSING
    return f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Return a share as a percentage."""
    return _MISSING if value is None else f"{value:.1%}"
