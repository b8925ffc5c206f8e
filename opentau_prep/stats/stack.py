"""Stats in the names, shapes and number types of LeRobot's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.metadata.records import Stats
from opentau_prep.pooling import is_quantile
from opentau_prep.stats.columns import Layout
from opentau_prep.stats.moments import Moments
from opentau_prep.stats.quantiles import quantile_name
from opentau_prep.stats.scan import EpisodeStats

__all__ = ["Stacked", "stack_episodes", "stack_whole", "unstack", "with_whole_quantiles"]

Stacked = dict[str, dict[str, NDArray[Any]]]
"""feature -> stat -> (E, *shape) array; `count` is (E, 1)."""

_MOMENTS = ("min", "max", "mean", "std")
Floats = NDArray[np.float64]


def stack_episodes(layout: Layout, episodes: EpisodeStats, q: Sequence[float]) -> Stacked:
    """Return the stats of E episodes as they are in files."""
    return _stack(layout, episodes.values, episodes.quantiles, q, episodes.frames)


def stack_whole(
    layout: Layout, moments: Moments, quantiles: Floats, q: Sequence[float], frames: int
) -> Stacked:
    """Return the stats of the whole dataset, E = 1, from (D,) moments and (Q, D) quantiles."""
    values = {name: getattr(moments, name)[np.newaxis] for name in _MOMENTS}
    return _stack(layout, values, quantiles[np.newaxis], q, np.array([frames]))


def with_whole_quantiles(stacked: Stacked, whole: Stacked) -> Stacked:
    """Return the stats of episodes with the quantiles of the whole dataset in every row."""
    return {
        feature: {
            stat: np.broadcast_to(whole[feature][stat], v.shape) if is_quantile(stat) else v
            for stat, v in stats.items()
        }
        for feature, stats in stacked.items()
    }


def unstack(stacked: Stacked, row: int = 0) -> Stats:
    """Return one row: feature -> stat -> array."""
    return {
        feature: {stat: values[row] for stat, values in stats.items()}
        for feature, stats in stacked.items()
    }


def _stack(
    layout: Layout,
    values: Mapping[str, Floats],
    quantiles: Floats,
    q: Sequence[float],
    frames: NDArray[np.int64],
) -> Stacked:
    stacked: Stacked = {}
    for column in layout.columns:
        where = layout.slices[column.name]
        shape = (len(frames), *column.shape)
        entry: dict[str, NDArray[Any]] = {}
        for name in _MOMENTS:
            block = values[name][:, where].reshape(shape)
            whole = column.is_integer and name in ("min", "max")
            entry[name] = block.astype(np.int64) if whole else block
        entry["count"] = frames.astype(np.int64)[:, np.newaxis]
        for k, fraction in enumerate(q):
            entry[quantile_name(fraction)] = quantiles[:, k, where].reshape(shape)
        stacked[column.name] = entry
    return stacked
