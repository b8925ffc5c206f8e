"""Pool the stats of several contributors into one: the rule that heads and datasets share."""

from opentau_prep.pooling.aggregate import (
    PooledFeature,
    aggregate_stacked,
    aggregate_stats,
    pool_feature,
)
from opentau_prep.pooling.columns import is_quantile

__all__ = ["PooledFeature", "aggregate_stacked", "aggregate_stats", "is_quantile", "pool_feature"]
