"""S: stats against each other, and against the frames (`--deep`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.artifacts.catalog import CATALOG
from opentau_prep.errors import PrepError
from opentau_prep.metadata.paths import EPISODES_DIR
from opentau_prep.metadata.records import EpisodesStats, IntArray
from opentau_prep.metadata.statsread import STATS, pool_stats
from opentau_prep.metadata.v2 import EPISODES_STATS
from opentau_prep.notices import collect_notices
from opentau_prep.validate.checks.stats import own_stats_file, relative_chunk, vector_stats
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.quantiles import fraction_of, rank_faults
from opentau_prep.validate.rule import RUN_STATS, RUN_STATS_AGAIN, WITH_EPISODE_STATS, Rule

if TYPE_CHECKING:
    from opentau_prep.stats import Moments
    from opentau_prep.stats.sketch import QuantileSketch
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]

STATS_COMPARED = ("mean", "std", "min", "max")
TOLERANCE = 1e-2
Floats = NDArray[np.float64]


def _of_moments(moments: Moments) -> dict[str, Floats]:
    return {"mean": moments.mean, "std": moments.std, "min": moments.min, "max": moments.max}


def _scaled(distance: Floats, true: Mapping[str, Floats]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return how far off values are, in shares of the true range, and where that is allowed."""
    with np.errstate(invalid="ignore", over="ignore"):
        scale = np.where(true["max"] > true["min"], true["max"] - true["min"], 1.0)
        # float32 readers and writers round at the size of the values, not of their range.
        size = np.fmax(np.abs(true["max"]), np.abs(true["min"]))
        allowed = ~(distance > TOLERANCE * scale + 1e-5 * size)
        return distance / scale, allowed


def _differences(
    claimed: Mapping[str, NDArray[Any]], true: Mapping[str, Floats]
) -> dict[str, tuple[list[int], float]]:
    """Return stat -> (dims that differ, how far at most, in shares of the true range)."""
    found = {}
    for stat in STATS_COMPARED:
        value = np.atleast_1d(claimed[stat]).astype(np.float64) if stat in claimed else None
        if value is None or value.shape != true[stat].shape:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            share, allowed = _scaled(np.abs(value - true[stat]), true)
        dims = np.flatnonzero(~allowed)
        if len(dims):
            found[stat] = (dims.tolist(), float(share[dims].max()))
    return found


def _told(found: Mapping[str, tuple[list[int], float]]) -> str:
    return "; ".join(
        f"{stat} by up to {share:.0%} of the range in {len(dims)} dims"
        for stat, (dims, share) in found.items()
    )


def _all_dims(found: Mapping[str, tuple[list[int], float]]) -> list[int]:
    return sorted({d for dims, _ in found.values() for d in dims})


def whole_against_episodes(view: DatasetView) -> Iterator[Hit]:
    own, whole = view.episodes_stats, view.whole_stats
    if own is None or not whole or view.episodes is None:
        return
    if not np.array_equal(own.episode_index, view.episodes.episode_index):
        return  # reported by S012
    for column in view.vectors.values():
        if column not in whole or column not in own.blocks or relative_chunk(view, column):
            continue  # relative ones are reported by S022
        try:
            with collect_notices():
                one = EpisodesStats(own.episode_index, {column: own.blocks[column]})
                pooled = pool_stats(one, view.name)[column]
        except PrepError:
            continue  # reported by the rules on what the stats lack
        true = {s: np.atleast_1d(pooled[s]).astype(np.float64) for s in STATS_COMPARED}
        if found := _differences(whole[column], true):
            yield hit(
                f"differs from the stats of the episodes pooled: {_told(found)}",
                file=STATS,
                column=column,
                dims=_all_dims(found),
            )


