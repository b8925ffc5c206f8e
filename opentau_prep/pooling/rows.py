"""The arithmetic of pooling: over contributors, the first axis, in the order of training.

Sums run over the contributors one after the other, whatever stands beside them, as long as there
are two columns or more (NumPy adds a single column in another order). So many stats and features
can stand side by side in one block without a change in the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["N_OTHERS", "extreme", "pool_rows", "total_weight", "weighted_mean"]

N_OTHERS = 3
"""How many rows of a block follow those that are pooled as means: std, min and max."""

Array = NDArray[Any]


def pool_rows(block: Array, weights: Array) -> Array:
    """Return the pooled stats of a block of them.

    Args:
        block: (n, S, W) float64 of n contributors: a row for the mean, one for each quantile, then
            std, min and max. S * W >= 2.
        weights: (n, 1, 1) integers or float64, >= 0.

    Returns:
        (S, W) float64, the rows in the same order.
    """
    n_means = block.shape[1] - N_OTHERS
    mask = np.isfinite(block)
    everyone = bool(mask.all())
    pooled = np.empty(block.shape[1:])
    pooled[:n_means] = weighted_mean(
        block[:, :n_means], weights, None if everyone else mask[:, :n_means]
    )
    with np.errstate(over="ignore", invalid="ignore"):
        squares = block[:, n_means : n_means + 1] ** 2
        spread = squares + (block[:, :1] - pooled[:1]) ** 2
    # A square can overflow where the std itself is finite, but never the other way round.
    usable = np.isfinite(squares)
    usable = None if everyone and usable.all() else mask[:, :1] & usable
    pooled[n_means] = np.sqrt(weighted_mean(spread, weights, usable))[0]
    for row, ufunc, neutral in ((-2, np.minimum, np.inf), (-1, np.maximum, -np.inf)):
        pooled[row] = extreme(block[:, row], ufunc, neutral, None if everyone else mask[:, row])
    return pooled


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
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
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
    with np.errstate(over="ignore"):
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
