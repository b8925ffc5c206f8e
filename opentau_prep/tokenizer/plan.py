"""Which chunks: how many of each dataset, which episodes are held out, which start frames.

All of it follows from the episode tables, the mixture and the seed, before a frame is read, so that
only files that hold a chosen episode are opened, and workers have nothing to decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import ConfigError, DataError
from opentau_prep.tokenizer.options import HELD_OUT_FOR_ALL, HELD_OUT_PER_DATASET

if TYPE_CHECKING:
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.tokenizer.options import FitOptions

__all__ = [
    "DatasetPlan",
    "Draws",
    "draw_starts",
    "plan_datasets",
    "sampling_weights",
    "split_budget",
    "split_episodes",
]

Mask = npt.NDArray[np.bool_]
_FIT, _HELD = 0, 1


@dataclass(frozen=True)
class Draws:
    """Chunks to take from one dataset; n of them.

    Attributes:
        slot: (n,) int64, each chunk's place among the dataset's chunks: those to fit on first.
        episode: (n,) int64, `episode_index`.
        start: (n,) int64, start row among the selected episodes, concatenated in order.
        first: (n,) int64, the episode's first row there.
        end: (n,) int64, one past its last row there.
    """

    slot: IntArray
    episode: IntArray
    start: IntArray
    first: IntArray
    end: IntArray

    def take(self, keep: IntArray) -> Draws:
        """Return some of the chunks, by position."""
        return Draws(
            self.slot[keep], self.episode[keep], self.start[keep], self.first[keep], self.end[keep]
        )


@dataclass(frozen=True)
class DatasetPlan:
    """What is taken from one dataset.

    Attributes:
        entry: The dataset.
        n_fit: Chunks to fit on.
        n_held: Held-out chunks.
        n_share: How many of those, the first ones, represent it in the mixture's proportions.
        held_episodes: (H,) int64, `episode_index` of the held-out episodes.
        draws: The chunks; those to fit on in slots 0 to n_fit - 1, the held-out ones after them.
    """

    entry: ResolvedEntry
    n_fit: int
    n_held: int
    n_share: int
    held_episodes: IntArray
    draws: Draws


def plan_datasets(
    resolved: ResolvedMixture, entries: Sequence[ResolvedEntry], options: FitOptions, n_fit: int
) -> list[DatasetPlan]:
    """Return what is taken from each dataset, in mixture order.

    Args:
        resolved: The mixture.
        entries: The datasets that take part, each with at least one frame.
        options: The fit's options.
        n_fit: Chunks to fit on in all.

    Raises:
        ConfigError: The weights cannot divide anything.
    """
    weights = sampling_weights(resolved, entries)
    splits = [split_episodes(entry, options) for entry in entries]
    shares = np.zeros(len(entries), dtype=np.int64)
    measured = [i for i, (_, held) in enumerate(splits) if held.any() and weights[i]]
    if measured:
        # More chunks than there are held-out frames would only repeat some.
        frames = sum(int(splits[i][0][splits[i][1]].sum()) for i in measured)
        n_held_out = min(options.held_out_chunks, frames)
        shares[measured] = split_budget(n_held_out, [weights[i] for i in measured])
    plans = []
    least = min(HELD_OUT_PER_DATASET, HELD_OUT_FOR_ALL // max(1, len(measured)))
    budgets = split_budget(n_fit, weights)
    for i, (entry, (lengths, held)) in enumerate(zip(entries, splits, strict=True)):
        n_held = int(shares[i])
        if held.any() and weights[i]:
            n_held = max(n_held, min(max(1, least), int(lengths[held].sum())))
        draws = _draw(entry, lengths, held, (int(budgets[i]), n_held), options.seed)
        held_episodes = entry.episodes[held]
        share = int(shares[i])
        plans.append(DatasetPlan(entry, int(budgets[i]), n_held, share, held_episodes, draws))
    return plans


def sampling_weights(resolved: ResolvedMixture, entries: Sequence[ResolvedEntry]) -> list[float]:
    """Return each dataset's sampling weight; without weights its number of selected frames."""
    given = resolved.mixture.weights
    if given is not None:
        return [given[entry.index] for entry in entries]
    return [int(_lengths(entry).sum()) for entry in entries]


