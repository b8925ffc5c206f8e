"""Whose dims take whose place: the signature of each dim of a head, and how far members stray.

A dim's signature is (mean, log std, minimum, maximum), on the scale that the other members give the
place that it has. Members stray from the usual signature by a multivariate Student t: each
place has its own widths, drawn towards those of all places (a few members tell little about each),
and one correlation holds for all, as a mean moves its extremes along.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAD", "Signatures", "fit_signatures", "nanmedian", "reordered", "swapped"]

Floats = NDArray[np.float64]
Dims = NDArray[np.intp]

# Numbers in a signature.
_N = 4
# Degrees of freedom of the Student t, beyond one per member: the more members there are, the better
# is known how far they stray.
_NU = 5.0
# How far members stray before any was seen, its share in what is expected of all places, and for
# how many members that is in each.
_PRIOR = np.array([0.5, 0.35, 0.7, 0.7])
_PRIOR_SHARE = 0.3
_POOLED_WEIGHT = 10.0
# Strays beyond so many widths (by the median absolute deviation) are cut there.
_CUT = 3.0
# The median absolute deviation of normal values, times this, is their standard deviation.
MAD = 1.4826
# Far is far, and squares stay finite.
_FAR = 1e6
# No correlation is expected, as if from so many signatures.
_UNCORRELATED = 20.0
# The variance of a normal sample's median is about so many times that of the sample, over n.
_MEDIAN_VARIANCE = 1.5
# What 90 % of the squares of a usual member stay below: chi square with four degrees of freedom.
_SHARE, _USUAL = 0.9, 7.78
# So many members, evenly chosen, show what right ones look like in another order.
_MANY = 32


@dataclass(frozen=True)
class Signatures:
    """The signatures of K dims of a head, from some of its members.

    Attributes:
        dims: (K,) those that move in most members.
        scale: (K,) median stds.
        center: (4, K) median signatures.
        width: (4, K) how far members stray from them.
        precision: (4, 4) the inverse of how the four stray together.
        n_members: How many members that is from.
        some: (M, 4, D) stats of some of these.
    """

    dims: Dims
    scale: Floats
    center: Floats
    width: Floats
    precision: Floats
    n_members: int
    some: Floats

    @cached_property
    def others(self) -> Floats:
        """(M, K, K) of some members, the log density of dim j in the place of i; NaN if broken."""
        squares = _squares(self, self.some)
        own = np.diagonal(squares, axis1=1, axis2=2)
        squares /= np.array([_strays(row) for row in own])[:, None, None]
        return _log_density(self, squares, np.arange(len(self.dims)))

    def table(self, stats: Floats, usable: NDArray[np.bool_]) -> tuple[Dims, Floats]:
        """Return which (L,) of the K dims are usable, and (L, L) log densities of j in place of i.

        A member that strays in most places, even in the order that suits it best, is one that
        strays: its densities are those of so much wider signatures.

        Args:
            stats: (4, D) mean, std, minimum and maximum of a member.
            usable: (D,) where they are finite and the dim moves.
        """
        from scipy.optimize import linear_sum_assignment

        kept = np.flatnonzero(usable[self.dims])
        squares = _squares(self, stats[None])[0][np.ix_(kept, kept)]
        squares /= _strays(squares[linear_sum_assignment(squares)])
        return kept, _log_density(self, squares, kept)

    def lost_by_others(self, places: Dims, sources: Dims) -> float:
        """Return the median of the log odds that others lose if `sources` were in `places`."""
        return float(-np.median(np.nan_to_num(reordered(self.others, places, sources))))

    def lost_by_swaps(self, kept: Dims) -> Floats:
        """Return (L, L) what others lose by a swap of two of the kept dims."""
        gains = np.nan_to_num(swapped(self.others[:, kept[:, None], kept]))
        return np.asarray(-np.median(gains, axis=0))


def fit_signatures(members: Floats, dims: Dims) -> Signatures:
    """Return the signatures of some dims.

    Args:
        members: (M, 4, D) mean, std, minimum and maximum of the dims of M members.
        dims: Those that move in most members; their stats are finite in most.
    """
    scale = nanmedian(members[:, 1, dims])
    placed = np.moveaxis(_placed(members[:, :, dims], scale), 1, 0)  # (M, 4, K)
    center = nanmedian(placed)
    width = _widths(placed - center)
    strays = np.clip((placed - center) / width, -_CUT, _CUT)
    some = members[np.unique(np.linspace(0, len(members) - 1, _MANY).astype(np.intp))]
    return Signatures(dims, scale, center, width, _precision(strays), len(members), some)


def reordered(table: Floats, places: Dims, sources: Dims) -> Floats:
    """Return (...) what a (..., L, L) table of log densities gains with `sources` in `places`."""
    gains = table[..., places, sources] - table[..., places, places]
    return np.asarray(gains.sum(axis=-1))


def swapped(table: Floats) -> Floats:
    """Return (..., L, L) what a (..., L, L) table of log densities gains by each swap."""
    own = np.diagonal(table, axis1=-2, axis2=-1)
    return np.asarray(table + np.swapaxes(table, -1, -2) - own[..., :, None] - own[..., None, :])


def nanmedian(values: Floats) -> Floats:
    """Return the medians over the first axis, NaN left out; NaN where there is nothing else.

    As `np.nanmedian` does it, which for few rows goes through masked arrays, at ten times the cost:
    sorting puts NaN last.
    """
    ordered = np.sort(values, axis=0)
    known = np.maximum((~np.isnan(ordered)).sum(axis=0, keepdims=True), 1)
    low = np.take_along_axis(ordered, (known - 1) // 2, axis=0)[0]
    high = np.take_along_axis(ordered, known // 2, axis=0)[0]
    return np.asarray(np.where(low == high, low, (low + high) / 2))


def _placed(stats: Floats, scale: Floats) -> Floats:
    """Return (4, M, K) signatures of (M, 4, K) stats on the scale of (K,) places."""
    mean, std, low, high = np.moveaxis(stats, 1, 0)
    spread = np.log(np.maximum(std, 1e-9 * scale) / scale)
    return np.stack([mean / scale, spread, low / scale, high / scale])


def _widths(strays: Floats) -> Floats:
    """Return (4, K) widths of (M, 4, K) differences from the median."""
    n = len(strays)
    cut = _CUT * MAD * nanmedian(np.abs(strays))
    own = np.nanmean(np.clip(strays, -cut, cut) ** 2, axis=0) * n / max(n - 1, 1)
    typical = np.median(own, axis=1)
    pooled = (1 - _PRIOR_SHARE) * typical + _PRIOR_SHARE * _PRIOR**2
    variance = (_POOLED_WEIGHT * pooled[:, None] + (n - 1) * own) / (_POOLED_WEIGHT + n - 1)
    return np.asarray(np.sqrt(variance * (1 + _MEDIAN_VARIANCE / n)))


def _precision(strays: Floats) -> Floats:
    rows = np.moveaxis(strays, 1, 2).reshape(-1, _N)
    rows = rows[np.isfinite(rows).all(axis=1)]
    products = rows.T @ rows + 1e-9 * np.eye(_N)
    size = np.sqrt(np.diag(products))
    weight = _UNCORRELATED / (_UNCORRELATED + len(rows))
    mixed = (1 - weight) * products / np.outer(size, size) + weight * np.eye(_N)
    return np.asarray(np.linalg.inv(mixed))


def _squares(model: Signatures, stats: Floats) -> Floats:
    """Return (M, K, K) squared distances of (M, 4, D) stats, dim j from the signature of i."""
    chosen = stats[:, :, None, model.dims]  # dim j, seen from each place i
    moved = np.moveaxis(_placed(chosen, model.scale[:, None]), 0, 1)
    strays = (moved - model.center[:, :, None]) / model.width[:, :, None]
    strays = np.clip(strays, -_FAR, _FAR)
    return np.asarray(np.einsum("maij,ab,mbij->mij", strays, model.precision, strays))


def _strays(squares: Floats) -> float:
    """Return how far a member strays, as a factor of at least one."""
    finite = np.sort(squares[np.isfinite(squares)])
    if not finite.size:
        return 1.0
    # As np.quantile does it, at a tenth of the cost.
    place = _SHARE * (len(finite) - 1)
    below = int(place)
    above = min(below + 1, len(finite) - 1)
    usual = finite[below] + (place - below) * (finite[above] - finite[below])
    return max(1.0, float(usual) / _USUAL)


def _log_density(model: Signatures, squares: Floats, kept: Dims) -> Floats:
    """Return (..., L, L) log densities but for a constant, of places that are kept."""
    nu = _NU + model.n_members
    # All but the log std are in the units of the dataset.
    units = np.log(model.width[:, kept]).sum(axis=0) + (_N - 1) * np.log(model.scale[kept])
    return np.asarray(-(nu + _N) / 2 * np.log1p(squares / nu) - units[:, None])
