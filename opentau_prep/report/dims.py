"""Pictures of what the policy sees: per dim, every member's distribution against the ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from opentau_prep.report import plot

if TYPE_CHECKING:
    from opentau_prep.forecast.distribution import Distribution
    from opentau_prep.verdict.details import DimFacts

__all__ = ["MAX_CURVES", "MemberCurve", "dim_picture"]

Floats = NDArray[np.float64]

MAX_CURVES = 6
"""Members with a curve of their own: those furthest from all others. The rest is one band."""
_BINS = 44
_WIDTH, _CURVES, _RULERS = 254.0, 62.0, 40.0
_LEFT = 50.0


@dataclass(frozen=True)
class MemberCurve:
    """One member's distribution, with the name of its colour's place."""

    name: str
    distribution: Distribution


def dim_picture(dim: DimFacts, members: Sequence[MemberCurve], label: str) -> Markup:
    """Return the distributions of a dim's members over each other, against the target ranges.

    The axis is the head's own range. Normalization is affine, so one picture serves all three
    modes: the rulers below show where -1 and 1 (or one std) lie under each.

    Args:
        dim: The head's numbers.
        members: Its members; those whose shares are not known have no curve.
        label: What the dim is called.
    """
    span = dim.max - dim.min
    if not (np.isfinite(span) and span > 0):
        drawn = [plot.text(_LEFT, 34, "never moves", "dim")]
        return plot.svg(_WIDTH, _CURVES, drawn, f"{label} never moves", "dim-plot")
    at = plot.Axis(dim.min - 0.03 * span, dim.max + 0.03 * span, _LEFT, _WIDTH - 4)
    edges = np.linspace(dim.min, dim.max, _BINS + 1)
    named = [m for m in members if m.distribution.origin != "extremes"]
    cdfs = np.array([_cdf(m.distribution, dim.dim, edges) for m in named]).reshape(-1, _BINS + 1)
    drawn = [plot.line(_LEFT, _CURVES, _WIDTH - 4, _CURVES, "axis")]
    drawn += _curves(named, cdfs, at.many((edges[1:] + edges[:-1]) / 2))
    if not named:
        drawn.append(plot.text(_LEFT, 34, "no quantiles: run stats", "dim"))
    drawn += _rulers(dim, at)
    height = _CURVES + _RULERS
    described = (
        f"{label}: distributions of {len(members)} members from {dim.min:.4g} to {dim.max:.4g}"
    )
    return plot.svg(_WIDTH, height, drawn, described, "dim-plot")


def _cdf(distribution: Distribution, dim: int, edges: Floats) -> Floats:
    values = distribution.values[:, dim]
    if not np.isfinite(values).all():
        return np.full(len(edges), np.nan)
    # At a step (many equal values) the upper end counts, so that the bar is at the value.
    places = np.searchsorted(values, edges, side="right")
    linear = np.interp(edges, values, distribution.fractions)
    exact = distribution.fractions[np.clip(places - 1, 0, None)]
    cdf = np.where(places > 0, np.maximum(linear, exact), 0.0)
    cdf[edges >= values[-1]] = 1.0
    return np.asarray(cdf)


def _curves(members: Sequence[MemberCurve], cdfs: Floats, xs: Floats) -> list[Markup]:
    if not len(members):
        return []
    density = np.diff(cdfs, axis=1)
    density[:, 0] += cdfs[:, 0]
    tall = plot.Axis(0.0, float(np.nanmax(density)) or 1.0, _CURVES, 4.0)
    shown = np.arange(len(members))
    drawn = []
    if len(members) > MAX_CURVES:
        middle = np.nanmedian(cdfs, axis=0)
        far = np.nan_to_num(np.abs(cdfs - middle).max(axis=1))
        shown = np.sort(np.argsort(-far, kind="stable")[:MAX_CURVES])
        low, high = np.nanpercentile(density, [5, 95], axis=0)
        ys = np.concatenate([tall.many(high), tall.many(low)[::-1]])
        title = f"90 % of {len(members)} members"
        drawn.append(plot.path(np.concatenate([xs, xs[::-1]]), ys, "band", title, closed=True))
    for place, i in enumerate(shown):
        title = members[int(i)].name
        drawn.append(plot.path(xs, tall.many(density[i]), f"curve c{place % 8}", title))
    return drawn


def _rulers(dim: DimFacts, at: plot.Axis) -> list[Markup]:
    """Return where each mode has -1, 0 and 1."""
    modes: list[tuple[str, float | None, float | None]] = [
        ("min, max", dim.min, dim.max),
        ("quantile", dim.q01, dim.q99),
        ("mean±std", dim.mean - dim.std, dim.mean + dim.std),
    ]
    drawn = []
    for row, (name, low, high) in enumerate(modes):
        y = _CURVES + 10 + row * 12
        drawn.append(plot.text(_LEFT - 4, y + 3, name, "small", "end"))
        if low is None or high is None or not np.isfinite(low + high):
            drawn.append(plot.text(_LEFT, y + 3, "no quantiles in this head", "small"))
            continue
        kind = f"ruler m{row}"
        ends = f"-1 at {low:.4g}, 1 at {high:.4g}"
        drawn.append(plot.line(at(low), y, max(at(high), at(low) + 1), y, kind, ends))
        for value in (low, (low + high) / 2, high):
            if not at.low <= value <= at.high:  # the line goes on beyond the picture
                continue
            drawn.append(plot.line(at(value), y - 3, at(value), y + 3, kind))
    return drawn
