"""S: stats as they stand in files, against the metadata and, with `--deep`, against the frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.metadata.statsread import STATS
from opentau_prep.metadata.v2 import EPISODES_STATS
from opentau_prep.metadata.v3 import EPISODES_DIR
from opentau_prep.pooling import is_quantile
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.quantiles import fraction_of
from opentau_prep.validate.rule import Rule
from opentau_prep.validate.view import relative

if TYPE_CHECKING:
    from opentau_prep.metadata import Stats
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES", "own_stats_file"]

_MOMENTS = ("mean", "std", "min", "max")
_IMAGE_SHAPE = (3, 1, 1)
_ROUNDING = 1e-5
TICKS = 1000
_SMALL = 10


def own_stats_file(view: DatasetView) -> str:
    """Return the file of the stats that training uses."""
    if view.meta.version == "v2.1" and view.storage.exists(EPISODES_STATS):
        return EPISODES_STATS
    return STATS


def _episodes_file(view: DatasetView) -> str:
    return EPISODES_DIR if view.meta.is_v3 else EPISODES_STATS


def whole_unreadable(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("whole_stats")) is not None:
        file, message = relative(fault, view.target.root)
        yield hit(message, fault.hint or "", file=file)


def episodes_unreadable(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("episodes_stats")) is not None:
        file, message = relative(fault, view.target.root)
        yield hit(message, fault.hint or "", file=file)


def stats_missing(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("stats")) is not None:
        file, message = relative(fault, view.target.root)
        yield hit(message, fault.hint or "", file=file)


def stats_stand_in(view: DatasetView) -> Iterator[Hit]:
    if view.stats is not None and any(n.kind == "stats_stand_in" for n in view.notices):
        missing = EPISODES_STATS if view.meta.version == "v2.1" else STATS
        yield hit(f"{missing} is missing; other stats stand in for it", file=missing)


def feature_missing(view: DatasetView) -> Iterator[Hit]:
    for name, column in view.vectors.items():
        if view.stats is not None and column not in view.stats:
            yield hit(
                f"has no stats of the {name} (it has: {listed(list(view.stats))})",
                file=own_stats_file(view),
                column=column,
            )


def stat_missing(view: DatasetView) -> Iterator[Hit]:
    for column in view.vectors.values():
        entry = (view.stats or {}).get(column)
        missing = [stat for stat in _MOMENTS if entry is not None and stat not in entry]
        if missing:
            yield hit(f"lacks {', '.join(missing)}", file=own_stats_file(view), column=column)


def _vector_stats(view: DatasetView) -> Iterator[tuple[str, Mapping[str, npt.NDArray[Any]]]]:
    for column in view.vectors.values():
        entry = (view.stats or {}).get(column)
        if entry is not None:
            # One number for a single dim may stand bare.
            yield column, {stat: np.atleast_1d(value) for stat, value in entry.items()}


def non_finite(view: DatasetView) -> Iterator[Hit]:
    for column, entry in _vector_stats(view):
        for stat, value in entry.items():
            bad = np.flatnonzero(~np.isfinite(value.astype(np.float64)))
            if stat != "count" and len(bad):
                yield hit(
                    f"{stat} is not finite in {len(bad)} dims",
                    file=own_stats_file(view),
                    column=column,
                    dims=bad,
                )


def width_differs(view: DatasetView) -> Iterator[Hit]:
    for column, entry in _vector_stats(view):
        declared = int(np.prod((view.features or {})[column].shape))
        widths = {s: v.size for s, v in entry.items() if s != "count" and v.size != declared}
        if widths and declared:
            told = ", ".join(f"{stat} {size}" for stat, size in widths.items())
            yield hit(
                f"has {declared} dims, its stats: {told}", file=own_stats_file(view), column=column
            )


def contradictory(view: DatasetView) -> Iterator[Hit]:
    for column, entry in _vector_stats(view):
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


def count_wrong(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is None:
        return
    total = view.episodes.total_frames
    for column in view.vectors.values():
        count = _count((view.whole_stats or {}).get(column))
        if count is not None and count != total:
            yield hit(
                f"count is {count:,}, but the dataset has {total:,} frames",
                file=STATS,
                column=column,
            )
        wrong = [
            int(e)
            for e, length in zip(view.episodes.episode_index, view.episodes.length, strict=True)
            if _count((view.episodes_stats or {}).get(int(e), {}).get(column)) not in (None, length)
        ]
        if wrong:
            yield hit(
                f"count is not the length of {len(wrong):,} episodes",
                file=_episodes_file(view),
                column=column,
                episodes=wrong,
            )


def _count(entry: Mapping[str, npt.NDArray[Any]] | None) -> int | None:
    value = None if entry is None else entry.get("count")
    if value is None or value.size != 1 or not np.isfinite(float(value.ravel()[0])):
        return None
    return int(value.ravel()[0])


def count_missing(view: DatasetView) -> Iterator[Hit]:
    for column in view.vectors.values():
        lacking = [
            e
            for e, s in (view.episodes_stats or {}).items()
            if column in s and "count" not in s[column]
        ]
        if lacking:
            yield hit(
                f"{len(lacking):,} episodes have stats without count",
                file=_episodes_file(view),
                column=column,
                episodes=lacking,
            )


def coverage(view: DatasetView) -> Iterator[Hit]:
    own = view.episodes_stats
    if view.episodes is None or not own or view.meta.is_v3:
        return
    known = set(view.episodes.episode_index.tolist())
    for wrong, what in ((known - set(own), "have no stats"), (set(own) - known, "do not exist")):
        if wrong:
            yield hit(
                f"{len(wrong):,} episodes {what}", file=EPISODES_STATS, episodes=sorted(wrong)
            )


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
    for column, entry in _vector_stats(view):
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
    for column, entry in _vector_stats(view):
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


def scale_of(stats: Stats, column: str) -> float | None:
    """Return the median over dims of the largest absolute value, None where it is not known."""
    entry = stats.get(column)
    if entry is None or "min" not in entry or "max" not in entry:
        return None
    low, high = (np.atleast_1d(entry[s]).astype(np.float64) for s in ("min", "max"))
    if low.shape != high.shape or not low.size:
        return None
    return float(np.median(np.maximum(np.abs(low), np.abs(high))))


_AGAIN = "Compute them again: `opentau-prep stats`."
RULES = (
    Rule(
        "S001",
        "stats-unreadable",
        "error",
        "`meta/stats.json` is there but malformed.",
        "Normalization cannot be set up.",
        _AGAIN,
        whole_unreadable,
    ),
    Rule(
        "S002",
        "episode-stats-unreadable",
        "error",
        "The stats of the episodes are there but malformed.",
        "v2.1 readers pool the dataset's stats from them; selections of episodes need them.",
        _AGAIN,
        episodes_unreadable,
    ),
    Rule(
        "S003",
        "stats-missing",
        "error",
        "The dataset has no stats, or they cannot be pooled.",
        "Normalization cannot be set up.",
        _AGAIN,
        stats_missing,
    ),
    Rule(
        "S004",
        "stats-stand-in",
        "warning",
        "The stats that this version's readers use are missing, and others stand in for them.",
        "This toolkit goes on with the others; LeRobot stops.",
        _AGAIN,
        stats_stand_in,
    ),
    Rule(
        "S005",
        "feature-without-stats",
        "error",
        "The state or the actions have no stats.",
        "They cannot be normalized: training stops, or feeds raw values.",
        _AGAIN,
        feature_missing,
    ),
    Rule(
        "S006",
        "stat-missing",
        "error",
        "The stats of the state or the actions lack mean, std, min or max.",
        "The norm head cannot be built.",
        _AGAIN,
        stat_missing,
    ),
    Rule(
        "S007",
        "stats-non-finite",
        "error",
        "Stats of the state or the actions are NaN or infinite.",
        "Every normalized value of the dim becomes NaN, and with it the loss.",
        "Look for the frames with `validate --deep`, mend them, and compute the stats again.",
        non_finite,
    ),
    Rule(
        "S008",
        "stats-width",
        "error",
        "Stats have more or fewer dims than the feature.",
        "Broadcasting fails, or normalizes dims with the stats of others.",
        _AGAIN,
        width_differs,
    ),
    Rule(
        "S009",
        "stats-contradictory",
        "error",
        "Stats that no data can have: min above max, a mean or quantiles outside of them, a"
        " negative std, or a std beyond half the range (5 % are allowed).",
        "They were edited, mixed up, or computed of something else: values are scaled wrongly.",
        _AGAIN,
        contradictory,
    ),
    Rule(
        "S010",
        "stats-count",
        "warning",
        "`count` of the state's or actions' stats is not the number of frames.",
        "The stats are of another state of the dataset, and pooling weighs them by it.",
        _AGAIN,
        count_wrong,
    ),
    Rule(
        "S011",
        "stats-without-count",
        "error",
        "Stats of episodes have no `count`.",
        "Pooling the dataset's stats from them fails.",
        _AGAIN,
        count_missing,
    ),
    Rule(
        "S012",
        "episode-stats-coverage",
        "error",
        "Some episodes have no stats, or there are stats of episodes that do not exist (v2.1).",
        "The dataset's stats are pooled from these: they are those of other episodes.",
        _AGAIN,
        coverage,
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
