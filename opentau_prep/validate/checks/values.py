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
_ROUNDING = 1e-5
TICKS = 1000
_SMALL = 10


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
        wrong = {s: v.shape for s, v in entry.items() if s != "count" and v.shape != _IMAGE_SHAPE}
        if wrong:
            stat, shape = next(iter(wrong.items()))
            yield hit(f"{stat} has the shape {shape}", file=own_stats_file(view), column=name)
            continue
        top = entry.get("max")
        brightest = 0.0 if top is None else float(np.fmax.reduce(top.astype(np.float64).ravel()))
        if brightest > 1.0 + _ROUNDING:
            yield hit(
                f"its max is {brightest:g}: pixels of 0 to 255, not 0 to 1",
                file=own_stats_file(view),
                column=name,
            )


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


def mixed_scales(view: DatasetView) -> Iterator[Hit]:
    for column, entry in vector_stats(view):
        if "min" not in entry or "max" not in entry or entry["min"].shape != entry["max"].shape:
            continue
        largest = np.maximum(np.abs(entry["min"]), np.abs(entry["max"])).ravel()
        ticks = np.flatnonzero(largest >= TICKS)
        if len(ticks) and ((largest > 0) & (largest <= _SMALL)).any():
            yield hit(
                f"dims reach {float(largest[ticks].max()):,.0f} beside others that stay below"
                f" {_SMALL}",
                file=own_stats_file(view),
                column=column,
                dims=ticks,
            )


_AGAIN = "Compute them again: `opentau-prep stats`."
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
        "Stats of a camera do not have the shape (3, 1, 1), or go beyond 1.",
        "Pictures are normalized as values of 0 to 1 a channel.",
        "Compute the camera's stats again with the tool that wrote the dataset.",
        image_stats,
    ),
    Rule(
        "S014",
        "constant-dim",
        "warning",
        "A dim of the state or the actions has one value throughout the dataset.",
        "Its range is zero: noise on the robot becomes a huge normalized value, and a head that"
        " others share gets a dim that means nothing here.",
        "Leave the dim out with state_index or action_index, unless it is meant.",
        constant_dims,
    ),
    Rule(
        "S015",
        "mixed-scales",
        "warning",
        f"Within one vector some dims reach {TICKS:,} and others stay below {_SMALL}: motor ticks"
        " beside radians.",
        "A dataset in ticks that shares a head with one in radians squeezes the latter to a point;"
        " delta actions mix units.",
        "Convert the ticks, or give the dataset a control_mode of its own.",
        mixed_scales,
    ),
)
