"""S: what the numbers of the stats say by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.pooling import is_quantile
from opentau_prep.validate.checks.stats import own_stats_file, vector_stats
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.quantiles import fraction_of
from opentau_prep.validate.rule import RUN_STATS_AGAIN, Rule

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]

_MOMENTS = ("mean", "std", "min", "max")
_IMAGE_SHAPE = (3, 1, 1)
_DEPTH_SHAPE = (1, 1, 1)
# Stats pass through float32.
_ROUNDING = 1e-5
TICKS = 1000
_SMALL = 10
COLLAPSED = 1e-3


def contradictory(view: DatasetView) -> Iterator[Hit]:
    for column, entry in vector_stats(view):
        bad = _contradictions(entry)
        for what, dims in bad.items():
            yield hit(what, file=own_stats_file(view), column=column, dims=dims)


def _contradictions(entry: Mapping[str, npt.NDArray[Any]]) -> dict[str, list[int]]:
    """Return what cannot be, and in which dims; up to float32 rounding."""
    if not all(stat in entry for stat in _MOMENTS):
        return {}
    low, high, mean, std = (
        entry[s].astype(np.float64).ravel() for s in ("min", "max", "mean", "std")
    )
    if len({len(v) for v in (low, high, mean, std)}) > 1:
        return {}
    slack = _ROUNDING * np.maximum(np.abs(low), np.abs(high)) + 1e-12
    with np.errstate(invalid="ignore"):
        found: dict[str, npt.NDArray[Any]] = {
            "min is above max": low > high,
            "mean lies outside min and max": (low <= high)
            & ((mean < low - slack) | (mean > high + slack)),
            "std is negative": std < 0,
            # A bound of Popoviciu's: values within a range cannot deviate by more than half of it.
            "std is larger than half the range": (low <= high)
            & (std > (high - low) / 2 * 1.05 + slack),
        }
        quantiles = sorted((s for s in entry if is_quantile(s)), key=lambda s: fraction_of(s) or 0)
        rows = [entry[s].astype(np.float64).ravel() for s in quantiles]
        if rows and all(len(row) == len(low) for row in rows):
            block = np.stack([low - slack, *rows, high + slack])
            lowest = np.diff(block, axis=0).min(axis=0)
            found["quantiles are not in order between min and max"] = (lowest < -slack) & (
                low <= high
            )
    return {what: np.flatnonzero(mask).tolist() for what, mask in found.items() if mask.any()}


def image_stats(view: DatasetView) -> Iterator[Hit]:
    for name, feature in (view.features or {}).items():
        entry = (view.stats or {}).get(name)
        if not feature.is_camera or entry is None:
            continue
        depth = is_depth(view, name)
        shape = _DEPTH_SHAPE if depth else _IMAGE_SHAPE
        wrong = {s: v.shape for s, v in entry.items() if s != "count" and v.shape != shape}
        if wrong:
            stat, found = next(iter(wrong.items()))
            yield hit(
                f"{stat} has the shape {found}, not {shape}", file=own_stats_file(view), column=name
            )
            continue
        top = entry.get("max")
        brightest = 0.0 if top is None else float(np.fmax.reduce(top.astype(np.float64).ravel()))
        if brightest > 1.0 + _ROUNDING and not depth:
            yield hit(
                f"its max is {brightest:g}: pixels of 0 to 255, not 0 to 1",
                file=own_stats_file(view),
                column=name,
            )


def is_depth(view: DatasetView, name: str) -> bool:
    """Tell whether a camera is a depth map: LeRobot's marks, old and new, or a single channel."""
    features = (view.info or {}).get("features")
    raw = features.get(name) if isinstance(features, Mapping) else None
    for part in ("info", "video_info"):
        details = raw.get(part) if isinstance(raw, Mapping) else None
        if isinstance(details, Mapping) and any(
            details.get(mark) is True for mark in ("is_depth_map", "video.is_depth_map")
        ):
            return True
    shape = (view.features or {})[name].shape
    return len(shape) == 3 and 1 in (shape[0], shape[2])


