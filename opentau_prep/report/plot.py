"""Small SVG pictures: lines, steps, bars, heat maps, flows. Numbers in, safe markup out.

A picture is drawn in user units and scales with its `viewBox`. Colours are classes of the page's
style sheet, so that light, dark and print need no second picture. Coordinates have one decimal,
which keeps pages small and the same inputs the same bytes. Every text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from opentau_prep.text import printable

__all__ = ["Axis", "bars", "flows", "group", "heat_map", "line", "path", "rect", "svg", "text"]


class Axis:
    """A linear scale from data to user units, clipped to its ends."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = (low, high) if high > low else (low - 0.5, low + 0.5)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """Return the place of one value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def many(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the places of values; NaN stays NaN."""
        share = (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)
        return np.asarray(self.start + np.clip(share, 0.0, 1.0) * (self.end - self.start))


def svg(
    width: float, height: float, marks: Iterable[Markup], described: str, kind: str = ""
) -> Markup:
    """Return a picture.

    Args:
        width: User units.
        height: User units.
        marks: What is drawn, from back to front.
        described: The picture in words, for those who do not see it.
        kind: Classes for the style sheet.
    """
    inner = Markup("").join(marks)
    return Markup(
        '<svg viewBox="0 0 {} {}" width="{}" height="{}" role="img" class="plot {}"'
        ' aria-label="{}">{}</svg>'
    ).format(_n(width), _n(height), _n(width), _n(height), kind, printable(described), inner)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> Markup:
    """Return a line of text; `anchor` is `start`, `middle` or `end`."""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return Markup('<text x="{}" y="{}" class="{}"{}>{}</text>').format(
        _n(x), _n(y), kind, Markup(where), printable(words)
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str, title: str = "") -> Markup:
    """Return a straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}">{}</line>').format(
        _n(x1), _n(y1), _n(x2), _n(y2), kind, _title(title)
    )


def rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> Markup:
    """Return a box."""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}">{}</rect>').format(
        _n(x), _n(y), _n(width), _n(height), kind, _title(title)
    )


def path(
    xs: ArrayLike, ys: ArrayLike, kind: str, title: str = "", *, closed: bool = False
) -> Markup:
    """Return a line through points; it breaks where one is not finite."""
    parts: list[str] = []
    pen = "M"
    points = zip(np.asarray(xs, float).tolist(), np.asarray(ys, float).tolist(), strict=True)
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            parts.append(f"{pen}{_n(x)} {_n(y)}")
            pen = "L"
        else:
            pen = "M"
    end = "Z" if closed else ""
    return Markup('<path d="{}" class="{}">{}</path>').format(
        "".join(parts) + end, kind, _title(title)
    )


def group(marks: Iterable[Markup], kind: str, title: str = "") -> Markup:
    """Return marks that belong together."""
    return Markup('<g class="{}">{}{}</g>').format(kind, _title(title), Markup("").join(marks))


def bars(
    counts: Sequence[float],
    edges: Sequence[float],
    described: str,
    *,
    width: float = 280.0,
    height: float = 90.0,
    unit: str = "",
    marks: Sequence[tuple[float, str, str]] = (),
) -> Markup:
    """Return a histogram with its ends labelled.

    Args:
        counts: (B,) heights.
        edges: (B + 1,) ends of the bars, increasing.
        described: The picture in words.
        width: User units.
        height: User units.
        unit: What the values are, for the axis.
        marks: (value, class, label) of vertical lines; a label is drawn above its line.
    """
    # A row of its own per label, so that lines next to each other keep theirs readable.
    rows = [label for value, _, label in marks if label and edges[0] <= value <= edges[-1]]
    floor, top = height - 16.0, 4.0 + 11.0 * len(rows)
    at = Axis(edges[0], edges[-1], 2.0, width - 2.0)
    tall = Axis(0.0, max(max(counts, default=0.0), 1.0), floor, top)
    drawn = [
        rect(at(a), tall(n), max(at(b) - at(a) - 0.5, 0.5), floor - tall(n), "bar",
             f"{_label(a)} to {_label(b)}: {n:,.0f}")
        for n, a, b in zip(counts, edges[:-1], edges[1:], strict=True)
        if n
    ]  # fmt: skip
    for value, kind, label in marks:
        if edges[0] <= value <= edges[-1]:
            y = 11.0 * rows.index(label) if label else top - 2
            drawn.append(line(at(value), y, at(value), floor, kind, label or _label(value)))
            if label:
                side, anchor = (3, "start") if at(value) < width / 2 else (-3, "end")
                drawn.append(text(at(value) + side, y + 9, label, kind, anchor))
    drawn += [
        line(2, floor, width - 2, floor, "axis"),
        text(2, height - 4, _label(edges[0])),
        text(width / 2, height - 4, unit, "", "middle"),
        text(width - 2, height - 4, _label(edges[-1]), "", "end"),
    ]
    return svg(width, height, drawn, described, "bars")