def split_episodes(entry: ResolvedEntry, options: FitOptions) -> tuple[IntArray, Mask]:
    """Return the selected episodes' lengths and which of them are held out, both (E,).

    Whole episodes are held out, the share `options.holdout` rounded up. A dataset of one episode
    holds out none: its only episode is fitted on.

    Raises:
        DataError: The dataset has no frames.
    """
    lengths = _lengths(entry)
    used = np.flatnonzero(lengths)
    held = np.zeros(len(lengths), dtype=np.bool_)
    if not len(used):
        raise DataError(
            "has no frames", where=entry.name, hint="Remove it from the mixture, or its weight."
        )
    if options.holdout > 0 and len(used) > 1:
        seed = int(np.random.SeedSequence((options.seed, entry.index)).generate_state(1)[0])
        share = min(len(used) - 1, int(np.ceil(options.holdout * len(used))))
        # The split of scikit-learn's GroupShuffleSplit, whose import takes longer than the draw.
        held[used[np.random.RandomState(seed).permutation(len(used))[:share]]] = True
    return lengths, held


def _lengths(entry: ResolvedEntry) -> IntArray:
    table = entry.meta.episodes
    at = np.searchsorted(table.episode_index, entry.episodes)
    return np.asarray(table.length[at])


def _draw(
    entry: ResolvedEntry, lengths: IntArray, held: Mask, counts: tuple[int, int], seed: int
) -> Draws:
    parts = []
    first_rows = np.cumsum(lengths) - lengths
    for kind, count in ((_FIT, counts[0]), (_HELD, counts[1])):
        chosen = np.flatnonzero(held if kind == _HELD else ~held)
        ends = np.cumsum(lengths[chosen])
        rng = np.random.default_rng((seed, entry.index, kind))
        rows = draw_starts(int(ends[-1]) if len(ends) else 0, count, rng)
        at = np.searchsorted(ends, rows, side="right")
        episode = chosen[at]
        start = first_rows[episode] + rows - (ends - lengths[chosen])[at]
        parts.append((episode, start))
    episode, start = (np.concatenate(pair) for pair in zip(*parts, strict=True))
    first = first_rows[episode]
    return Draws(
        slot=np.arange(len(start), dtype=np.int64),
        episode=entry.episodes[episode],
        start=start,
        first=first,
        end=first + lengths[episode],
    )


def split_budget(total: int, weights: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return how many of `total` go to each weight: whole numbers that add up to it exactly.

    Largest remainder: each gets its quota rounded down, and the rest goes to the largest fractions;
    of equal fractions, to the first. Computed with exact fractions, so the sum cannot drift.

    Args:
        total: What to divide, not negative.
        weights: One a dataset, not negative, not all zero; they need not add up to 1.

    Raises:
        ConfigError: A negative total, or weights that are negative, not finite, all zero or absent.

    Example:
        >>> split_budget(100, [1, 1, 1])
        array([34, 33, 33])
    """
    if total < 0:
        raise ConfigError(f"a budget cannot be negative: {total}")
    wrong = [i for i, w in enumerate(weights) if not 0 <= w < float("inf")]
    if wrong or not any(weights):
        problem = f"negative or not finite at {wrong}" if wrong else "no weight above zero"
        raise ConfigError(f"weights cannot divide a budget: {problem}", where="weights")
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact)
    quotas = [total * weight / whole for weight in exact]
    shares = [int(quota) for quota in quotas]
    by_fraction = sorted(range(len(quotas)), key=lambda i: (shares[i] - quotas[i], i))
    for i in by_fraction[: total - sum(shares)]:
        shares[i] += 1
    return np.array(shares, dtype=np.int64)


def draw_starts(n_frames: int, n_chunks: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return `n_chunks` start frames, uniform over `n_frames`, each once before any comes twice.

    The first n of a longer draw with the same generator state are the draw of n, up to `n_frames`:
    a corpus can grow without changing what it already holds.

    Args:
        n_frames: Selected frames of the dataset, at least 1 unless nothing is drawn.
        n_chunks: How many to draw.
        rng: Seeded by the run's seed and the dataset.

    Raises:
        ConfigError: Chunks asked of a dataset without frames.
    """
    if n_chunks and n_frames < 1:
        raise ConfigError("cannot draw chunks from a dataset without frames")
    passes = -(-n_chunks // n_frames) if n_chunks else 0
    drawn = [rng.permutation(n_frames) for _ in range(passes)]
    starts = np.concatenate(drawn) if drawn else np.empty(0, dtype=np.int64)
    return starts[:n_chunks].astype(np.int64)
