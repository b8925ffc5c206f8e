"""Pool the stats of several contributors (datasets, or episodes of one) into one.

Masks are per dim: a contributor with a broken value in one dim is left out there and nowhere else.
`aggregate_stats` is what training computes; `pool_feature` is the same for one feature with the
contributors, weights and masks as well, for whoever has to explain the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ConfigError
from opentau_prep.notices import shorten_names, warn
from opentau_prep.pooling.columns import FeatureColumns, StackedColumns

__all__ = ["PooledFeature", "aggregate_stacked", "aggregate_stats", "pool_feature"]

Array = NDArray[Any]
FeatureStats = Mapping[str, Array]


@dataclass(frozen=True)
class PooledFeature:
    """One feature pooled over `n` contributors, and how.

    Attributes:
        stats: The pooled min, max, mean, std and count, then the quantiles that could be pooled.
        contributors: Positions in the list of contributors of those that have the feature.
        weights: What each one's mean and variance are weighted with: (n,) float64 when weights were
            given, else the counts, (n, 1).
        masks: Stat -> (n, *shape) bool, True where that contributor's value takes part in the stat.
        dropped: Quantiles that some contributors carry and others lack, by the positions of those
            that lack them.
    """

    stats: dict[str, Array]
    contributors: tuple[int, ...]
    weights: Array
    masks: dict[str, NDArray[np.bool_]]
    dropped: Mapping[tuple[int, ...], tuple[str, ...]] = field(default_factory=dict)

    @property
    def dropped_quantiles(self) -> tuple[str, ...]:
        """All quantiles that some contributors carry and others lack, sorted."""
        return tuple(sorted(name for names in self.dropped.values() for name in names))


def aggregate_stats(
    stats_list: Sequence[Mapping[str, FeatureStats]],
    weights: Sequence[float] | None = None,
    contributor_names: Sequence[str] | None = None,
    context: str | None = None,
) -> dict[str, dict[str, Array]]:
    """Return the pooled stats of every feature that any contributor has, features sorted by name.

    Per feature and dim, in float64 and in the order of the contributors, with weights w:
    mean = Σw·m / Σw over those with a finite mean; variance = Σw·(s² + (m - mean)²) / Σw over those
    with finite mean and std; min and max over finite values; NaN where nobody is left. `count` is
    the plain sum of the weights. A quantile is the weighted mean of finite values if every
    contributor of the feature carries it; otherwise it is dropped, with a notice
    (`dropped_quantiles`).

    Args:
        stats_list: One `feature -> stat -> array` per contributor; any (..., ) shape of at least
            one axis, the same for all contributors of a feature; `count` has shape (1,).
        weights: One finite number >= 0 per contributor; by default each feature's own `count`.
        contributor_names: One name per contributor, for messages.
        context: What is being pooled (such as a norm key), for messages.

    Returns:
        `feature -> stat -> array`. mean, std and quantiles are float64, min and max keep their
        dtype; `count` has shape () when weights are given, else (1,).

    Raises:
        ConfigError: Weights or names are not parallel to the contributors, or a weight is not a
            finite number >= 0.
        MetadataError: A contributor lacks min, max, mean or std, or `count` while no weights are
            given, or has a stat of another shape than the others.

    Example:
        >>> a = {"x": {"min": [0.0], "max": [2.0], "mean": [1.0], "std": [1.0], "count": [2]}}
        >>> b = {"x": {"min": [4.0], "max": [4.0], "mean": [4.0], "std": [0.0], "count": [1]}}
        >>> aggregate_stats([a, b])["x"]["mean"]
        array([2.])

    Source: OpenTau 0b153a9, `aggregate_stats`, pinned by recorded values.
    """
    names = _checked_names(contributor_names, len(stats_list))
    factors = _checked_weights(weights, len(stats_list))
    pooled: dict[str, dict[str, Array]] = {}
    for feature in sorted({feature for stats in stats_list for feature in stats}):
        record = pool_feature(stats_list, feature, weights=factors, contributor_names=names)
        _warn_dropped(record, feature, names, context)
        pooled[feature] = record.stats
    return pooled


def aggregate_stacked(blocks: Mapping[str, FeatureStats]) -> dict[str, dict[str, Array]]:
    """Return what `aggregate_stats` does, from contributors that are stacked already.

    Args:
        blocks: `feature -> stat -> (n, *shape) array`: n contributors, each of which has all of the
            feature's stats, `count` among them.

    Raises:
        MetadataError: See `aggregate_stats`.
    """
    pooled: dict[str, dict[str, Array]] = {}
    for feature, block in sorted(blocks.items()):
        source = _stacked_columns(feature, block)
        pooled[feature] = _pool(source, source.counts()).stats
    return pooled


def pool_feature(
    stats_list: Sequence[Mapping[str, FeatureStats]],
    feature: str,
    *,
    weights: Sequence[float] | Array | None = None,
    contributor_names: Sequence[str] | None = None,
) -> PooledFeature:
    """Return one feature of `aggregate_stats` with its contributors, weights and masks; no notice.

    Args:
        stats_list: See `aggregate_stats`.
        feature: The feature; at least one contributor has it.
        weights: See `aggregate_stats`.
        contributor_names: See `aggregate_stats`.

    Raises:
        ConfigError: See `aggregate_stats`; also, no contributor has the feature.
        MetadataError: See `aggregate_stats`.
    """
    names = _checked_names(contributor_names, len(stats_list))
    factors = _checked_weights(weights, len(stats_list))
    having = [i for i, stats in enumerate(stats_list) if feature in stats]
    if not having:
        raise ConfigError("no contributor has this feature", where=feature)
    source = FeatureColumns(feature, having, [stats_list[i][feature] for i in having], names)
    given = source.counts() if factors is None else factors[having]
    return _pool(source, given)


def _stacked_columns(feature: str, block: FeatureStats) -> StackedColumns:
    first = {stat: values[0] for stat, values in block.items() if len(values)}
    n = len(next(iter(block.values()), ()))
    return StackedColumns(feature, list(range(n)), [first], None, block)


# An overflow gives an infinity, and 0 / 0 a NaN, as in training.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def _pool(source: FeatureColumns, weights: Array) -> PooledFeature:
    source.check()
    means, squares = source.stack("mean"), source.stack("std", square=True)
    if squares.shape != means.shape:
        raise source.bad_shape(0, "std", squares.shape[1:], means.shape[1:])
    column = weights.reshape(len(weights), *(1,) * (means.ndim - 1))
    masks = {"mean": np.isfinite(means)}
    mean = _weighted_mean(means, column, masks["mean"])
    # A square can overflow where the std itself is finite, but never the other way round.
    masks["std"] = masks["mean"] & np.isfinite(squares)
    variance = _weighted_mean(squares + (means - mean) ** 2, column, masks["std"])
    stats: dict[str, Array] = {}
    for stat, ufunc, neutral in (("min", np.minimum, np.inf), ("max", np.maximum, -np.inf)):
        values = source.stack(stat)
        masks[stat] = np.isfinite(values)
        stats[stat] = _extreme(values, ufunc, neutral, masks[stat])
    stats |= {"mean": mean, "std": np.sqrt(variance), "count": np.asarray(weights.sum(axis=0))}
    complete, dropped = source.quantiles()
    for quantile in complete:
        values = source.stack(quantile)
        masks[quantile] = np.isfinite(values)
        stats[quantile] = _weighted_mean(values, column, masks[quantile])
    return PooledFeature(stats, tuple(source.positions), weights, masks, dropped)


def _weighted_mean(values: Array, weights: Array, mask: NDArray[np.bool_] | None) -> Array:
    """Return Σw·v / Σw over the first axis, contributors, where `mask`; NaN where nothing is left.

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