def whole_stale(view: DatasetView) -> Iterator[Hit]:
    for column, scan in (view.frames.columns if view.frames else {}).items():
        claimed = (view.whole_stats or {}).get(column)
        if claimed is None or not _complete(view, len(scan.episodes)):
            continue
        if relative_chunk(view, column) is not None:
            continue
        found = _differences(claimed, _of_moments(scan.moments.total()))
        if found:
            yield hit(
                f"does not describe the data: {_told(found)}",
                file=STATS,
                column=column,
                dims=_all_dims(found),
            )


def _complete(view: DatasetView, n_read: int) -> bool:
    """Whether every episode was read: else stats of the whole cannot be compared."""
    return view.episodes is not None and n_read == len(view.episodes)


def episodes_stale(view: DatasetView) -> Iterator[Hit]:
    for column, scan in (view.frames.columns if view.frames else {}).items():
        true = _of_moments(scan.moments)
        wrong = np.zeros(scan.max_step.shape, dtype=bool)
        words = []
        for stat in STATS_COMPARED:
            off = _share_off(view, column, stat, scan.episodes, true)
            if off is not None and (off > 0).any():
                words.append(f"{stat} by up to {off.max():.0%} of the range")
                wrong |= off > 0
        if words:
            rows = wrong.any(axis=1)
            yield hit(
                f"does not describe {int(rows.sum()):,} episodes: {listed(words)}",
                file=EPISODES_DIR if view.meta.is_v3 else EPISODES_STATS,
                column=column,
                dims=np.flatnonzero(wrong.any(axis=0)),
                episodes=scan.episodes[rows],
            )


def _share_off(
    view: DatasetView, column: str, stat: str, episodes: IntArray, true: Mapping[str, Floats]
) -> Floats | None:
    """Return (E, D) how far a stat of the episodes is off, in shares of their ranges; 0 if not."""
    found = view.episode_stat(column, stat)
    if found is None or found[1].shape[1:] != true[stat].shape[1:]:
        return None
    _, mine, theirs = np.intersect1d(episodes, found[0], return_indices=True)
    off = np.zeros(true[stat].shape)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(found[1][theirs].astype(np.float64) - true[stat][mine])
        share, allowed = _scaled(distance, {name: true[name][mine] for name in ("min", "max")})
        off[mine] = np.where(allowed, 0.0, share)
    return off


def quantile_rank(view: DatasetView) -> Iterator[Hit]:
    for column, below in (view.frames.below if view.frames else {}).items():
        scan = view.frames.columns.get(column) if view.frames else None
        claimed = (view.whole_stats or {}).get(column)
        if scan is None or claimed is None or not _complete(view, len(scan.episodes)):
            continue
        if relative_chunk(view, column) is not None:
            continue
        names = sorted(
            (s for s in claimed if fraction_of(s) is not None), key=lambda s: fraction_of(s) or 0
        )
        equal = view.frames.equal[column] if view.frames else below
        count = scan.moments.count.sum(axis=0)
        faults = rank_faults(names, below, equal, count)
        if faults:
            words = [f"{f.name} lies at rank {f.rank:.3f} in dim {f.dim}" for f in faults.values()]
            yield hit(
                f"quantiles are not quantiles of the data: {listed(words, 5)} (the worst of each)",
                file=STATS,
                column=column,
                dims=sorted({d for f in faults.values() for d in f.dims}),
            )


def training_quantiles(view: DatasetView) -> Iterator[Hit]:
    sketches = _fresh_sketches(view)
    file = own_stats_file(view)
    if not sketches or (view.frames is not None and file == STATS):
        return  # frames that were read tell more of that file: S019
    from opentau_prep.heads.sketches import quantile_ranks

    for column, entry in vector_stats(view):
        known = {s: v.astype(np.float64) for s, v in entry.items() if fraction_of(s) is not None}
        sketch = sketches.get(column)
        if sketch is None or any(value.shape != (sketch.dims,) for value in known.values()):
            continue  # of another width: reported by S008
        ranks = [r for r in quantile_ranks({column: known}, {column: sketch}) if r.dims_off]
        if ranks:
            worst = [(r, int(r.errors.argmax())) for r in ranks]
            words = [f"{r.quantile} is the {r.ranks[d]:.1%} quantile in dim {d}" for r, d in worst]
            yield hit(
                f"{'pools to' if file == EPISODES_STATS else 'has'} quantiles that are none of the"
                f" data: {listed(words)}",
                file=file,
                column=column,
                dims=sorted({d for r in ranks for d in r.dims_off}),
            )


