"""What can be wrong with a member: each fault is a hypothesis about where its numbers come from.

A fault that can be undone (another unit, another order, a mirrored dim) is tested by undoing it:
the gain is by how much the repaired stats of the member are more probable among the others than
the stats as they are, in log odds, with the change of variables accounted for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opentau_prep.heads.audit_model import DimStats, HeadModel, student_t
from opentau_prep.heads.audit_signature import Signatures, reordered, swapped
from opentau_prep.heads.members import VECTOR_FEATURES, HeadMember, dim_names

__all__ = ["KINDS", "UNITS", "Reordered", "Suspicion", "Unit", "reordered_names", "suspicions"]

Floats = NDArray[np.float64]

KINDS = {
    "degrees": "degrees among radians",
    "radians": "radians among degrees",
    "ticks": "motor ticks",
    "millimetres": "millimetres among metres",
    "metres": "metres among millimetres",
    "percent": "0 to 100 where the others have 0 to 1",
    "fraction": "0 to 1 where the others have 0 to 100",
    "dim_order": "dims in another order",
    "dim_names": "dims declared in another order",
    "inverted": "a gripper inverted",
    "flipped_sign": "the sign flipped",
    "pose": "an end-effector pose (position, then angles) among joint angles",
    "unlike": "unlike the other members; no usual fault explains it",
}
_DEGREES = math.pi / 180
_TURN = 2 * math.pi
# Encoders of common servos have 12 bits.
_TICKS_PER_TURN = 4096
_MIN_DIM_GAIN = 3.0
_MIN_SHARE = 0.4
# Of few members, one that is wrong itself moves what is expected of all others.
_FEW_MEMBERS = 50.0


@dataclass(frozen=True)
class Suspicion:
    """One fault that would explain a member's stats.

    Attributes:
        kind: One of `KINDS`.
        dims: The dims it is about.
        gain: Log odds in its favour, what it is known to occur with and the number of things that
            were tried taken off.
        repaired: The stats with the fault undone; None when it cannot be.
        source: For `dim_order`: the dim that belongs in each of `dims`.
    """

    kind: str
    dims: tuple[int, ...]
    gain: float
    repaired: DimStats | None
    source: tuple[int, ...] = ()


@dataclass(frozen=True)
class Unit:
    """Another unit that a dataset can be in: `factor * (x + shift)` undoes it.

    Attributes:
        kind: One of `KINDS`.
        factor: See above.
        shift: See above.
        share: Share of the judged dims that must be affected; 0: one dim will do.
        least: The largest absolute value of an affected dim is at least this.
        below: The largest absolute value after undoing it is below this.
    """

    kind: str
    factor: float
    shift: float
    share: float
    least: float
    below: float = math.inf


UNITS = (
    Unit("degrees", _DEGREES, 0.0, _MIN_SHARE, 1.05 * _TURN, 2 * _TURN),
    Unit("radians", 1 / _DEGREES, 0.0, _MIN_SHARE, 0.0),
    Unit("ticks", _TURN / _TICKS_PER_TURN, -_TICKS_PER_TURN / 2, _MIN_SHARE, 400.0, 4 * _TURN),
    Unit("ticks", 360 / _TICKS_PER_TURN, -_TICKS_PER_TURN / 2, _MIN_SHARE, 720.0),
    Unit("millimetres", 1e-3, 0.0, 0.0, 20.0, 3.0),
    Unit("metres", 1e3, 0.0, 0.0, 0.0),
    Unit("percent", 1e-2, 0.0, 0.0, 2.0, 1.5),
    Unit("fraction", 1e2, 0.0, 0.0, 0.0, 150.0),
)


def suspicions(
    model: HeadModel,
    stats: DimStats,
    grippers: Sequence[int] = (),
    *,
    few_members: float = _FEW_MEMBERS,
) -> Iterator[Suspicion]:
    """Yield the faults that make a member's stats more probable, whatever their gain.

    Args:
        model: Of the other members.
        stats: The member's.
        grippers: The dims that are called grippers.
        few_members: The log odds that another order must gain more against a single member, as it
            may be the wrong one; less against several.
    """
    judged = model.judged & stats.usable
    if not judged.any():
        return
    for unit in UNITS:
        yield from _another_unit(model, stats, unit, judged)
    yield from _another_order(model, stats, judged, few_members)
    yield from _mirrored(model, stats, judged, grippers)
    yield from _pose(model, stats, judged)
    yield from _unlike(model, stats, judged)


def _another_unit(
    model: HeadModel, stats: DimStats, unit: Unit, judged: NDArray[np.bool_]
) -> Iterator[Suspicion]:
    repaired = stats.scaled(unit.factor, unit.shift)
    expected = model
    if unit.kind == "ticks":  # where zero is, and the gear, are the mounting's
        expected = model.widened(mean=unit.factor * _TICKS_PER_TURN / 4, spread=1.2)
    gains = expected.logpdf(repaired) + math.log(unit.factor) - model.logpdf(stats)
    size = np.maximum(np.abs(stats.low), np.abs(stats.high))
    fits = np.maximum(np.abs(repaired.low), np.abs(repaired.high)) < unit.below
    possible = judged & (gains > 0) & (size >= unit.least) & fits
    chosen = possible & (gains > _MIN_DIM_GAIN)
    n_judged = int(judged.sum())
    least = max(min(2, n_judged), unit.share * n_judged) if unit.share else 1
    if chosen.sum() < least:
        return
    if unit.share:  # the fault is known by now: dims that also fit it better have it too
        chosen = possible
    gain = float(gains[chosen].sum()) - math.log(len(UNITS))
    if not unit.share:
        gain -= chosen.sum() * math.log(2 * n_judged)
    if unit.kind == "ticks":  # other dims that count ticks have another gear
        chosen = chosen | (judged & (size >= unit.least) & (model.z(stats)[1] > 3))
        repaired = stats.where(chosen, DimStats(model.center, model.scale, model.low, model.high))
    yield Suspicion(unit.kind, _dims(chosen), gain, stats.where(chosen, repaired))


def _another_order(
    model: HeadModel, stats: DimStats, judged: NDArray[np.bool_], few_members: float
) -> Iterator[Suspicion]:
    signatures = model.signatures
    kept, table = signatures.table(stats.stacked(), judged)
    if len(kept) < 2:
        return
    tried = math.log(len(kept) * (len(kept) - 1) / 2)
    where = signatures.dims[kept]
    for places in _orders(table, signatures, kept, tried):
        sources = np.roll(places, -1)
        gain, cost = float(reordered(table, places, sources)), (len(places) - 1) * tried
        if gain <= cost:
            continue
        # A member in another order gains about what each right one would lose by it: where that
        # is little, the dims are alike, and what this one gains is chance.
        lost = signatures.lost_by_others(kept[places], kept[sources])
        gain = min(gain, lost) - cost - few_members / signatures.n_members
        new = np.arange(len(judged))
        new[where[places]] = where[sources]
        dims = tuple(sorted(where[places].tolist()))
        yield Suspicion("dim_order", dims, gain, stats.taken(new), tuple(new[list(dims)].tolist()))


def _mirrored(
    model: HeadModel, stats: DimStats, judged: NDArray[np.bool_], grippers: Sequence[int]
) -> Iterator[Suspicion]:
    named = np.zeros(len(judged), dtype=bool)
    named[[dim for dim in grippers if dim < len(judged)]] = True  # other stats may be narrower
    # Where no dim is called a gripper: what opens and closes between 0 and 1 is taken for one.
    opens = (model.low > -0.1) & (model.low < 0.3) & (model.high > 0.5) & (model.high < 1.2)
    is_gripper = named | (opens & (not len(grippers)))
    inverted = stats.scaled(-1.0, -(model.low + model.high))
    flipped = stats.scaled(-1.0)
    base = model.logpdf(stats)
    for kind, repaired, mask in (
        ("inverted", inverted, is_gripper),
        ("flipped_sign", flipped, ~is_gripper),
    ):
        gains = model.logpdf(repaired) - base
        tried = math.log(2 if named.any() and kind == "inverted" else 10 * len(judged))
        for dim in np.flatnonzero(judged & mask):
            chosen = np.arange(len(judged)) == dim
            gain = float(gains[dim]) - tried
            yield Suspicion(kind, (int(dim),), gain, stats.where(chosen, repaired))


def _pose(model: HeadModel, stats: DimStats, judged: NDArray[np.bool_]) -> Iterator[Suspicion]:
    if len(judged) < 6 or not judged[:3].all():
        return
    near = (np.abs(stats.mean[:3]) < 2) & (stats.high[:3] - stats.low[:3] < 2)
    if not near.all():
        return
    # Of poses: positions within half a metre of the base, moving by about a decimetre; angles.
    where, moves = np.array([0.5] * 3 + [1.5] * 3), np.array([0.1] * 3 + [0.4] * 3)
    logp = student_t(stats.mean[:6] / where) - np.log(where)
    logp = logp + student_t(np.log(np.maximum(stats.std[:6], 1e-9) / moves) / 0.7) - math.log(0.7)
    gains = np.where(judged[:6], logp - model.logpdf(stats)[:6], 0.0)
    calmer = (stats.std[:3] < 0.7 * model.scale[:3]).all()
    if calmer:
        yield Suspicion("pose", tuple(range(6)), float(gains.sum()) - math.log(20), None)


def _unlike(model: HeadModel, stats: DimStats, judged: NDArray[np.bool_]) -> Iterator[Suspicion]:
    mean = 10 * model.mean_width * model.scale
    logp = student_t((stats.mean - model.center) / mean) - np.log(mean)
    ratio = np.log(np.maximum(stats.std, 1e-9 * model.scale) / model.scale)
    logp = logp + student_t(ratio / 2.0) - math.log(2.0)
    gains = np.where(judged, logp - model.logpdf(stats), 0.0)
    dims = _dims(gains > _MIN_DIM_GAIN)
    if dims:
        yield Suspicion("unlike", dims, float(gains.sum()) - math.log(100), None)


def _orders(
    table: Floats, signatures: Signatures, kept: NDArray[np.intp], least: float
) -> Iterator[NDArray[np.intp]]:
    """Yield cycles of places, each to take the next one's dim: of the best order, and a swap."""
    from scipy.optimize import linear_sum_assignment

    yield from _cycles(linear_sum_assignment(table, maximize=True)[1])
    # Joints that are alike (left and right arms) make long cycles as good as the swap itself.
    gains = swapped(table)
    if gains.max() <= least:
        return
    gains = np.minimum(gains, signatures.lost_by_swaps(kept))
    first, second = np.unravel_index(np.argmax(gains), gains.shape)
    if first != second:
        yield np.array([first, second])


