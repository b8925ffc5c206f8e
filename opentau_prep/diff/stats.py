"""Two sources of stats: by how much the same value is normalized differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.forecast.formulas import STATS_OF_MODE
from opentau_prep.forecast.measure import affine_of, feature_modes, is_padding
from opentau_prep.heads.members import VECTOR_FEATURES

if TYPE_CHECKING:
    from opentau_prep.forecast.formulas import Affine, Formula, Normalization
    from opentau_prep.forecast.sets import FeatureStats, StatSet, StatsSource

__all__ = ["Moved", "diff_sources", "effect_of"]

# What float32 and other formulas for the same range leave is no change.
_LEAST = 1e-5


@dataclass(frozen=True)
class Moved:
    """One thing that differs.

    Attributes:
        where: What it belongs to: a head, a dataset, or nothing.
        what: The thing, such as `actions 3 under quantile`.
        before: In A; empty where it is not there.
        after: In B.
        effect: By how much normalized values move at the most, anywhere in [-1, 1] of A; None for
            what no value shows.
    """

    where: str
    what: str
    before: str
    after: str
    effect: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the record JSON-ready."""
        return dict(self.__dict__)


def effect_of(a: Affine, b: Affine) -> NDArray[np.float64]:
    """Return (D,) by how much a value in [-1, 1] of `a` moves under `b`, at the most.

    Both are affine, so the change is too, and the largest is at one of the ends.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = [np.abs(b.normalize(a.raw(end)) - end) for end in (-1.0, 1.0)]
    return np.asarray(np.maximum(*ends))


def diff_sources(
    a: StatsSource, b: StatsSource, notes: list[str], formula: Formula | None = None
) -> list[Moved]:
    """Return what moved between stats, one row per set, feature, dim: the mode it moves most in."""
    moved: list[Moved] = []
    if a.formula != b.formula and formula is None:
        notes.append(
            f"A is normalized by {a.formula}'s formula, B by {b.formula}'s; --formula takes one"
        )
    for name, one, other in _pairs(a.sets, b.sets):
        if one is None or other is None:
            moved.append(Moved(name, "stats", "there" if one else "", "there" if other else ""))
            continue
        formulas = (formula or a.formula, formula or b.formula)
        for feature in VECTOR_FEATURES:
            moved += _feature(name, feature, one, other, formulas)
        if set(one.members) != set(other.members) and (one.members or other.members):
            moved.append(Moved(name, "members", _names(one.members), _names(other.members)))
    return moved


def _pairs(
    a: Sequence[StatSet], b: Sequence[StatSet]
) -> Iterator[tuple[str, StatSet | None, StatSet | None]]:
    if len(a) == len(b) == 1:
        yield a[0].name or b[0].name, a[0], b[0]
        return
    others = {each.name: each for each in b}
    for each in a:
        yield each.name, each, others.pop(each.name, None)
    for name, each in others.items():
        yield name, None, each


def _feature(
    name: str, feature: str, a: StatSet, b: StatSet, formulas: tuple[Formula, Formula]
) -> Iterator[Moved]:
    one, other = a.features.get(feature), b.features.get(feature)
    if not one or not other:
        if one or other:
            yield Moved(name, feature, "there" if one else "", "there" if other else "")
        return
    widths = [len(next(iter(stats.values()))) for stats in (one, other)]
    width = min(widths)
    if widths[0] != widths[1] and not (is_padding(one, width) and is_padding(other, width)):
        yield Moved(name, f"{feature}: dims", str(widths[0]), str(widths[1]), float("inf"))
    cut = [{s: v[:width] for s, v in stats.items()} for stats in (one, other)]
    yield from _dims(name, feature, cut, formulas)
    lost = sorted(set(cut[0]) ^ set(cut[1]))
    if lost:
        yield Moved(name, f"{feature}: stats", _names(sorted(cut[0])), _names(sorted(cut[1])))


def _dims(
    name: str, feature: str, cut: Sequence[FeatureStats], formulas: tuple[Formula, Formula]
) -> Iterator[Moved]:
    """Yield each dim that moves, under the mode in which it moves most."""
    worst: dict[int, tuple[float, Normalization]] = {}
    for mode in feature_modes(cut[0]):
        before, after = (affine_of(f, mode, s) for f, s in zip(formulas, cut, strict=True))
        # The 10 % quantiles are LeRobot's alone, and move as the others do.
        if mode == "quantile10" or before is None or after is None:
            continue
        effects = np.nan_to_num(effect_of(before, after), nan=0.0, posinf=np.inf)
        for dim in np.flatnonzero(effects > _LEAST).tolist():
            worst[dim] = max(worst.get(dim, (0.0, mode)), (float(effects[dim]), mode))
    for dim, (effect, mode) in sorted(worst.items()):
        shown = [_shown(stats, mode, dim) for stats in cut]
        yield Moved(name, f"{feature} {dim} under {mode}", shown[0], shown[1], effect)


def _shown(stats: FeatureStats, mode: Normalization, dim: int) -> str:
    first, second = STATS_OF_MODE[mode]
    return f"{first} {stats[first][dim]:.5g}, {second} {stats[second][dim]:.5g}"


def _names(names: Sequence[str]) -> str:
    from opentau_prep.notices import some_names

    return some_names(names)
