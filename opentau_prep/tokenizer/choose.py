"""Choosing how much to fit on and how long a token may be, by what held-out chunks cost.

Both are questions of data, not of habit: on padded corpora a cap of 64 numbers per token makes
sequences half as long again, and a few thousand chunks often teach the tokenizer all that it can
learn. So the cap is chosen by fits on a small prefix of the corpus, and then the prefix is doubled
until held-out sequences stop getting shorter, the corpus is used up, or memory is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from opentau_prep.notices import warn
from opentau_prep.tokenizer.bpe import (
    Trained,
    affordable_words,
    train_and_measure,
    trainer_bytes,
    utf8_bytes,
)

__all__ = ["AUTO_CAPS", "BpeFit", "BpePlan", "Candidate", "fit_bpe", "proportional_order"]

Points = npt.NDArray[np.uint32]
AUTO_CAPS: tuple[int | None, ...] = (None, 1024, 256, 64)
_PILOT_CHUNKS = 1000
_MEASURED_CHUNKS, _LEAST_MEASURED = 1000, 200
# More chunks do not help when they shorten held-out ones by a smaller share than this.
_ENOUGH = 0.005
# Token limits whose mean lengths differ by less are equal: p99 decides.
_TIE = 0.001


@dataclass(frozen=True)
class Candidate:
    """One fit that was tried.

    Attributes:
        n_chunks: Chunks it was fitted on.
        max_token_length: Its cap, in numbers; None without one.
        mean: Mean tokens per held-out chunk, of at most 1,000 of them.
        p99: 99th percentile of them.
    """

    n_chunks: int
    max_token_length: int | None
    mean: float
    p99: float


@dataclass(frozen=True)
class BpePlan:
    """What is fixed beforehand.

    Attributes:
        vocab_size: Tokens in all.
        caps: Caps to choose from, the longest first; one when it is given by the user. A cap that
            makes sequences longer ends the search.
        grow: Whether to start small and double; else all chunks are used at once, if memory
            allows.
        memory_bytes: What the trainer may take.
        asked: Chunks that were asked for, where the corpus holds fewer because memory could not
            hold a fit on them; None otherwise.
        bytes_per_number: UTF-8 bytes of the code point of 0, by far the most frequent number.
    """

    vocab_size: int
    caps: Sequence[int | None] = AUTO_CAPS
    grow: bool = True
    memory_bytes: int = 4 << 30
    asked: int | None = None
    bytes_per_number: int = 1


@dataclass(frozen=True)
class BpeFit:
    """The fit that was chosen, and those it was chosen from.

    Attributes:
        trained: The tokenizer and its merges.
        chosen: Its row of `candidates`.
        candidates: All fits, in the order they were made.
        stopped_by: `converged`, `corpus` (it is used up) or `memory`.
    """

    trained: Trained
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    stopped_by: str

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer alone."""
        return self.trained.tokenizer


