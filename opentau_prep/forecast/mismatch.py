"""What a mismatch between a dataset and the stats it is normalized with looks like.

Two questions, in this order. Are they the same recordings, but for one transformation? Then mean,
std, extremes and quantiles coincide once it is undone, and that names it with certainty. If not:
which of the faults that `heads --audit` knows makes the dataset's stats more probable, with the
stats in the place of the other members? That needs more to say yes, since one other "member" does
not tell how much honest datasets of a robot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from opentau_prep.forecast.distribution import Distribution
from opentau_prep.heads.audit_faults import KINDS, UNITS, suspicions
from opentau_prep.heads.audit_model import DimStats, fit_model

__all__ = ["MISMATCHES", "Mismatch", "find_mismatches", "find_padding"]

Floats = NDArray[np.float64]

MISMATCHES: Mapping[str, str] = {
    **KINDS,
    "degrees": "degrees where the stats are in radians",
    "radians": "radians where the stats are in degrees",
    "ticks": "motor ticks where the stats are in angles",
    "millimetres": "millimetres where the stats are in metres",
    "metres": "metres where the stats are in millimetres",
    "percent": "0 to 100 where the stats are of 0 to 1",
    "fraction": "0 to 1 where the stats are of 0 to 100",
    "dim_order": "dims in another order than in the stats",
    "flipped_sign": "the sign flipped against the stats",
    "inverted": "a gripper that opens where the stats close",
    "offset": "another zero than in the stats",
    "padding": "padding treated as data",
    "pose": "an end-effector pose where the stats are of joint angles",
    "unlike": "unlike the stats; no usual fault explains it",
}
"""Kind -> what the dataset has, in words."""

# Of one recording, after its fault is undone: float32, quantiles read from sketches, a few episodes
# left out. In stds. Few numbers agree by chance, so they must agree better: with the mean alone,
# with the extremes too, with quantiles.
_SAME_MEAN, _SAME_EXTREMES, _SAME = 0.02, 0.05, 0.1
# Gripper-like dims of different recordings have one shape and means this far apart.
_LEAST_SHIFT = 1.0
# Less than this is no mismatch at all, whatever explains it better.
_CLOSE = 0.25
# Log odds against stats that are not of the same recording. Measured with
# scripts/measure_forecast.py on datasets of one robot with different tasks: right ones stay below.
_LEAST_GAIN = {"dim_order": 12.0, "flipped_sign": 6.0, "inverted": 2.0, "pose": 25.0}
_LEAST_GAIN_OTHERWISE = 20.0
# Dims further than so many widths from the stats: another zero where they spread alike, and
# another robot where that is more than half of them.
_FAR = 8.0
# Spreads within this log ratio, a factor of 1.4, count as alike.
_ALIKE = 0.35
_NAMES = ("min", "q01", "q10", "q50", "q90", "q99", "max")
_FRACTIONS = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class Mismatch:
    """One thing that does not fit.

    Attributes:
        kind: One of `MISMATCHES`.
        dims: The dims that it is about.
        detail: With numbers, for a message.
        exact: Whether it is certain: undone, the stats coincide.
    """

    kind: str
    dims: tuple[int, ...]
    detail: str
    exact: bool


def find_mismatches(
    own: Distribution, stats: Mapping[str, Floats], grippers: Sequence[int] = ()
) -> list[Mismatch]:
    """Return what tells a dataset's dims from those that stats are of, the surest first.

    Args:
        own: The D dims of the dataset.
        stats: Stats of the same D dims: mean and std, and any extremes or quantiles.
        grippers: The dims that are called grippers.
    """
    pair = _Pair.of(own, stats)
    if pair is None:
        return []
    found = list(_padding(pair))
    left = pair.judged.copy()
    for each in _exact(pair, left, grippers):
        found.append(each)
        left[list(each.dims)] = False
    if left.any() and (pair.distance[left] > _CLOSE).any():
        found += _probable(pair, left, grippers)
    return _merged(found)


def find_padding(own: Distribution, stats: Mapping[str, Floats]) -> list[Mismatch]:
    """Return the dims that are zero throughout on one side only."""
    pair = _Pair.of(own, stats)
    return [] if pair is None else _merged(list(_padding(pair)))


def _merged(found: Sequence[Mismatch]) -> list[Mismatch]:
    """Return one mismatch per kind, which is as sure as the surest of its dims."""
    kinds: dict[str, Mismatch] = {}
    for each in found:
        first = kinds.setdefault(each.kind, each)
        if first is not each:
            kinds[each.kind] = replace(first, dims=tuple(sorted({*first.dims, *each.dims})))
    return list(kinds.values())


@dataclass(frozen=True)
class _Pair:
    """The dataset and the stats, in the numbers that both have; D dims.

    Attributes:
        own: (S, D) mean, then the quantiles that both have, of the dataset.
        other: (S, D) the same of the stats.
        own_std: (D,) float64.
        other_std: (D,) float64.
        scale: (D,) the same, 1 where not judged.
        judged: (D,) whether both move, so that they can be compared.
        mirror: (S,) which row each becomes when signs are flipped.
    """

    own: Floats
    other: Floats
    own_std: Floats
    other_std: Floats
    scale: Floats
    judged: NDArray[np.bool_]
    mirror: NDArray[np.intp]

    @classmethod
    def of(cls, own: Distribution, stats: Mapping[str, Floats]) -> _Pair | None:
        if "mean" not in stats or "std" not in stats:
            return None
        # Quantiles in pairs, so that flipping a sign finds its partner.
        both = [
            i for i in range(7)
            if {_NAMES[i], _NAMES[6 - i]} <= stats.keys()
            and np.isfinite(own.quantile(_FRACTIONS[i])).any()
        ]  # fmt: skip
        ours = [own.mean, *(own.quantile(_FRACTIONS[i]) for i in both)]
        theirs = [stats["mean"], *(stats[_NAMES[i]] for i in both)]
        place = {i: row for row, i in enumerate(both, 1)}
        mirror = np.array([0, *(place[6 - i] for i in both)], dtype=np.intp)
        a, b = np.stack(ours), np.stack(theirs)
        finite = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
        scale, spread = stats["std"], own.std
        least = 1e-6 * np.maximum(np.abs(stats["mean"]), 1e-6)
        judged = finite & (scale > least) & (spread > 1e-6 * np.maximum(np.abs(own.mean), 1e-6))
        return cls(a, b, spread, scale, np.where(judged, scale, 1.0), judged, mirror)

    @property
    def same(self) -> float:
        """How near dims of the same recordings are, in stds."""
        rows = len(self.own)
        return _SAME if rows >= 6 else _SAME_EXTREMES if rows >= 3 else _SAME_MEAN

    @property
    def distance(self) -> Floats:
        """(D,) how far the dataset's dims are from the stats', in stds of the stats."""
        return self.distance_of(self.own, self.own_std)

    def distance_of(self, own: Floats, own_std: Floats) -> Floats:
        """Return (D,) distances of dims that were changed."""
        return self._against(own, own_std, self.other, self.scale)

    def order_distances(self) -> Floats:
        """Return (D, D): dim j of the dataset in the place of i of the stats."""
        own, other = self.own[:, None, :], self.other[:, :, None]
        return self._against(own, self.own_std[None, :], other, self.scale[:, None])

    @staticmethod
    def _against(own: Floats, own_std: Floats, other: Floats, scale: Floats) -> Floats:
        # The extremes of samples differ more than the rest; the median of the rows is robust.
        rows = np.abs(own - other) / scale
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.abs(np.log(own_std / scale))
        worst = np.maximum(rows.max(axis=0), spread)
        return np.where(np.isfinite(worst), worst, np.inf)

    def scaled(self, factor: float | Floats, shift: float | Floats = 0.0) -> Floats:
        """Return (D,) distances after `factor * (x + shift)`."""
        own = factor * (self.own + shift)
        flipped = np.broadcast_to(np.asarray(factor) < 0, own.shape[1:])
        own = np.where(flipped, own[self.mirror], own)
        return self.distance_of(own, np.abs(factor) * self.own_std)


def _padding(pair: _Pair) -> Iterator[Mismatch]:
    """Yield dims that are zero throughout on one side and move on the other."""
    still = (pair.own == 0).all(axis=0) & (pair.own_std == 0)
    empty = (pair.other == 0).all(axis=0) & (pair.other_std == 0)
    dead = np.flatnonzero(still & ~empty)
    if dead.size:
        detail = "always 0 in the dataset, and data in the stats"
        yield Mismatch("padding", _dims(dead), detail, exact=True)
    alive = np.flatnonzero(empty & (pair.own_std > 0))
    if alive.size:
        detail = "always 0 in the stats, and data in the dataset"
        yield Mismatch("padding", _dims(alive), detail, exact=True)


def _exact(pair: _Pair, judged: NDArray[np.bool_], grippers: Sequence[int]) -> Iterator[Mismatch]:
    """Yield faults after whose undoing the dims coincide with the stats."""
    before = pair.distance
    wrong = judged & (before > _CLOSE)
    taken = np.zeros_like(wrong)

    def explained(after: Floats, same: float = pair.same) -> NDArray[np.intp]:
        return np.flatnonzero(wrong & ~taken & (after < same) & (after < 0.2 * before))

    best: tuple[NDArray[np.intp], str, float] | None = None
    for unit in UNITS:
        dims = explained(pair.scaled(unit.factor, unit.shift))
        if dims.size < unit.share * min(judged.sum(), 5):
            continue
        if dims.size and (best is None or dims.size > best[0].size):
            best = dims, unit.kind, unit.factor
    if best is not None:
        dims, kind, factor = best
        taken[dims] = True
        yield Mismatch(
            kind, _dims(dims), f"{_show(1 / factor)} times the stats' values", exact=True
        )
    order = _order(pair, wrong & ~taken)
    if order:
        places, sources = order
        taken[list(places)] = True
        moved = ", ".join(f"{s} belongs in {p}" for p, s in zip(places, sources, strict=True))
        yield Mismatch("dim_order", places, moved, exact=True)
    # Where an inverted gripper has its new zero is a matter of the mounting.
    center = pair.own[0] + pair.other[0]
    opening = np.isin(np.arange(len(wrong)), list(grippers)) if len(grippers) else _opens(pair)
    dims = explained(np.where(opening, pair.scaled(-1.0, -center), np.inf))
    if dims.size:
        taken[dims] = True
        yield Mismatch("inverted", _dims(dims), "its range is mirrored", exact=True)
    # Any mean is another one plus an offset: with mean and std alone, a sign is tried generously
    # before, and neither is certain.
    certain = len(pair.own) > 1
    dims = explained(pair.scaled(-1.0), pair.same if certain else _SAME)
    if dims.size:
        taken[dims] = True
        yield Mismatch("flipped_sign", _dims(dims), "minus the stats' values", exact=certain)
    shift = pair.other[0] - pair.own[0]
    far = np.abs(shift) > _LEAST_SHIFT * pair.scale
    dims = explained(np.where(far, pair.scaled(1.0, shift), np.inf))
    if dims.size:
        shifts = ", ".join(_show(-shift[d]) for d in dims[:6])
        yield Mismatch("offset", _dims(dims), f"shifted by {shifts}", exact=certain)


def _order(pair: _Pair, wrong: NDArray[np.bool_]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the places whose dims are somewhere else, and where."""
    from scipy.optimize import linear_sum_assignment

    dims = np.flatnonzero(wrong)
    if len(dims) < 2:
        return None
    table = np.minimum(pair.order_distances()[np.ix_(dims, dims)], 1e6)
    np.fill_diagonal(table, 1e6)
    places, sources = linear_sum_assignment(table)
    near = table[places, sources] < pair.same
    moved = dims[places[near]], dims[sources[near]]
    # A closed set of dims: what is missing in one place is in another.
    if not near.any() or set(moved[0].tolist()) != set(moved[1].tolist()):
        return None
    return _dims(moved[0]), _dims(moved[1])