def constant_dims(view: DatasetView) -> Iterator[Hit]:
    for column, entry in vector_stats(view):
        if "min" not in entry or "max" not in entry or entry["min"].shape != entry["max"].shape:
            continue
        dims = np.flatnonzero(entry["min"] == entry["max"])
        if len(dims):
            values = [f"{float(entry['min'].ravel()[d]):g}" for d in dims]
            yield hit(
                f"always has the same value: {listed(values)}",
                file=own_stats_file(view),
                column=column,
                dims=dims,
            )


def collapsed_range(view: DatasetView) -> Iterator[Hit]:
    for column, entry in vector_stats(view):
        ends = [entry[stat] for stat in ("min", "q01", "q99", "max") if stat in entry]
        if len(ends) < 4 or len({end.shape for end in ends}) > 1:
            continue
        low, q01, q99, high = (end.astype(np.float64).ravel() for end in ends)
        dims = np.flatnonzero((high > low) & (q99 - q01 < COLLAPSED * (high - low)))
        if len(dims):
            words = [f"{q01[d]:g} to {q99[d]:g} of {low[d]:g} to {high[d]:g}" for d in dims]
            yield hit(
                f"98 % of the values are one value, and the rest is not: {listed(words, 3)}",
                file=own_stats_file(view),
                column=column,
                dims=dims,
            )


def mixed_scales(view: DatasetView) -> Iterator[Hit]:
    for column, entry in vector_stats(view):
        if "min" not in entry or "max" not in entry or entry["min"].shape != entry["max"].shape:
            continue
        largest = np.maximum(np.abs(entry["min"]), np.abs(entry["max"])).ravel()
        ticks = np.flatnonzero(largest >= TICKS)
        if len(ticks) and ((largest > 0) & (largest <= _SMALL)).any():
            yield hit(
                f"dims reach {float(largest[ticks].max()):,.0f} next to others that stay below"
                f" {_SMALL}",
                file=own_stats_file(view),
                column=column,
                dims=ticks,
            )


_AGAIN = "Recompute them from the frames; the old file is kept."
RULES = (
    Rule(
        "S009",
        "stats-contradictory",
        "error",
        "Stats that no data can have: min above max, a mean or quantiles outside of them, a"
        " negative std, or a std beyond half the range (5 % are allowed).",
        "They were edited, mixed up, or computed of something else: values are scaled wrongly.",
        _AGAIN,
        contradictory,
        command=RUN_STATS_AGAIN,
    ),
    Rule(
        "S013",
        "image-stats",
        "warning",
        "Stats of a camera do not have the shape (3, 1, 1), or go beyond 1. Depth cameras (LeRobot"
        " 0.6: `is_depth_map`, or one channel) have (1, 1, 1) and their own unit.",
        "Pictures are normalized as values of 0 to 1 per channel. By default, OpenTau and"
        " LeRobot replace mean and std by ImageNet's and keep min and max.",
        "Compute the camera's stats again with the tool that wrote the dataset.",
        image_stats,
    ),
    Rule(
        "S014",
        "constant-dim",
        "warning",
        "A dim of the state or the actions has one value throughout the dataset.",
        "Its range is zero: noise on the robot becomes a huge normalized value, and a shared head"
        " gets a dim that means nothing here.",
        "Leave the dim out with state_index or action_index, unless it is meant.",
        constant_dims,
    ),
    Rule(
        "S021",
        "collapsed-range",
        "warning",
        f"q01 and q99 of a dim lie within {COLLAPSED:.1%} of its range, yet min and max do not: a"
        " gripper or a joint that moves in fewer than 2 % of the frames.",
        "Quantile normalization divides by that difference: the frames in which the dim does move"
        " become values in the thousands. Min and max, or mean and std, are not affected.",
        "Normalize the dim with min and max, select more episodes that use it, or leave it out with"
        " state_index and action_index.",
        collapsed_range,
    ),
    Rule(
        "S015",
        "mixed-scales",
        "warning",
        f"Within one vector some dims reach {TICKS:,} and others stay below {_SMALL}: motor ticks"
        " next to radians.",
        "A dataset in ticks that shares a head with one in radians squeezes the latter to a point;"
        " delta actions mix units.",
        "Convert the ticks, or give the dataset a control_mode of its own.",
        mixed_scales,
    ),
)
