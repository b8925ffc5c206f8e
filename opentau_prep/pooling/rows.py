"""The arithmetic of pooling: over contributors, the first axis, in the order of training.

Callers switch NumPy's warnings off: an overflow gives an infinity, and 0 / 0 a NaN, as in training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["extreme", "total_weight", "weighted_mean"]

Array = NDArray[Any]


def weighted_mean(values: Array, weights: Array, mask: NDArray[np.bool_] | None) -> Array:
    """Return Σw·v / Σw over the first axis where `mask`, NaN where nothing is left.

    Masked entries become zeros that are added like the others: the order of additions, and with it
    the last bit, is that of training.

    Args:
        values: (n, ...).
        weights: The same number of axes, to be broadcast.
        mask: Of the shape of `values`; None is True everywhere.
    """
    if mask is not None and mask.all():
        mask = None
    products = (values if mask is None else np.where(mask, values, 0)) * weights
    if mask is not None:
        total = np.where(mask, weights, 0).sum(axis=0)
    elif weights.dtype.kind in "iu":  # exact in any order
        total = weights.sum(axis=0)
    else:
        total = np.broadcast_to(weights, values.shape).copy().sum(axis=0)
    mean: Array = products.sum(axis=0) / total
    return mean


def total_weight(weights: Array) -> Array:
    """Return the plain sum over the first axis: the `count` of what was pooled."""
    return np.asarray(weights.sum(axis=0))


def extreme(
    values: Array, ufunc: np.ufunc, neutral: float, mask: NDArray[np.bool_] | None
) -> Array:
    """Return the minimum or maximum over the first axis where `mask`, NaN where nothing is left.

    Args:
        values: (n, ...).
        ufunc: `np.minimum` or `np.maximum`.
        neutral: What never wins.
        mask: See `weighted_mean`.
    """
    if mask is None or mask.all():
        found: Array = ufunc.reduce(values, axis=0)
        return found
    found = ufunc.reduce(np.where(mask, values, neutral), axis=0)
    return np.where(mask.any(axis=0), found, np.nan)