def _fresh_sketches(view: DatasetView) -> Mapping[str, QuantileSketch]:
    """Return column -> sketch of all frames, if `stats` left one that is of the data as it is."""
    rel = CATALOG["quantile_sketch"].template
    found = view.artifacts.get(rel)
    if found is None or not found.fresh or found.content is None:
        return {}  # reported by the rules on artifacts
    from opentau_prep.stats.load import decode_sketch_file

    with contextlib.suppress(PrepError):
        return decode_sketch_file(found.content, rel)
    return {}


_AGAIN = "Recompute them; the old file is kept."
RULES = (
    Rule(
        "S016",
        "stats-against-episodes",
        "warning",
        "`meta/stats.json` is not what the stats of the episodes pool to: mean, std, min or max"
        f" differ by over {TOLERANCE:.0%} of a dim's range.",
        "One of the two is of another state of the dataset. Which one OpenTau uses depends on"
        " the version and on whether episodes are selected.",
        _AGAIN,
        whole_against_episodes,
        command=RUN_STATS_AGAIN,
        formats=WITH_EPISODE_STATS,
    ),
    Rule(
        "S017",
        "stats-stale",
        "error",
        "`meta/stats.json` does not describe the frames: recomputed mean, std, min or max differ"
        f" by over {TOLERANCE:.0%} of a dim's range.",
        "Values are normalized with numbers of other data: out of range, or squeezed.",
        _AGAIN,
        whole_stale,
        "frames",
        command=RUN_STATS_AGAIN,
    ),
    Rule(
        "S018",
        "episode-stats-stale",
        "error",
        "Stats of episodes do not describe their frames: recomputed mean, std, min or max differ"
        f" by over {TOLERANCE:.0%} of a dim's range in the episode.",
        "OpenTau and openpi pool a v2.1 dataset's stats from them, and OpenTau those of every"
        " selection of episodes.",
        _AGAIN,
        episodes_stale,
        "frames",
        command=RUN_STATS_AGAIN,
        formats=WITH_EPISODE_STATS,
    ),
    Rule(
        "S019",
        "quantile-rank",
        "warning",
        "A quantile of `meta/stats.json` does not have its rank in the data: q01 and q99 may be"
        " off by 0.005, others by 0.02. LeRobot 0.4.4 writes the weighted mean of the episodes'"
        " quantiles; main since 6 Aug 2026 (0.6.2) the smallest (q50 and below) or largest of them,"
        " an envelope that is too wide. Neither is a quantile of the dataset.",
        "Quantile normalization then cuts off far more of the data than the two per cent it means"
        " to, or far less.",
        "Compute exact ones; the old file is kept.",
        quantile_rank,
        "frames",
        command=RUN_STATS_AGAIN,
    ),
    Rule(
        "S020",
        "training-quantiles",
        "note",
        "q01 or q99 as OpenTau takes it does not have its rank in the data: it is off by over"
        " 0.005. OpenTau averages the quantiles of a v2.1 dataset's episodes, weighted by"
        " count, and that is no quantile of the dataset. Reported where `stats` has left its"
        " sketch of the frames.",
        "A policy that normalizes with quantiles then cuts off far more of the data than the two"
        " per cent it means to, or far less; to one that normalizes with min and max or mean and"
        " std it makes no difference.",
        "Replace them, so that each episode's row holds the dataset's quantiles, or take the heads'"
        " from sketches, with `heads --quantiles sketch`.",
        training_quantiles,
        command=(*RUN_STATS, "--published-stats", "replace"),
    ),
)
