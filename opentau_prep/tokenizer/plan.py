"""Which chunks: how many of each dataset, which episodes are held out, which start frames.

All of it follows from the episode tables, the mixture and the seed, before a frame is read, so that
only files that hold a chosen episode are opened, and workers have nothing to decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import DataError
from opentau_prep.tokenizer.options import HELD_OUT_PER_DATASET
from opentau_prep.tokenizer.sample import draw_starts, split_budget

if TYPE_CHECKING:
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.tokenizer.options import FitOptions

__all__ = ["DatasetPlan", "Draws", "plan_datasets", "sampling_weights", "split_episodes"]

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
        n_share: How many of those, the first ones, stand for it in the mixture's proportions.
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
    budgets = split_budget(n_fit, weights)
    for i, (entry, (lengths, held)) in enumerate(zip(entries, splits, strict=True)):
        n_held = int(shares[i])
        if held.any() and weights[i]:
            n_held = max(n_held, min(HELD_OUT_PER_DATASET, int(lengths[held].sum())))
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
