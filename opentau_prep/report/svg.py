"""Small pictures as elements: ranges of dims, and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

from opentau_prep.report.markup import Element, Node, el
from opentau_prep.verdict.details import DimFacts

__all__ = ["bars", "range_picture"]

_WIDTH, _HEIGHT = 220.0, 16.0
_EDGE = 4.0
# For readers that know no style sheets in pictures; the page's own colours come before these.
_PLAIN = {"band": "#a9c3ee", "bar": "#2a5db0", "spread": "#2a5db0", "cut": "#a1182b"}
_GREY = "#59616f"


def range_picture(dim: DimFacts) -> Node:
    """Return a dim's min..max with q01..q99 and mean ± std in it.

    The axis is the dim's own range, which min-max normalization maps to -1..1. The numbers stand in
    the table beside it, so it is hidden from screen readers.
    """
    span = dim.max - dim.min
    if not (math.isfinite(span) and span > 0):
        return el("span", "no range", class_="dim")

    def at(value: float) -> float:
        inside = min(max((value - dim.min) / span, 0.0), 1.0)
        return _EDGE + inside * (_WIDTH - 2 * _EDGE)

    middle = _HEIGHT / 2
    marks: list[Element] = [_line("axis", at(dim.min), middle, at(dim.max), middle)]
    if dim.q01 is not None and dim.q99 is not None and math.isfinite(dim.q99 - dim.q01):
        left, right = sorted((at(dim.q01), at(dim.q99)))
        marks.append(_box("band", left, 3, max(right - left, 1), _HEIGHT - 6))
    for end in (dim.min, dim.max):
        marks.append(_line("range", at(end), 2, at(end), _HEIGHT - 2))
    if dim.min < 0 < dim.max:
        marks.append(_line("zero", at(0), 0, at(0), _HEIGHT))
    if math.isfinite(dim.mean):
        if math.isfinite(dim.std):
            low, high = at(dim.mean - dim.std), at(dim.mean + dim.std)
            marks.append(_line("spread", low, middle, high, middle))
        marks.append(
            el("circle", class_="mean", cx=_n(at(dim.mean)), cy=_n(middle), r="3", fill="#2a5db0")
        )
    return _svg(_WIDTH, _HEIGHT, marks, None)


def bars(
    counts: Sequence[int],
    labels: Sequence[str],
    told: str,
    *,
    height: float = 40.0,
    wide: float = 18.0,
    cut: float | None = None,
) -> Node:
    """Return a bar a count, the first and last labelled.

    Args:
        counts: Heights.
        labels: What each bar stands for.
        told: The picture in words, for those who do not see it.
        height: Of the tallest bar, px.
        wide: Of a bar, px.
        cut: Where a line is drawn, in bars from the left.
    """
    tallest = max(counts, default=0)
    if not tallest:
        return el("span", "-", class_="dim")
    marks: list[Element] = []
    for i, count in enumerate(counts):
        tall = max(count / tallest * height, 1.0) if count else 0.0
        bar = _box("bar", i * wide + 1, height - tall, wide - 2, tall)
        marks.append(el("g", el("title", f"{labels[i]}: {count:,}"), bar))
    width = len(counts) * wide
    marks.append(_line("axis", 0, height, width, height))
    if cut is not None and 0 <= cut <= len(counts):
        marks.append(_line("cut", cut * wide, 0, cut * wide, height))
    marks.append(el("text", labels[0], x="1", y=_n(height + 11)))
    last = el("text", labels[-1], x=_n(width - 1), y=_n(height + 11), text_anchor="end")
    return _svg(width, height + 14, [*marks, last], told)


def _svg(width: float, height: float, marks: Sequence[Element], told: str | None) -> Element:
    return el(
        "svg",
        marks,
        viewBox=f"0 0 {_n(width)} {_n(height)}",
        width=_n(width),
        height=_n(height),
        role="img" if told else None,
        aria_label=told,
        aria_hidden=None if told else "true",
        focusable="false",
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Element:
    colour = _PLAIN.get(kind, _GREY)
    ends = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
    return el("line", class_=kind, stroke=colour, **ends)


def _box(kind: str, x: float, y: float, width: float, height: float) -> Element:
    sides = {"x": _n(x), "y": _n(y), "width": _n(width), "height": _n(height)}
    return el("rect", class_=kind, fill=_PLAIN.get(kind, _GREY), **sides)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
