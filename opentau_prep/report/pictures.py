"""What the page shows next to the verdict: every picture of a mixture, as facts and markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from opentau_prep.errors import PrepError
from opentau_prep.forecast.measure import affine_of
from opentau_prep.forecast.members import read_members
from opentau_prep.forecast.prepare import forecast_members, own_heads
from opentau_prep.forecast.report import ForecastOptions
from opentau_prep.notices import collect_notices
from opentau_prep.report import plot
from opentau_prep.report.dims import MemberCurve, dim_picture
from opentau_prep.report.figures import (
    Shown,
    chunk_curves,
    episode_curves,
    speed_histograms,
    token_histograms,
)
from opentau_prep.report.samples import MAX_DATASETS, chunks, episodes
from opentau_prep.text import several

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.forecast.formulas import Normalization
    from opentau_prep.forecast.members import Member
    from opentau_prep.forecast.report import MemberForecast
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.verdict.details import HeadFacts
    from opentau_prep.verdict.facts import Verdict

__all__ = ["HeadPictures", "Pictures", "draw"]

Floats = NDArray[np.float64]

# A page of hundreds of datasets stays below 8 MB: dims beyond so much markup have no picture.
# One of a single curve takes about 2 KB, one of six curves 6 KB.
MAX_DIM_MARKUP = 5_000_000
_FLOWS = 24
_SHARE_LEVELS = (0.0005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5)
_USED_LEVELS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
_FEATURES = ("state", "actions")


@dataclass(frozen=True)
class DimPicture:
    """One dim of a head: its picture, and the numbers under it."""

    name: str
    feature: str
    dim: int
    picture: Markup
    beyond: float
    used: float


@dataclass(frozen=True)
class HeadPictures:
    """One head.

    Attributes:
        head: Its facts.
        dims: Its dims, those with a picture.
        n_hidden: How many dims have none, for want of room.
        legend: (class, member) of the curves in the pictures.
        beyond: The largest share beyond the range of any dim and member.
    """

    head: HeadFacts
    dims: Sequence[DimPicture]
    n_hidden: int
    legend: Sequence[str]
    beyond: float


@dataclass(frozen=True)
class Pictures:
    """Every picture of the page; empty ones are left out of it.

    Attributes:
        mixture: Datasets flow into heads by share.
        beyond: Heat map of the shares beyond the range.
        used: Heat map of the used ranges.
        beyond_mode: The mode of `beyond`.
        heads: Heads with their dims.
        speed: Histograms per task.
        n_speed_hidden: Tasks without one.
        tokens: Histograms of token lengths.
        chunks: Chunks through the tokenizer.
        trajectories: Episodes.
        n_without: Datasets without trajectories, for want of room or of data on this machine.
        forecast: What the mixture's own heads make of its data; findings.
    """

    mixture: Markup | None = None
    beyond: Markup | None = None
    used: Markup | None = None
    beyond_mode: str = ""
    heads: Sequence[HeadPictures] = ()
    speed: Sequence[Shown] = ()
    n_speed_hidden: int = 0
    tokens: Sequence[Shown] = ()
    chunks: Sequence[Shown] = ()
    trajectories: Sequence[Shown] = ()
    n_without: int = 0
    forecast: Sequence[MemberForecast] = field(default_factory=tuple)


def draw(
    facts: Verdict,
    resolved: ResolvedMixture,
    context: RunContext,
    *,
    tokenizer: Path,
    frames: bool = True,
) -> Pictures:
    """Return the pictures of a mixture.

    Args:
        facts: What was judged.
        resolved: The mixture.
        context: Where artifacts are.
        tokenizer: The tokenizer's folder.
        frames: Whether a few episodes may be read.
    """
    with collect_notices():  # judging the mixture reported them already
        seen = _look(resolved, context)
        shown_chunks = chunks(resolved, context, tokenizer) if frames else []
        trajectories, without = _trajectories(seen) if frames else ([], len(seen.members))
    heads = _heads(facts, seen)
    beyond, mode = _beyond(seen.forecast)
    speed, hidden = speed_histograms(facts.speed)
    return Pictures(
        mixture=_flow(facts),
        beyond=_heat(heads, beyond, _SHARE_LEVELS, f"share beyond 1 under {mode}"),
        used=_heat(heads, _used(seen.forecast), _USED_LEVELS, "used part of the range"),
        beyond_mode=mode,
        heads=_with_shares(heads, beyond),
        speed=speed,
        n_speed_hidden=hidden,
        tokens=token_histograms(facts.tokenizer),
        chunks=[chunk_curves(each) for each in shown_chunks],
        trajectories=trajectories,
        n_without=without,
        forecast=seen.forecast,
    )


@dataclass(frozen=True)
class _Seen:
    """The datasets with their distributions, and what their heads make of them."""

    members: Sequence[Member] = ()
    forecast: Sequence[MemberForecast] = ()
    stats: Mapping[str, Mapping[str, Mapping[str, Floats]]] = field(default_factory=dict)


def _look(resolved: ResolvedMixture, context: RunContext) -> _Seen:
    """Return nothing where heads or stats cannot be read: the verdict says so already."""
    options = ForecastOptions()
    try:
        source = own_heads(resolved, context, options, audit=False)  # the verdict has the audit
        members = read_members(resolved, artifact_root=context.artifact_root)
        forecast = forecast_members(members, source, options, "")
    except PrepError:
        return _Seen()
    return _Seen(members, forecast, {each.name: each.features for each in source.sets})


def _flow(facts: Verdict) -> Markup | None:
    """Return datasets flowing into heads; small ones of a head together."""
    shares = {d.name: d.share or 0.0 for d in facts.mixture.datasets}
    heads = [head for head in facts.heads.heads if any(m in shares for m in head.members)]
    if not heads:
        return None
    heads = sorted(heads, key=lambda h: -sum(shares.get(m, 0) for m in h.members))
    kept, rest = heads[:12], heads[12:]
    right = [(h.key, f"{several(len(h.members), 'dataset')}, {h.frames:,.0f} frames") for h in kept]
    if rest:
        frames = sum(h.frames for h in rest)
        right.append((f"{len(rest)} more heads", f"{frames:,.0f} frames"))
    left: list[tuple[str, float, int]] = []
    most = max(1, _FLOWS // len(right))
    for target, head in enumerate(kept):
        names = sorted(head.members, key=lambda m: -shares.get(m, 0))
        left += [(name, shares.get(name, 0.0), target) for name in names[:most]]
        if len(names) > most:
            others = sum(shares.get(m, 0.0) for m in names[most:])
            left.append((f"{len(names) - most} more", others, target))
    if rest:
        total = sum(shares.get(m, 0.0) for h in rest for m in h.members)
        left.append((f"datasets of {len(rest)} more heads", total, len(kept)))
    described = f"{len(shares)} datasets and their {len(heads)} norm heads, by sampled share"
    return plot.flows(left, right, described)


def _heads(facts: Verdict, seen: _Seen) -> list[HeadPictures]:
    members = {member.name: member for member in seen.members}
    room = MAX_DIM_MARKUP
    found = []
    for head in facts.heads.heads:
        dims = []
        own = [members[name] for name in head.members if name in members]
        hidden = 0
        for feature, all_dims in (("state", head.state), ("actions", head.actions)):
            curves = [
                MemberCurve(m.name, m.features[feature].distribution)
                for m in own
                if feature in m.features and m.features[feature].distribution.dims >= len(all_dims)
            ]
            for dim in all_dims:
                if room <= 0:
                    hidden += 1
                    continue
                label = f"{feature} {dim.dim}" + (f" {dim.name}" if dim.name else "")
                picture = dim_picture(dim, curves, label)
                room -= len(picture)
                dims.append(DimPicture(label, feature, dim.dim, picture, np.nan, np.nan))
        legend = [m.name for m in own] if len(own) <= 6 else []
        found.append(HeadPictures(head, dims, hidden, legend, np.nan))
    return found


def _beyond(forecast: Sequence[MemberForecast]) -> tuple[dict[tuple[str, str], Floats], str]:
    """Return (head, feature) -> shares beyond 1 per dim, the largest of all members."""
    known = {mode.mode for member in forecast for mode in member.modes}
    mode = "quantile" if "quantile" in known else "mean_std"
    return _largest(forecast, mode, "beyond"), mode


def _used(forecast: Sequence[MemberForecast]) -> dict[tuple[str, str], Floats]:
    """Return (head, feature) -> used part of the range per dim, the smallest of all members."""
    return {k: -v for k, v in _largest(forecast, "min_max", "used").items()}


def _largest(
    forecast: Sequence[MemberForecast], wanted: str, what: str
) -> dict[tuple[str, str], Floats]:
    found: dict[tuple[str, str], Floats] = {}
    for member in forecast:
        for mode in member.modes:
            if mode.mode != wanted:
                continue
            values = [d.beyond[0] if what == "beyond" else -d.used for d in mode.dims]
            key, row = (member.norm_key, mode.feature), np.array(values)
            before = found.get(key)
            if before is not None and len(before) == len(row):
                row = np.fmax(before, row)
            found[key] = row
    return found


def _heat(
    heads: Sequence[HeadPictures],
    values: Mapping[tuple[str, str], Floats],
    levels: Sequence[float],
    what: str,
) -> Markup | None:
    widths = [
        max((len(getattr(each.head, feature)) for each in heads), default=0)
        for feature in _FEATURES
    ]
    if not heads or not sum(widths):
        return None
    table = np.full((len(heads), sum(widths)), np.nan)
    for row, each in enumerate(heads):
        for start, feature in ((0, "state"), (widths[0], "actions")):
            found = values.get((each.head.key, feature))
            if found is not None:
                table[row, start : start + len(found)] = found[: sum(widths) - start]
    described = f"{what}, a row per head and a column per dim: state, then actions"
    names = [each.head.key for each in heads]
    return plot.heat_map(table, names, described, levels=levels, split=widths[0])


def _with_shares(
    heads: Sequence[HeadPictures], values: Mapping[tuple[str, str], Floats]
) -> list[HeadPictures]:
    found = []
    for each in heads:
        own = [values[key] for f in _FEATURES if (key := (each.head.key, f)) in values]
        flat = np.concatenate(own) if own else np.array([np.nan])
        finite = flat[np.isfinite(flat)]
        worst = float(finite.max()) if finite.size else float("nan")
        found.append(HeadPictures(each.head, each.dims, each.n_hidden, each.legend, worst))
    return found


def _trajectories(seen: _Seen) -> tuple[list[Shown], int]:
    shown: list[Shown] = []
    without = 0
    for member in seen.members:
        stats = seen.stats.get(member.norm_key, {}).get("actions")
        if stats is None or "actions" not in member.features or len(shown) >= MAX_DATASETS:
            without += 1
            continue
        own = member.features["actions"]
        width = own.distribution.dims
        cut = {name: values[:width] for name, values in stats.items()}
        mode: Normalization = "quantile" if "q01" in cut else "min_max"
        affine = affine_of("opentau", mode, cut)
        found = [] if affine is None or own.is_delta else episodes(member, "actions", affine)
        if not found:
            without += 1
            continue
        shown.append(episode_curves(member.name, mode, found))
    return shown, without