def _extreme(
    values: Array, ufunc: np.ufunc, neutral: float, mask: NDArray[np.bool_] | None
) -> Array:
    """Return the minimum or maximum over the first axis where `mask`, NaN where nothing is left.

    Args:
        values: (n, ...).
        ufunc: `np.minimum` or `np.maximum`.
        neutral: What never wins.
        mask: See `_weighted_mean`.
    """
    if mask is None or mask.all():
        found: Array = ufunc.reduce(values, axis=0)
        return found
    found = ufunc.reduce(np.where(mask, values, neutral), axis=0)
    return np.where(mask.any(axis=0), found, np.nan)


def _checked_names(names: Sequence[str] | None, n: int) -> Sequence[str] | None:
    if names is not None and len(names) != n:
        raise ConfigError(
            f"contributor_names ({len(names)}) must be parallel to contributors ({n})"
        )
    return names


def _checked_weights(weights: Sequence[float] | Array | None, n: int) -> Array | None:
    if weights is None:
        return None
    try:
        factors = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError("weights must be numbers, one for each contributor") from error
    if factors.shape != (n,):
        raise ConfigError(f"weights ({factors.size}) must be parallel to contributors ({n})")
    if not (np.isfinite(factors) & (factors >= 0)).all():
        bad = np.flatnonzero(~(np.isfinite(factors) & (factors >= 0)))
        raise ConfigError(
            f"weight {factors[bad[0]]} of contributor {bad[0]} is not a finite number >= 0"
        )
    return factors


def _warn_dropped(
    record: PooledFeature, feature: str, names: Sequence[str] | None, context: str | None
) -> None:
    # Contributors that lack the same quantiles are one warning.
    for positions, quantiles in record.dropped.items():
        lacking = [i if names is None else names[i] for i in positions]
        shown, suffix = shorten_names(lacking)
        missing = f"indices [{', '.join(shown)}]" if names is None else ", ".join(shown)
        n = len(record.contributors)
        warn(
            "dropped_quantiles",
            f"{context + ', ' if context else ''}feature {feature!r}: dropping"
            f" {', '.join(map(repr, quantiles))}, which {len(lacking)}/{n} contributors lack"
            f" ({missing}{suffix}); a quantile is pooled when every contributor has it",
            feature=feature,
            context=context,
            quantiles=list(quantiles),
            n_missing=len(lacking),
            n_contributors=n,
            missing=lacking[: len(shown)],
            suffix=suffix,
        )