def heat_map(
    values: NDArray[np.float64],
    rows: Sequence[str],
    described: str,
    *,
    levels: Sequence[float],
    cell: float = 14.0,
    split: int = 0,
) -> Markup:
    """Return a table of colours, one path per level, so that thousands of cells stay small.

    Args:
        values: (R, C) float64; NaN is drawn as unknown.
        rows: (R,) labels; drawn where rows are tall enough.
        described: The picture in words.
        levels: Increasing bounds; a value at or above the k-th has level k + 1.
        cell: Width of a cell; rows get thinner where there are many.
        split: Columns before a gap, such as between state and actions.
    """
    n_rows, n_cols = values.shape
    cell = min(cell, 640.0 / max(n_cols, 1))
    tall = cell if n_rows <= 40 else max(3.0, 560.0 / n_rows)
    labelled = tall >= 9
    names = [_short(name, 30) for name in rows] if labelled else []
    left = 10.0 + _wide(names) if labelled else 4.0
    level = np.where(np.isnan(values), -1, np.searchsorted(np.asarray(levels), values, "right"))
    gap = 10.0 if 0 < split < n_cols else 0.0

    def x_of(column: int) -> float:
        return left + column * cell + (gap if column >= split else 0.0)

    drawn = []
    for each in range(-1, len(levels) + 1):
        places = np.argwhere(level == each)
        if places.size:
            box = f"h{_n(cell - 1)}v{_n(tall - 0.7)}h-{_n(cell - 1)}z"
            cells = "".join(f"M{_n(x_of(c))} {_n(16 + r * tall)}{box}" for r, c in places.tolist())
            name = "unknown" if each < 0 else f"h{each}"
            drawn.append(Markup('<path d="{}" class="{}"/>').format(cells, name))
    drawn += [
        text(left - 6, 16 + (r + 0.5) * tall + 3.5, name, "", "end") for r, name in enumerate(names)
    ]
    step = 1 if n_cols <= 16 else 5
    drawn += [
        text(x_of(c) + cell / 2, 11, str(c - split if c >= split else c), "small", "middle")
        for c in range(n_cols)
        if (c - split if c >= split else c) % step == 0
    ]
    width = left + n_cols * cell + gap + 4
    return svg(width, 20 + n_rows * tall, drawn, described, "heat")


def flows(
    left: Sequence[tuple[str, float, int]],
    right: Sequence[tuple[str, str]],
    described: str,
) -> Markup:
    """Return a flow from items to groups, as thick as their shares.

    Args:
        left: (label, share, which group), in the order to draw; shares add up to at most 1.
        right: (name, detail) of the groups.
        described: The picture in words.
    """
    height = max(len(left) * 22.0, len(right) * 36.0, 80.0) + 10
    used = sum(share for _, share, _ in left) or 1.0
    room = height - 10 - 8 * len(left)
    sizes = [max(share / used * room, 1.0) for _, share, _ in left]
    labels = [f"{_short(label, 36)}  {share:.1%}" for label, share, _ in left]
    x1 = 12.0 + _wide(labels)
    x2 = x1 + 150.0
    names = [_short(name, 40) for name, _ in right]
    width = x2 + 20.0 + _wide([*(f"{name}__" for name in names), *(each for _, each in right)])
    totals = [
        sum(size for size, (_, _, target) in zip(sizes, left, strict=True) if target == i)
        for i in range(len(right))
    ]
    # Two lines of text need their height, however thin a group is; there is room for some of it.
    lacking = [max(32.0 - total, 0.0) for total in totals]
    squeeze = min(1.0, (height - 10 - sum(totals)) / (sum(lacking) or 1.0))
    starts, at = [], 5.0
    for total, more in zip(totals, lacking, strict=True):
        starts.append(at + more * squeeze / 2)
        at += total + more * squeeze
    drawn, fill, y = [], list(starts), 5.0
    for (label, share, target), shown, size in zip(left, labels, sizes, strict=True):
        a, b = fill[target], fill[target] + size
        middle = (x1 + x2) / 2
        curve = (
            f"M{_n(x1)} {_n(y)}C{_n(middle)} {_n(y)} {_n(middle)} {_n(a)} {_n(x2)} {_n(a)}"
            f"V{_n(b)}C{_n(middle)} {_n(b)} {_n(middle)} {_n(y + size)} {_n(x1)} {_n(y + size)}Z"
        )
        title = _title(f"{label}: {share:.1%}")
        drawn.append(
            Markup('<path d="{}" class="flow c{}">{}</path>').format(curve, target % 8, title)
        )
        drawn.append(text(x1 - 8, y + size / 2 + 4, shown, "", "end"))
        fill[target] = b
        y += size + 8
    for i, (name, (_, detail)) in enumerate(zip(names, right, strict=True)):
        drawn.append(rect(x2, starts[i], 8, max(totals[i], 1), f"node c{i % 8}"))
        middle = starts[i] + totals[i] / 2
        drawn.append(text(x2 + 16, middle - 1, name, "strong"))
        drawn.append(text(x2 + 16, middle + 12, detail))
    return svg(width, height, drawn, described, "flows")


def _title(words: str) -> Markup:
    return Markup("<title>{}</title>").format(printable(words)) if words else Markup("")


def _wide(texts: Sequence[str]) -> float:
    """Return about how wide the longest text is: letters of a sans-serif font, on average."""
    return 6.3 * max(map(len, texts), default=0)


def _short(words: str, most: int) -> str:
    """Return text cut in the middle, where names of one family are alike least."""
    shown = printable(words)
    if len(shown) <= most:
        return shown
    half = (most - 1) // 2
    return f"{shown[:half]}…{shown[-half:]}"


def _label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