def proportional_order(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return an order of grouped items whose every prefix holds the groups in proportion.

    Args:
        counts: Items of each group; items are numbered group after group.

    Returns:
        (sum of counts,) int64 item numbers. Item k of n is at (k + 1/2) / n of the way.

    Example:
        >>> proportional_order([4, 2])
        array([0, 1, 4, 2, 3, 5])
    """
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in counts] or [np.empty(0)])
    return np.argsort(place, kind="stable").astype(np.int64)


def fit_bpe(
    points: Points,
    order: npt.NDArray[np.int64],
    held_out: Points,
    plan: BpePlan,
    *,
    progress: Callable[[Candidate], None] | None = None,
) -> BpeFit:
    """Return the BPE whose held-out sequences are shortest within the plan.

    Args:
        points: (N, L) code points of the corpus.
        order: (N,) rows of `points`; a fit on n chunks uses the first n of them.
        held_out: (M, L) code points of chunks from other episodes.
        plan: What is fixed and what may be tried.
        progress: Called after every fit.

    A corpus too large for the plan's memory is cut, with a `corpus_cut` notice; what is left is the
    most that is used, as if the plan were `grow`.
    """
    limit, stopped_by = _affordable(points, plan)
    measured = held_out[:: -(-len(held_out) // _n_measured(limit))]
    trial = _Trial(points, order, measured, plan, progress or _silent)
    sizes = _sizes(limit) if plan.grow or stopped_by == "memory" else [limit]
    caps = list(plan.caps)
    if len(caps) > 1:
        caps = [_best_cap(trial.run_all(min(_PILOT_CHUNKS, limit), caps))]
    trained, chosen = trial.run(sizes[0], caps[0])
    for size in sizes[1:]:
        grown, candidate = trial.run(size, caps[0])
        gain = 1 - candidate.mean / chosen.mean
        if gain >= 0:
            trained, chosen = grown, candidate
        if gain < _ENOUGH:
            stopped_by = "converged"
            break
    return BpeFit(trained, chosen, tuple(trial.candidates.values()), stopped_by)


class _Trial:
    """Fits by size and cap, each made once."""

    def __init__(
        self,
        points: Points,
        order: npt.NDArray[np.int64],
        held_out: Points,
        plan: BpePlan,
        progress: Callable[[Candidate], None],
    ) -> None:
        self.candidates: dict[tuple[int, int | None], Candidate] = {}
        self._fits: dict[tuple[int, int | None], Trained] = {}
        self._points, self._order, self._held_out = points, order, held_out
        self._plan, self._progress = plan, progress

    def run(self, size: int, cap: int | None) -> tuple[Trained, Candidate]:
        self.run_all(size, [cap])
        return self._fits[size, cap], self.candidates[size, cap]

    def run_all(self, size: int, caps: Sequence[int | None]) -> list[Candidate]:
        new = [cap for cap in caps if (size, cap) not in self.candidates]
        if new:
            # With headroom most numbers take two bytes: the same cap still means as many numbers.
            width = self._plan.bytes_per_number
            found = train_and_measure(
                self._points[self._order[:size]],
                self._held_out,
                vocab_size=self._plan.vocab_size,
                caps=[None if cap is None else cap * width for cap in new],
            )
            for cap, (fit, encoded) in zip(new, found, strict=True):
                mean, p99 = float(encoded.lengths.mean()), float(np.percentile(encoded.lengths, 99))
                self._keep((size, cap), fit, Candidate(size, cap, mean, p99))
                shortest = min(c.mean for key, c in self.candidates.items() if key[0] == size)
                if mean > shortest * (1 + _TIE):  # so is every shorter limit
                    break
        return [c for key, c in self.candidates.items() if key[0] == size and key[1] in caps]

    def _keep(self, key: tuple[int, int | None], fit: Trained, candidate: Candidate) -> None:
        self.candidates[key], self._fits[key] = candidate, fit
        self._progress(candidate)


def _affordable(points: Points, plan: BpePlan) -> tuple[int, str]:
    per_chunk = utf8_bytes(points) / len(points)
    fits = affordable_words(per_chunk, plan.vocab_size, plan.memory_bytes)
    asked = plan.asked or len(points)
    if fits >= asked:
        return len(points), "corpus"
    limit = min(len(points), fits)
    if plan.grow:  # nobody asked for a number
        return limit, "memory"
    needed = trainer_bytes(int(per_chunk * asked), plan.vocab_size)
    warn(
        "corpus_cut",
        f"fitting on all {asked:,} chunks would take about {needed / 2**30:.1f} GiB;"
        f" at most {limit:,} are used, which fit into {plan.memory_bytes / 2**30:.1f} GiB, and"
        " fewer if more no longer shorten held-out sequences",
        asked=asked,
        limit=limit,
    )
    return limit, "memory"


def _n_measured(limit: int) -> int:
    """Return how many held-out chunks decide: enough, and few next to those that are fitted on."""
    return min(_MEASURED_CHUNKS, max(_LEAST_MEASURED, limit // 4))


def _sizes(limit: int) -> list[int]:
    sizes = [min(_PILOT_CHUNKS, limit)]
    while sizes[-1] < limit:
        sizes.append(min(2 * sizes[-1], limit))
    return sizes


def _best_cap(candidates: Sequence[Candidate]) -> int | None:
    """The shortest mean; among those nearly as short the best p99, then the shortest tokens."""
    shortest = min(candidate.mean for candidate in candidates)
    near = [c for c in candidates if c.mean <= shortest * (1 + _TIE)]
    best = min(near, key=lambda c: (c.p99, c.max_token_length or float("inf")))
    return best.max_token_length


def _silent(candidate: Candidate) -> None:
    """Progress that nobody asked for."""
