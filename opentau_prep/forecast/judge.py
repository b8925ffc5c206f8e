"""What is wrong, how bad that is, and whether the stats can be used: findings and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.forecast.mismatch import MISMATCHES
from opentau_prep.forecast.report import ForecastFinding, Verdict, WorstMode, worst_mode
from opentau_prep.forecast.rules import KINDS_OF
from opentau_prep.text import printable

if TYPE_CHECKING:
    from opentau_prep.forecast.measure import DimForecast
    from opentau_prep.forecast.mismatch import Mismatch
    from opentau_prep.forecast.report import ModeForecast

__all__ = ["FeatureJudged", "find", "verdict_of"]

# Shares of values beyond 1, 2 and 5 that right stats stay below, by mode. Quantiles leave 2 %
# beyond 1; of a normal distribution, 5 % lie beyond two stds. A head's quantiles are weighted means
# of its members': of one that moves further than the others any share lies beyond 1.
_MOST = {
    "min_max": (0.05, 0.01, 0.002),
    "quantile": (0.10, 0.04, 0.01),
    "quantile10": (0.50, 0.20, 0.05),
    "mean_std": (1.0, 0.25, 0.01),
}
_MOST_POOLED = (1.0, 0.04, 0.01)
# The largest value where no share is known.
_LARGEST = {"min_max": 2.0, "quantile": 10.0, "quantile10": 20.0, "mean_std": 25.0}
_UNUSED, _UNUSED_MANY = 0.01, 0.05


@dataclass(frozen=True)
class FeatureJudged:
    """Everything about one feature of one dataset that findings are made of.

    Attributes:
        feature: `state` or `actions`.
        names: What its dims are called, or nothing.
        moving: Which of its dims move at all.
        modes: Its numbers, by mode.
        mismatches: What tells it from the stats.
        widths: How many dims the data and the stats have, where that differs.
        fault: What is wrong with the source of the stats itself, if anything.
        is_pooled: Whether the stats are of a norm head of several datasets: pooled quantiles.
        is_own: Whether the stats are of a norm head of this dataset alone, made of its own stats.
    """

    feature: str
    names: Sequence[str]
    moving: Sequence[bool]
    modes: Sequence[ModeForecast]
    mismatches: Sequence[Mismatch]
    widths: tuple[int, int] | None = None
    fault: str | None = None
    is_pooled: bool = False
    is_own: bool = False


def find(dataset: str, judged: FeatureJudged, target: str) -> Iterator[ForecastFinding]:
    """Yield what is wrong, causes first; consequences of a named cause are left out.

    Args:
        dataset: Its name.
        judged: One of its features.
        target: What names the mixture on a command line.
    """
    feature = judged.feature

    def finding(
        kind: str, dims: Iterable[int], what: str, mode: str | None = None
    ) -> ForecastFinding:
        rule, which = KINDS_OF[kind], tuple(dims)
        place = f"{feature} {_listed(which, judged.names)}" if which else feature
        # A message is one line wherever it is repeated, whatever dims are called.
        message = printable(f"{dataset}: {place}: {what}")
        command = rule.command if judged.is_own else ()
        words = [target if word == "{subject}" else word for word in command]
        line = " ".join(words) or None
        return ForecastFinding(
            rule.code, kind, dataset, feature, which, mode, message, rule.fix, line
        )

    if judged.fault is not None:
        yield finding("not normalized", (), judged.fault)
    if judged.widths is not None:
        own, other = judged.widths
        yield finding("width", (), f"{own} dims in the dataset, {other} in the stats")
    explained: set[int] = set()
    for each in judged.mismatches:
        explained.update(each.dims)
        sure = "" if each.exact or each.kind == "unlike" else "looks like "
        yield finding(each.kind, each.dims, f"{sure}{MISMATCHES[each.kind]} ({each.detail})")
    collapsed = _by_dim(judged.modes, lambda dim, _: dim.collapsed)
    for mode, dims in _grouped(collapsed):
        worst = max(dims, key=lambda dim: abs(dim.openpi or 0.0))
        what = (
            f"the range of {_stats_named(mode)} has collapsed; openpi's formula turns"
            f" {worst.largest_raw:.4g} into {_big(worst.openpi or 0.0)}, here it becomes"
            f" {_big(worst.largest)}{_at(worst)}"
        )
        yield finding("collapsed", (d.dim for d in dims), what, mode)
    skip = explained | set(collapsed)
    most = {**_MOST, "quantile": _MOST_POOLED} if judged.is_pooled else _MOST
    beyond = _by_dim(judged.modes, lambda dim, mode: _is_beyond(dim, mode, most[mode]), skip)
    for mode, dims in _grouped(beyond):
        worst = max(dims, key=lambda dim: abs(dim.largest))
        what = f"under {mode}, {_shares(dims)}; the largest is {_big(worst.largest)}{_at(worst)}"
        yield finding("out of range", (d.dim for d in dims), what, mode)
    unused = _unused(judged, skip | set(beyond))
    for mode, dims in _grouped(unused):
        least = min(dims, key=lambda dim: dim.used)
        what = f"under {mode}, the data use {least.used:.1%} of the range at the least"
        yield finding("unused range", (d.dim for d in dims), what, mode)


def verdict_of(
    findings: Sequence[ForecastFinding], stats: str, modes: Sequence[ModeForecast]
) -> tuple[Verdict, str]:
    """Return what to do with the stats, and why in one sentence.

    Args:
        findings: Of one dataset.
        stats: What the stats are called.
        modes: The numbers of the dataset.
    """
    foreign = [f for f in findings if f.code in ("P001", "P011")]
    if foreign:
        return "wrong robot", f"{stats} are of something else: {_short(foreign[0])}"
    named = [f for f in findings if f.code in ("P005", "P006", "P007", "P008", "P009", "P010")]
    if named:
        what = _short(named[0])
        return "recompute", f"{what}: convert the dataset to reuse {stats}, or recompute them"
    if findings:
        return "recompute", f"{stats} do not fit the data: {_short(findings[0])}"
    return "reuse", f"{stats} fit the data{_at_most(worst_mode(modes, ()))}"


def _at_most(worst: WorstMode | None) -> str:
    if worst is None:
        return ""
    place, bound = (
        (2, "five stds") if worst.mode == "mean_std" else (0, f"[-1, 1] under {worst.mode}")
    )
    share = worst.beyond[place]
    if np.isnan(share):
        return f"; how much lies beyond {bound} is known once `stats` has left a sketch"
    return f"; at most {share:.1%} of a dim lies beyond {bound}"


def _is_beyond(dim: DimForecast, mode: str, most: Sequence[float]) -> bool:
    if np.isfinite(dim.beyond[0]):
        return any(share > bound for share, bound in zip(dim.beyond, most, strict=True))
    return bool(abs(dim.largest) > _LARGEST[mode])


def _unused(judged: FeatureJudged, skip: set[int]) -> dict[int, tuple[str, DimForecast]]:
    """Return dims whose data hardly move in the range: one by far, or most of them clearly.

    Where 98 % of the values are equal, the rare others are all the motion there is.
    """

    def below(most: float) -> dict[int, tuple[str, DimForecast]]:
        return _by_dim(
            judged.modes, lambda dim, _: judged.moving[dim.dim] and 0 < dim.used < most, skip
        )

    many = below(_UNUSED_MANY)
    return many if len(many) > 0.5 * max(1, sum(judged.moving)) else below(_UNUSED)


def _by_dim(
    modes: Sequence[ModeForecast], wrong: object, skip: Iterable[int] = ()
) -> dict[int, tuple[str, DimForecast]]:
    """Return dim -> the mode under which it is wrong, the one with the largest value."""
    assert callable(wrong)
    found: dict[int, tuple[str, DimForecast]] = {}
    left_out = set(skip)
    for mode in modes:
        for dim in mode.dims:
            if dim.dim in left_out or not wrong(dim, mode.mode):
                continue
            before = found.get(dim.dim)
            if before is None or abs(dim.largest) > abs(before[1].largest):
                found[dim.dim] = mode.mode, dim
    return found


def _grouped(found: Mapping[int, tuple[str, DimForecast]]) -> list[tuple[str, list[DimForecast]]]:
    groups: dict[str, list[DimForecast]] = {}
    for _, (mode, dim) in sorted(found.items()):
        groups.setdefault(mode, []).append(dim)
    return list(groups.items())


def _shares(dims: Sequence[DimForecast]) -> str:
    known = [dim for dim in dims if np.isfinite(dim.beyond[0])]
    if not known:
        return "values lie far beyond the range (how many is not known without quantiles)"
    worst = max(known, key=lambda dim: dim.beyond)
    one, two, five = worst.beyond
    return f"up to {one:.1%} of the values lie beyond 1, {two:.1%} beyond 2, {five:.1%} beyond 5"


def _stats_named(mode: str) -> str:
    from opentau_prep.forecast.formulas import STATS_OF_MODE

    first, second = next(names for key, names in STATS_OF_MODE.items() if key == mode)
    return f"{first} and {second}" if mode != "mean_std" else "std"


def _at(dim: DimForecast) -> str:
    return "" if dim.episode is None else f" (episode {dim.episode}, frame {dim.frame})"


def _big(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _listed(dims: Sequence[int], names: Sequence[str]) -> str:
    """Return dims as `0 (shoulder), 3` or as ranges where they are many."""
    if names and len(dims) <= 3:
        return ", ".join(f"{d} ({names[d]})" if d < len(names) else str(d) for d in dims)
    parts: list[list[int]] = []
    for dim in sorted(dims):
        if parts and dim == parts[-1][1] + 1:
            parts[-1][1] = dim
        else:
            parts.append([dim, dim])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _short(finding: ForecastFinding) -> str:
    return finding.message.removeprefix(printable(f"{finding.dataset}: "))
