"""A dataset's stats the plain way: one NumPy call a number, in float64, over arrays in memory.

Kept apart from the `stats` room on purpose: demo datasets then carry stats that were computed
independently of the code they are used to show and to test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from opentau_prep.demo.columns import Columns

__all__ = ["QUANTILES", "Stats", "column_stats", "image_stats", "pool_image_stats"]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_IMAGE_QUANTILE_Z = {"q01": -2.3, "q10": -1.3, "q50": 0.0, "q90": 1.3, "q99": 2.3}
_MAX_SAMPLED_IMAGES = 100

FeatureStats = dict[str, npt.NDArray[Any]]
Stats = dict[str, FeatureStats]


def column_stats(columns: Columns, *, quantiles: bool) -> Stats:
    """Return min, max, mean, std (population), count and, if asked, quantiles of each column.

    Args:
        columns: Column name to (T,) or (T, D), all of the same T.
        quantiles: Whether to add exact q01, q10, q50, q90 and q99 (linear interpolation).

    Returns:
        Feature to stat to (D,) float64; min and max keep integers; `count` is (1,) int64. All
        zeros, count included, where T is 0.
    """
    return {name: _one(values, quantiles=quantiles) for name, values in columns.items()}


def _one(values: npt.NDArray[Any], *, quantiles: bool) -> FeatureStats:
    rows = values if values.ndim == 2 else values[:, None]
    if rows.dtype == np.bool_:
        rows = rows.astype(np.int64)
    count = np.array([len(rows)], dtype=np.int64)
    if len(rows) == 0:
        rows = np.zeros((1, rows.shape[1]), dtype=rows.dtype)
    wide = rows.astype(np.float64)
    extremes = rows if rows.dtype.kind in "iu" else wide
    out: FeatureStats = {
        "min": extremes.min(axis=0),
        "max": extremes.max(axis=0),
        "mean": wide.mean(axis=0),
        "std": wide.std(axis=0),
        "count": count,
    }
    if quantiles:
        points = np.quantile(wide, list(QUANTILES.values()), axis=0)
        out.update(dict(zip(QUANTILES, points, strict=True)))
    return out


def image_stats(camera: int, episode_index: int, n_frames: int, *, quantiles: bool) -> FeatureStats:
    """Return made-up but plausible stats of a camera in one episode, (3, 1, 1) each.

    No image exists, so these are a smooth function of the camera and the episode; `count` is the
    number of images a recorder would have sampled.
    """
    channel = np.arange(3, dtype=np.float64).reshape(3, 1, 1)
    mean = 0.45 + 0.03 * camera - 0.02 * channel + 0.001 * (episode_index % 7)
    std = 0.20 + 0.01 * camera + 0.005 * channel
    out: FeatureStats = {
        "min": np.zeros((3, 1, 1)),
        "max": np.ones((3, 1, 1)),
        "mean": mean,
        "std": std,
        "count": np.array([min(n_frames, _MAX_SAMPLED_IMAGES)], dtype=np.int64),
    }
    if quantiles:
        for name, z in _IMAGE_QUANTILE_Z.items():
            out[name] = np.clip(mean + z * std, 0.0, 1.0)
    return out


def pool_image_stats(parts: Sequence[FeatureStats]) -> FeatureStats:
    """Return the whole dataset's stats of a camera from those of its episodes."""
    weights = np.array([part["count"][0] for part in parts], dtype=np.float64)
    weights = (weights / max(weights.sum(), 1.0)).reshape(-1, 1, 1, 1)
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    mean = (weights * stacked["mean"]).sum(axis=0)
    variance = (weights * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(axis=0)
    out: FeatureStats = {
        "min": stacked["min"].min(axis=0),
        "max": stacked["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": stacked["count"].sum(axis=0),
    }
    for name in QUANTILES:
        if name in stacked:
            out[name] = (weights * stacked[name]).sum(axis=0)
    return out