def _opens(pair: _Pair) -> NDArray[np.bool_]:
    """Return (D,) whether the stats are of something that opens and closes between 0 and 1."""
    low, high = pair.other[1 % len(pair.other)], pair.other[-1]
    return np.asarray((low > -0.1) & (low < 0.3) & (high > 0.5) & (high < 1.2))


def _probable(pair: _Pair, left: NDArray[np.bool_], grippers: Sequence[int]) -> Iterator[Mismatch]:
    """Yield what `heads --audit` would say, had the head one other member with these stats."""
    own, other = _dim_stats(pair, pair.own, pair.own_std), _dim_stats(pair, pair.other, pair.scale)
    masked = DimStats(*(np.where(left, x, np.nan) for x in (own.mean, own.std, own.low, own.high)))
    model = fit_model([other])
    for _ in range(len(left)):
        fits = [
            s for s in suspicions(model, masked, grippers, few_members=0.0)
            if s.kind != "unlike" and s.gain >= _LEAST_GAIN.get(s.kind, _LEAST_GAIN_OTHERWISE)
        ]  # fmt: skip
        if not fits:
            break
        best = max(fits, key=lambda s: s.gain)
        dim = max(best.dims, key=lambda d: float(np.abs(model.z(masked)[:, d]).max()))
        detail = (
            f"dim {dim} has mean {_show(masked.mean[dim])} and std {_show(masked.std[dim])}, the"
            f" stats {_show(other.mean[dim])} and {_show(other.std[dim])}"
        )
        yield Mismatch(best.kind, best.dims, detail, exact=False)
        if best.repaired is None:
            return
        masked = best.repaired
    deviations = np.abs(model.z(masked))
    far = np.flatnonzero(deviations.max(axis=0) > _FAR)
    if len(far) <= 0.5 * pair.judged.sum():
        with np.errstate(divide="ignore", invalid="ignore"):
            alike = np.abs(np.log(masked.std / other.std)) < _ALIKE
        moved = far[(deviations[0] > _FAR)[far] & alike[far]]
        if moved.size:
            shifts = ", ".join(_show(masked.mean[d] - other.mean[d]) for d in moved[:6])
            yield Mismatch("offset", _dims(moved), f"shifted by about {shifts}", exact=False)
    else:
        detail = f"{len(far)} of {int(pair.judged.sum())} dims lie far from the stats"
        yield Mismatch("unlike", _dims(far), detail, exact=False)


def _dim_stats(pair: _Pair, rows: Floats, std: Floats) -> DimStats:
    low, high = (rows[1], rows[-1]) if len(rows) > 2 else (rows[0] - 2 * std, rows[0] + 2 * std)
    nothing = np.where(pair.judged, 0.0, np.nan)
    return DimStats(rows[0] + nothing, std + nothing, low + nothing, high + nothing)


def _dims(dims: NDArray[np.intp]) -> tuple[int, ...]:
    return tuple(int(d) for d in dims)


def _show(value: float) -> str:
    return f"{float(value):.4g}"
