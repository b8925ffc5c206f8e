"""S: stats as files hold them, against the metadata and, with `--deep`, against the frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.metadata.paths import EPISODES_DIR
from opentau_prep.metadata.statsread import STATS
from opentau_prep.metadata.v2 import EPISODES_STATS
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.footers import list_width
from opentau_prep.validate.rule import RUN_STATS, RUN_STATS_AGAIN, WITH_EPISODE_STATS, Rule
from opentau_prep.validate.view import relative

if TYPE_CHECKING:
    from opentau_prep.metadata import EpisodeTable
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES", "own_stats_file", "vector_stats"]

_MOMENTS = ("mean", "std", "min", "max")
# As values: names in quotes are followed by them.
_TOKEN = re.compile(rb"[\[,:]\s*-?(?:NaN|Infinity)\b")


def own_stats_file(view: DatasetView) -> str:
    """Return the file of the stats that training uses."""
    if view.meta.version == "v2.1" and view.storage.exists(EPISODES_STATS):
        return EPISODES_STATS
    return STATS


def _episodes_file(view: DatasetView) -> str:
    return EPISODES_DIR if view.meta.is_v3 else EPISODES_STATS


def whole_unreadable(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("whole_stats")) is not None:
        file, message = relative(fault, view.storage.url)
        if message.startswith("stat `"):
            # It may be a camera's, which `stats` cannot compute.
            hint = "Restore the file from its source: `stats` would recompute all but the cameras."
            yield hit(message, hint, file=file, command=())
        else:
            yield hit(message, file=file)


def episodes_unreadable(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("episodes_stats")) is not None:
        file, message = relative(fault, view.storage.url)
        yield hit(message, file=file)


def stats_missing(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("stats")) is not None:
        file, message = relative(fault, view.storage.url)
        yield hit(message, file=file or own_stats_file(view))


def stats_stand_in(view: DatasetView) -> Iterator[Hit]:
    if view.stats is not None and any(n.kind == "stats_stand_in" for n in view.notices):
        missing = EPISODES_STATS if view.meta.version == "v2.1" else STATS
        if missing == EPISODES_STATS and {"opentau", "openpi"} & set(view.options.trainers):
            return  # they cannot open the dataset: O001
        yield hit(f"{missing} is missing; other stats are read in its place", file=missing)


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


def vector_stats(view: DatasetView) -> Iterator[tuple[str, Mapping[str, npt.NDArray[Any]]]]:
    """Yield the columns of state and actions with their stats; a bare number becomes one dim."""
    for column in view.vectors.values():
        entry = (view.stats or {}).get(column)
        if entry is not None:
            yield column, {stat: np.atleast_1d(value) for stat, value in entry.items()}


def non_finite(view: DatasetView) -> Iterator[Hit]:
    for column, entry in vector_stats(view):
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
    for column, entry in vector_stats(view):
        feature, in_data = (view.features or {})[column], data_width(view, column)
        width = in_data or int(np.prod(feature.shape))
        widths = {s: v.size for s, v in entry.items() if s != "count" and v.size != width}
        if widths and width:
            found = ", ".join(f"{stat} {size}" for stat, size in widths.items())
            # Names that fit the stats make the declared shape the wrong one.
            fits = in_data is None and {len(feature.names)} == set(widths.values())
            yield hit(
                f"has {width} dims, its stats: {found}",
                "Correct the shape in info.json: there are as many names as stats." if fits else "",
                file=own_stats_file(view),
                column=column,
                command=() if fits else None,
            )


def data_width(view: DatasetView, column: str) -> int | None:
    """Return how wide the rows of a column are; None where the data does not say."""
    footer = next(iter((view.footers.good if view.footers else {}).values()), None)
    kind = None if footer is None else footer.types.get(column)
    width = None if kind is None else list_width(kind)
    return width if width is not None or view.frames is None else view.frames.width(column)


def count_wrong(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is None:
        return
    total = view.episodes.total_frames
    for column in view.vectors.values():
        count = _count((view.whole_stats or {}).get(column))
        if count is not None and count != total and relative_chunk(view, column) is None:
            yield hit(
                f"count is {count:,}, but the dataset has {total:,} frames",
                file=STATS,
                column=column,
            )
        wrong = _wrong_lengths(view, view.episodes, column)
        if len(wrong):
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


def _wrong_lengths(view: DatasetView, table: EpisodeTable, column: str) -> npt.NDArray[Any]:
    """Return the episodes of the table whose own count is another number than their length."""
    found = view.episode_stat(column, "count")
    if found is None or found[1].size != len(found[0]):
        return np.zeros(0, dtype=np.int64)
    counts = dict(zip(found[0].tolist(), found[1].ravel().tolist(), strict=True))
    own = zip(table.episode_index.tolist(), table.length.tolist(), strict=True)
    return np.array([e for e, length in own if counts.get(e, length) != length], dtype=np.int64)


def relative_chunk(view: DatasetView, column: str) -> int | None:
    """Return the steps per chunk, where whole-dataset stats are those of relative actions.

    LeRobot (0.6.2, 7427f31) counts every step of every chunk that fits into its episode.
    """
    count = _count((view.whole_stats or {}).get(column))
    if count is None or view.episodes is None or column != view.vectors.get("actions"):
        return None
    length = view.episodes.length
    if count < 1 or count == int(length.sum()):  # where episodes are equally long, one chunk each
        return None
    steps = np.arange(2, int(length.max(initial=1)) + 1)
    for chunk in steps[count % steps == 0].tolist():
        if chunk * int(np.maximum(length - chunk + 1, 0).sum()) == count:
            return int(chunk)
    return None


def relative_stats(view: DatasetView) -> Iterator[Hit]:
    for column in view.vectors.values():
        if (chunk := relative_chunk(view, column)) is not None:
            yield hit(
                f"are those of actions relative to the state, in chunks of {chunk:,} steps: count"
                " is the number of steps of all whole chunks",
                file=STATS,
                column=column,
            )


def bare_tokens(view: DatasetView) -> Iterator[Hit]:
    for rel in (STATS, EPISODES_STATS):
        if view.fault("whole_stats" if rel == STATS else "episodes_stats") is not None:
            continue
        content = view.storage.read_bytes(rel) if view.storage.exists(rel) else b""
        lines = [i for i, line in enumerate(content.splitlines(), 1) if _TOKEN.search(line)]
        if lines:
            yield hit(f"has NaN or Infinity in {len(lines):,} lines: {listed(lines, 3)}", file=rel)


def count_missing(view: DatasetView) -> Iterator[Hit]:
    for column in view.vectors.values():
        mean, count = view.episode_stat(column, "mean"), view.episode_stat(column, "count")
        if mean is None:
            continue
        lacking = mean[0] if count is None else _without(mean[0], count[0])
        if len(lacking):
            yield hit(
                f"{len(lacking):,} episodes have stats without count",
                file=_episodes_file(view),
                column=column,
                episodes=lacking,
            )


def _without(episodes: IntArray, others: IntArray) -> IntArray:
    if np.array_equal(episodes, others):
        return episodes[:0]  # NumPy's sets take a while to import
    return np.setdiff1d(episodes, others)


def coverage(view: DatasetView) -> Iterator[Hit]:
    own = view.episodes_stats
    if view.episodes is None or own is None or view.meta.is_v3:
        return
    known = view.episodes.episode_index
    for wrong, what in (
        (_without(known, own.episode_index), "have no stats"),
        (_without(own.episode_index, known), "do not exist"),
    ):
        if len(wrong):
            # Rows of episodes that are gone stay: only a person knows which of the two is right.
            command = None if what == "have no stats" else ()
            yield hit(
                f"{len(wrong):,} episodes {what}",
                file=EPISODES_STATS,
                episodes=wrong,
                command=command,
            )


_AGAIN = "Recompute them from the frames; a file that was there is kept."
RULES = (
    Rule(
        "S022",
        "relative-action-stats",
        "error",
        "`meta/stats.json` holds stats of actions relative to the state at the start of their chunk"
        " in the place of the action's own. LeRobot 0.6.2 writes them so (`recompute_stats` with"
        " `relative_action`); their `count` gives them away.",
        "OpenTau and every policy without relative actions take them as absolute, and normalize"
        " with a range that is far too small.",
        "Recompute the action's own; relative ones belong in a file of their own"
        " (`stats --format lerobot-relative`).",
        relative_stats,
        command=(*RUN_STATS, "--published-stats", "replace"),
    ),
    Rule(
        "S023",
        "stats-bare-nan",
        "warning",
        "A file of stats holds the bare token NaN or Infinity, which is not JSON.",
        "OpenTau 0.13 and LeRobot's converter to v3.0 (0.4.4, 0.6.2) read `episodes_stats.jsonl`"
        " through the package jsonlines, which takes orjson where that is installed: the dataset"
        " then cannot be opened, on some machines and not on others.",
        "Recompute the stats once the values behind them are finite; leave a camera's out.",
        bare_tokens,
    ),
    Rule(
        "S001",
        "stats-unreadable",
        "error",
        "`meta/stats.json` is there but malformed.",
        "OpenTau (v2.0, v3.0) and LeRobot normalize with it, and stop.",
        _AGAIN,
        whole_unreadable,
        command=RUN_STATS_AGAIN,
    ),
    Rule(
        "S002",
        "episode-stats-unreadable",
        "error",
        "The stats of the episodes are there but malformed.",
        "OpenTau and openpi pool a v2.1 dataset's stats from them, OpenTau every selection's.",
        _AGAIN,
        episodes_unreadable,
        command=RUN_STATS_AGAIN,
        formats=WITH_EPISODE_STATS,
    ),
    Rule(
        "S003",
        "stats-missing",
        "error",
        "The dataset has no stats, or they cannot be pooled.",
        "OpenTau stops; LeRobot stops for cameras, and passes other values on raw.",
        _AGAIN,
        stats_missing,
        command=RUN_STATS,
    ),
    Rule(
        "S004",
        "stats-substitute",
        "error",
        "The stats that readers of this version use are missing; others are read in their place.",
        "This toolkit goes on with the others. OpenTau stops; LeRobot stops for cameras, and"
        " passes other values on raw.",
        _AGAIN,
        stats_stand_in,
        command=RUN_STATS,
    ),
    Rule(
        "S005",
        "feature-without-stats",
        "error",
        "The state or the actions have no stats.",
        "OpenTau stops; LeRobot passes their raw values to the policy.",
        _AGAIN,
        feature_missing,
        command=RUN_STATS,
    ),
    Rule(
        "S006",
        "stat-missing",
        "error",
        "The stats of the state or the actions lack mean, std, min or max.",
        "OpenTau stops when it builds the norm head.",
        _AGAIN,
        stat_missing,
        command=RUN_STATS,
    ),
    Rule(
        "S007",
        "stats-non-finite",
        "error",
        "Stats of the state or the actions are NaN or infinite.",
        "In a head of one dataset the dim becomes NaN, and so does the loss; in others it is"
        " left out.",
        "Look for the frames with `validate --deep`, correct them, and compute the stats again.",
        non_finite,
        command=RUN_STATS_AGAIN,
    ),
    Rule(
        "S008",
        "stats-width",
        "error",
        "Stats have more or fewer dims than the feature.",
        "Broadcasting fails, or normalizes dims with the stats of others.",
        _AGAIN,
        width_differs,
        command=RUN_STATS_AGAIN,
    ),
    Rule(
        "S010",
        "stats-count",
        "warning",
        "`count` of the state's or actions' stats is not the number of frames.",
        "The stats are of another state of the dataset, and OpenTau pools episodes by it.",
        _AGAIN,
        count_wrong,
        command=RUN_STATS_AGAIN,
    ),
    Rule(
        "S011",
        "stats-without-count",
        "error",
        "Stats of episodes have no `count`.",
        "OpenTau and openpi fail to pool the dataset's stats from them.",
        _AGAIN,
        count_missing,
        command=RUN_STATS,
        formats=WITH_EPISODE_STATS,
    ),
    Rule(
        "S012",
        "episode-stats-coverage",
        "error",
        "Some episodes have no stats, or there are stats of episodes that do not exist (v2.1).",
        "OpenTau pools a v2.1 dataset's stats from these, and every selection's, or stops.",
        _AGAIN,
        coverage,
        command=RUN_STATS,
        formats=WITH_EPISODE_STATS,
    ),
)
