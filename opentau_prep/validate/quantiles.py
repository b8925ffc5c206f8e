"""The rank that a claimed quantile has in the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opentau_prep.metadata.records import IntArray
from opentau_prep.pooling import is_quantile

__all__ = ["RankFault", "fraction_of", "rank_faults"]

_TAIL = 0.1
_TAIL_SLACK = 0.005
_SLACK = 0.02


@dataclass(frozen=True)
class RankFault:
    """A quantile that is none.

    Attributes:
        name: Such as `q01`.
        dims: The dims in which it is off.
        dim: The dim in which it is off most.
        rank: Its rank there.
    """

    name: str
    dims: tuple[int, ...]
    dim: int
    rank: float


def fraction_of(name: str) -> float | None:
    """Return 0.01 for `q01`, 0.999 for `q99.9`; None for what is not the name of a quantile."""
    if not is_quantile(name):
        return None
    percent = float(name[1:].replace("_", "."))
    return percent / 100 if percent <= 100 else None


def rank_faults(
    names: Sequence[str], below: IntArray, equal: IntArray, count: IntArray
) -> dict[str, RankFault]:
    """Return the quantiles whose rank is off in some dim.

    A value has every rank from the share of smaller values to the share of values not above it, so
    that values which many frames share are judged fairly; one frame more or less is allowed.

    Args:
        names: Q names.
        below: (Q, D) values below the quantile.
        equal: (Q, D) values equal to it.
        count: (D,) finite values.
    """
    total = np.maximum(count, 1)
    found: dict[str, RankFault] = {}
    for row, name in enumerate(names):
        wanted = fraction_of(name)
        if wanted is None or row >= len(below):
            continue
        low, high = below[row] / total, (below[row] + equal[row]) / total
        # 1 - 0.9 is a little less than 0.1: q10 and q90 must be judged alike.
        in_tail = min(wanted, 1 - wanted) < _TAIL - 1e-9
        slack = (_TAIL_SLACK if in_tail else _SLACK) + 1 / total
        off = np.maximum(low - wanted, wanted - high)
        dims = np.flatnonzero((off > slack) & (count > 0))
        if len(dims):
            worst = int(dims[np.argmax(off[dims])])
            rank = float(low[worst] if low[worst] > wanted else high[worst])
            found[name] = RankFault(name, tuple(dims.tolist()), worst, rank)
    return found