def _cycles(order: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    seen: set[int] = set()
    for start in range(len(order)):
        cycle = []
        at = start
        while at not in seen:
            seen.add(at)
            cycle.append(at)
            at = int(order[at])
        if len(cycle) > 1:
            yield np.array(cycle)


def _dims(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())


@dataclass(frozen=True)
class Reordered:
    """One feature of a member whose dims are declared in another order than most members'.

    Attributes:
        feature: `state` or `actions`.
        own: Its names.
        others: Those of most members that have the same names.
    """

    feature: str
    own: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The dims whose names differ."""
        pairs = zip(self.own, self.others, strict=True)
        return tuple(dim for dim, (own, other) in enumerate(pairs) if own != other)


def reordered_names(group: Sequence[HeadMember]) -> dict[str, list[Reordered]]:
    """Return member -> the features whose dims it declares in another order than the others.

    Only members whose dims have the same names, each once, are compared. What most of them have
    is right; of equally many, what came first.

    Args:
        group: The members of a head.
    """
    found: dict[str, list[Reordered]] = {}
    for feature in VECTOR_FEATURES:
        names = {m.name: dim_names(m.entry, feature, m.kept_dims(feature)) for m in group}
        orders = Counter(own for own in names.values() if own and len(set(own)) == len(own))
        usual: dict[tuple[str, ...], tuple[str, ...]] = {}
        for order, _ in orders.most_common():  # equal counts: in order of appearance
            usual.setdefault(tuple(sorted(order)), order)
        for member, own in names.items():
            others = usual.get(tuple(sorted(own)), own)
            if own in orders and own != others:
                found.setdefault(member, []).append(Reordered(feature, own, others))
    return found
