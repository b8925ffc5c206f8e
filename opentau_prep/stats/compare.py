"""Published stats against computed ones: equal within the file's precision, lacking, or different.

Published numbers were mostly computed in the data's own dtype, one frame after the other. What such
arithmetic can lose is not a difference: for a mean over n float32 frames about eps32 * sqrt(n) of
the largest magnitude, four times which is allowed here; a variance taken as E[x^2] - E[x]^2, as
several recorders do, loses as much of the square of the largest magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.pooling import is_quantile
from opentau_prep.stats.columns import INDEX_COLUMNS, Column, Layout
from opentau_prep.stats.documents import StatsDocument, place_rows
from opentau_prep.stats.sketch import RANK_ERROR, QuantileSketch
from opentau_prep.stats.stack import Stacked

__all__ = ["Comparison", "Difference", "compare", "pooled_difference", "sketch_bracket"]

# What the least exact of stats may be off by, in roundings, however few frames there are.
_LEAST_ROUNDINGS = 16
# Rounding errors stop growing like sqrt(n) where recorders pool episodes.
_MOST_FRAMES = 10_000
# Recorders that take quantiles from histograms widen the range by 1e-10 on both sides.
_HISTOGRAM_MARGIN = 2e-10
# Pooled quantiles that are off by less than this share of the range are near enough.
_POOLED_SHARE = 0.01
Floats = NDArray[np.float64]
Bracket = Callable[[str, str], tuple[Floats, Floats] | None]


@dataclass(frozen=True)
class Difference:
    """One stat of one feature that a file holds otherwise than the frames say.

    Attributes:
        feature: The feature.
        stat: The stat.
        dims: The dims that differ in any row.
        rows: How many rows (episodes) differ.
        episode: The episode of the largest difference; None in whole-dataset stats.
        dim: Its dim.
        published: What the file says there.
        computed: What the frames say.
        share: The difference as a share of the dim's range (max - min); infinite without a range.
        rank: Of a whole-dataset quantile: the share of frames below what the file says.
    """

    feature: str
    stat: str
    dims: tuple[int, ...]
    rows: int
    episode: int | None
    dim: int
    published: float
    computed: float
    share: float
    rank: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the difference JSON-ready."""
        return {**self.__dict__, "dims": list(self.dims)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Difference:
        """Rebuild what `as_json` gave."""
        return cls(**{**record, "dims": tuple(record["dims"])})

    def __str__(self) -> str:
        place = f"{self.feature}/{self.stat} dim {self.dim}"
        if self.episode is not None:
            place += f" of episode {self.episode}"
        text = f"{place}: the file says {self.published:.6g}"
        text += "" if self.rank is None else f" (the {self.rank:.1%} quantile of the frames)"
        text += f", the frames {self.computed:.6g}"
        return text + (f", {self.share:.2%} of the range" if np.isfinite(self.share) else "")


@dataclass(frozen=True)
class Comparison:
    """What a file's stats are, against those of the frames.

    Attributes:
        differences: Real ones, in the file's order of features.
        missing: Stats (`feature/stat`) or rows that the file lacks.
        biggest: The largest change of any number, within the file's precision or not.
    """

    differences: tuple[Difference, ...]
    missing: tuple[str, ...]
    biggest: Difference | None


def compare(
    document: StatsDocument,
    stacked: Stacked,
    episodes: Sequence[int],
    layout: Layout,
    *,
    with_count: bool = True,
    bracket: Bracket = lambda feature, stat: None,
    own: Stacked | None = None,
) -> Comparison:
    """Compare a file with computed stats.

    Args:
        document: The file.
        stacked: The computed stats.
        episodes: The episode of each row of `stacked`; `[-1]` for the whole dataset.
        layout: The features.
        with_count: Whether a file without `count` lacks something.
        bracket: feature, stat -> the lowest and highest values that agree with a sketched quantile.
        own: The same rows with each episode's own quantiles, where `stacked` has the dataset's: a
            row may hold either.
    """
    rows = place_rows(document, episodes)
    differences: list[Difference] = []
    missing = [f"episode {e}" for e, r in zip(episodes, rows, strict=True) if r < 0]
    biggest: Difference | None = None
    whole = list(episodes) == [-1]
    for column in layout.columns:
        stats = stacked[column.name]
        for stat, values in stats.items():
            if stat == "count" and not with_count:
                continue
            published, have = document.published(column.name, stat, values[0].size)
            there = (rows >= 0) & have[rows] if len(have) else rows >= 0
            if not there.all():
                missing.append(f"{column.name}/{stat}")
            per_element = is_quantile(stat) and document.is_per_element(column.name, column.dims)
            if not there.any() or per_element:
                continue
            claimed = published[rows[there]]
            pair = (claimed, values[there].reshape(claimed.shape))
            if own is not None and is_quantile(stat):
                mine = own[column.name][stat][there].reshape(claimed.shape)
                pair = (claimed, _nearer(claimed, pair[1], mine))
            side = _Side(column, stats, there, stat)
            found, real = side.judge(*pair, bracket(column.name, stat))
            if found is not None:
                index = None if whole else int(np.asarray(episodes)[there][found[0]])
                made = side.difference(*pair, real, found, index)
                differences += [made] if real.any() else []
                if biggest is None or made.share > biggest.share:
                    biggest = made
    return Comparison(tuple(differences), tuple(missing), biggest)


def pooled_difference(document: StatsDocument, whole: Stacked, layout: Layout) -> Difference | None:
    """Return how far off quantiles are that are pooled from those in episodes' rows.

    OpenTau's loader and LeRobot's v2.1 -> v3.0 converter take the mean of the rows, weighted by
    `count`.

    Returns:
        The worst, as a share of its range; None where all rows hold the same quantiles, or none is
        off by more than 1 %.
    """
    worst: Difference | None = None
    for column in layout.columns:
        stats = whole[column.name]
        counts = document.published(column.name, "count", 1)[0]
        if column.name in INDEX_COLUMNS or not np.isfinite(counts).all():
            continue
        span = (stats["max"] - stats["min"]).reshape(-1)
        for stat in filter(is_quantile, stats):
            rows, have = document.published(column.name, stat, column.dims)
            if not have.all() or (rows == rows[:1]).all():
                continue
            pooled, true = (rows * counts).sum(axis=0) / counts.sum(), stats[stat].reshape(-1)
            with np.errstate(invalid="ignore", divide="ignore"):
                share = np.nan_to_num(np.where(span > 0, np.abs(pooled - true) / span, 0.0))
            dim = int(np.argmax(share))
            if share[dim] > max(_POOLED_SHARE, 0.0 if worst is None else worst.share):
                values = (float(pooled[dim]), float(true[dim]), float(share[dim]))
                worst = Difference(column.name, stat, (dim,), len(rows), None, dim, *values)
    return worst


def _nearer(claimed: Floats, one: Floats, other: Floats) -> Floats:
    """Return for each row whichever of two is nearer to what the file says."""
    with np.errstate(invalid="ignore"):
        first = np.abs(claimed - one).sum(axis=1) <= np.abs(claimed - other).sum(axis=1)
    return np.where(first[:, np.newaxis], one, other)


def sketch_bracket(sketch: QuantileSketch, layout: Layout, q: dict[str, float]) -> Bracket:
    """Return what values agree with quantiles that come from a sketch, by its rank error."""

    def bracket(feature: str, stat: str) -> tuple[Floats, Floats] | None:
        if stat not in q:
            return None
        where = layout.slices[feature]
        part = sketch.select(range(where.start, where.stop))
        low, high = part.quantiles([max(q[stat] - RANK_ERROR, 0.0), min(q[stat] + RANK_ERROR, 1.0)])
        return low, high

    return bracket


class _Side:
    """The computed rows of one feature that a file has too, and how exact its numbers can be."""

    def __init__(
        self, column: Column, stats: dict[str, NDArray[Any]], there: NDArray[Any], stat: str
    ) -> None:
        def rows(name: str) -> Floats:
            values: Floats = stats[name][there].astype(np.float64)
            return values.reshape(len(values), -1)

        self._column, self._stat = column, stat
        self._low, self._high, self._std = rows("min"), rows("max"), rows("std")
        self._frames = np.minimum(rows("count"), _MOST_FRAMES)

    def judge(
        self, published: Floats, computed: Floats, bracket: tuple[Floats, Floats] | None
    ) -> tuple[tuple[int, int] | None, NDArray[np.bool_]]:
        """Return where the largest change is, if any, and which values really differ."""
        computed = computed.astype(np.float64)
        same = (published == computed) | (np.isnan(published) & np.isnan(computed))
        if same.all():
            return None, ~same
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(published - computed)
            fine = off <= self._allowed(published)
            if self._stat == "std":
                fine |= np.abs(published**2 - computed**2) <= self._variance_allowed(published)
            if bracket is not None:
                fine |= (published >= bracket[0]) & (published <= bracket[1])
        real = ~(same | fine)
        share = np.where(same, -1.0, self._share(off))
        if real.any():
            share = np.where(real, share, -1.0)
        row, dim = np.unravel_index(int(np.argmax(share)), share.shape)
        return (int(row), int(dim)), real

    def difference(
        self,
        published: Floats,
        computed: Floats,
        real: NDArray[np.bool_],
        at: tuple[int, int],
        episode: int | None,
    ) -> Difference:
        """Describe the largest change."""
        off = np.abs(published - computed.astype(np.float64))
        return Difference(
            self._column.name,
            self._stat,
            tuple(np.flatnonzero(real.any(axis=0)).tolist()),
            int(real.any(axis=1).sum()),
            episode,
            at[1],
            float(published[at]),
            float(computed[at]),
            float(self._share(off)[at]),
        )

    def _share(self, off: Floats) -> Floats:
        """Return differences as shares of the dim's range; of the std and count, of themselves."""
        if self._stat == "count":
            return np.nan_to_num(off / np.maximum(self._frames, 1), nan=np.inf)
        span = self._high - self._low
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(span > 0, off / span, np.inf)
        return np.where(np.isnan(share), np.inf, share)

    def _eps(self, published: Floats) -> float:
        """Return the rounding of the file's numbers: float32 where data or numbers are."""
        with np.errstate(over="ignore", invalid="ignore"):
            as_single = published.astype(np.float32).astype(np.float64)
        single = (as_single == published)[np.isfinite(published)].all()
        is_single = self._column.dtype == "float32" or bool(single)
        return float(np.finfo(np.float32 if is_single else np.float64).eps)

    def _allowed(self, published: Floats) -> Floats:
        scale = np.maximum(np.abs(self._low), np.abs(self._high))
        if self._stat == "count" or (self._stat in ("min", "max") and self._column.is_integer):
            return np.zeros_like(scale)
        eps = self._eps(published)
        if self._stat in ("min", "max"):
            return 2 * eps * scale
        if is_quantile(self._stat):
            return 8 * eps * scale + _HISTOGRAM_MARGIN
        return np.asarray(self._roundings() * eps * scale)

    def _variance_allowed(self, published: Floats) -> Floats:
        scale = np.maximum(np.abs(self._low), np.abs(self._high))
        return np.asarray(self._roundings() * self._eps(published) * scale**2)

    def _roundings(self) -> Floats:
        if self._column.is_integer:  # computed in float64, then perhaps stored as float32
            return np.full_like(self._frames, 2.0)
        return np.asarray(np.maximum(_LEAST_ROUNDINGS, 4 * np.sqrt(self._frames)))
