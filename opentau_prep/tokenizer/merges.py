"""Learning BPE merges on arrays: the merges that the `tokenizers` library learns, in less time.

The reference is `BpeTrainer` of tokenizers 0.23, whose rules decide ties and caps:

- The most frequent pair is merged; among equals, the one with the smaller ids.
- In a run of one symbol, pairs are merged from the left.
- The cap on a token's length decides whether a pair counts at the time it forms: only while left
  length + right length < cap. Pairs of two bytes always count.

The reference also has rules for a second merge that spells an earlier token. There is none: merges
that do not cross the ends of a span depend only on the bytes in it (a run that began outside would
cross, or be cut at the same places), so equal bytes are merged by the same merges.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from opentau_prep.tokenizer.words import FlatWords, Words, byte_symbols, split_words

__all__ = ["MAX_VOCAB", "Merges", "learn_merges"]

# Counts of all pairs are one (vocab + 1)^2 int32 matrix: 256 MiB at this size.
MAX_VOCAB = 8192
Int = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Merges:
    """What was learned.

    Attributes:
        tokens: The bytes of each id; the first 256 are the single bytes.
        pairs: (left id, right id) of each merge, in order.
        ids: (sum of lengths,) uint16, the measured words' tokens, one after the other.
        lengths: (M,) int64, tokens of each measured word.
    """

    tokens: tuple[bytes, ...]
    pairs: tuple[tuple[int, int], ...]
    ids: npt.NDArray[np.uint16]
    lengths: npt.NDArray[np.int64]


def learn_merges(
    text: npt.NDArray[np.uint8],
    word_lengths: Int,
    *,
    vocab_size: int,
    min_frequency: int = 2,
    caps: Sequence[int | None] = (None,),
    n_measured: int = 0,
) -> Iterator[Merges]:
    """Yield the merges of a byte-level BPE for each cap on a token's length, when asked for.

    Fits with different caps are one fit up to the first pair that a cap keeps from counting.

    Args:
        text: (B,) bytes of all words, one after the other.
        word_lengths: (W,) bytes in each word.
        vocab_size: Ids in all, 256 to `MAX_VOCAB`; fewer come out when no pair is frequent enough.
        min_frequency: Least count of a pair that is merged.
        caps: Longest tokens, in bytes, the longest first; None for any length; see the module.
        n_measured: How many words, the last ones, are only encoded: nothing is learned from them.
    """
    waiting = [cap for cap in reversed(caps[1:]) if cap is not None]
    least = max(1, min_frequency)
    learner = _Learner(text, word_lengths, vocab_size, caps[0], n_measured)
    branches: dict[int | None, _Learner] = {}
    for cap in caps:
        learner = branches.pop(cap, learner)
        while len(learner.tokens) < vocab_size:
            pair, count = learner.most_frequent()
            if count < least:
                break
            while waiting and learner.longest_with(pair) >= waiting[0]:
                tighter = waiting.pop(0)
                branches[tighter] = learner.branch(tighter, pair, count)
            learner.merge(pair)
        yield learner.result()


class _Learner:
    """The state between two merges."""

    def __init__(
        self,
        text: npt.NDArray[np.uint8],
        word_lengths: Int,
        vocab_size: int,
        cap: int | None,
        n_measured: int,
    ) -> None:
        self.tokens = [bytes([byte]) for byte in byte_symbols()]
        self.pairs: list[tuple[int, int]] = []
        self._lengths = np.ones(vocab_size + 1, dtype=np.int64)
        self._cap = cap
        self._longest = 1
        self._words: Words
        self._words = flat = FlatWords(text, word_lengths, vocab_size, n_measured)
        self._counts = flat.counts(vocab_size + 1)
        # (-count, pair); counts are those of the time of writing. Rare pairs wait outside the heap.
        self._queue: list[tuple[int, int]] = []
        self._least = int(self._counts.max())
        left, right = np.nonzero(self._counts)
        self._waiting = [((left << 16) | right, self._counts[left, right])]

    def most_frequent(self) -> tuple[int, int]:
        """Return the pair to merge next and its count; a count of 0 means that none is left."""
        while self._refill():
            negative, pair = heapq.heappop(self._queue)
            count = int(self._counts[pair >> 16, pair & 0xFFFF])
            if count == -negative:
                return pair, count
            heapq.heappush(self._queue, (-count, pair))
        return 0, 0

    def longest_with(self, pair: int) -> int:
        """Return a length that no pair exceeds that forms when a pair is merged."""
        merged = len(self.tokens[pair >> 16]) + len(self.tokens[pair & 0xFFFF])
        return max(self._longest, merged) + merged

    def branch(self, cap: int, pair: int, count: int) -> _Learner:
        """Return a copy that goes on with another cap, from before `pair` was taken."""
        other = copy.copy(self)
        other._cap = cap
        for name in ("_words", "_counts", "_lengths"):
            setattr(other, name, getattr(self, name).copy())
        for name in ("tokens", "pairs", "_queue", "_waiting"):
            setattr(other, name, getattr(self, name)[:])
        heapq.heappush(other._queue, (-count, pair))
        return other

    def result(self) -> Merges:
        """Return what was learned."""
        return Merges(tuple(self.tokens), tuple(self.pairs), *split_words(self._words))

    def merge(self, pair: int) -> None:
        """Merge a pair wherever it occurs."""
        first, second = pair >> 16, pair & 0xFFFF
        merged = len(self.tokens)
        self.tokens.append(self.tokens[first] + self.tokens[second])
        self._lengths[merged] = len(self.tokens[-1])
        self._longest = max(self._longest, len(self.tokens[-1]))
        self.pairs.append((first, second))
        width = self._words.separator + 1
        by_left, by_right = np.zeros((2, width), dtype=np.int64)
        self._words, neighbours = self._words.merge(first, second, merged)
        for left, right in neighbours:
            by_left += np.bincount(left, minlength=width)
            by_right += np.bincount(right, minlength=width)
        self._recount(first, second, merged, by_left, by_right)

    def _recount(
        self,
        first: int,
        second: int,
        merged: int,
        by_left: npt.NDArray[np.int64],
        by_right: npt.NDArray[np.int64],
    ) -> None:
        """Change the counts by the neighbours of the merged pairs, and queue the new pairs."""
        lefts, rights = by_left[:-1].nonzero()[0], by_right[:-1].nonzero()[0]
        n_left, n_right = by_left[lefts], by_right[rights]
        self._counts[lefts, first] -= n_left
        self._counts[second, rights] -= n_right
        if self._cap is not None:
            room = self._cap - int(self._lengths[merged])
            near = self._lengths[lefts] < room
            lefts, n_left = lefts[near], n_left[near]
            near = self._lengths[rights] < room
            rights, n_right = rights[near], n_right[near]
        self._counts[lefts, merged] += n_left
        self._counts[merged, rights] += n_right
        # (merged, merged) is among the first only: what follows a pair is not merged yet.
        pairs = np.concatenate([(lefts << 16) | merged, (merged << 16) | rights])
        counts = self._counts[pairs >> 16, pairs & 0xFFFF]
        often = counts >= self._least
        for count, pair in zip(counts[often].tolist(), pairs[often].tolist(), strict=True):
            heapq.heappush(self._queue, (-count, pair))
        self._waiting.append((pairs[~often], counts[~often]))

    def _refill(self) -> bool:
        """Let the top of the heap be the top of the whole queue; return whether there is one."""
        top = -self._queue[0][0] if self._queue else 0
        while top < self._least and self._waiting:
            pairs, counts = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
            most = max(top, int(counts.max(initial=0)))
            self._least = most // 2 + 1 if most > 1 else 0
            often = counts >= self._least
            new = zip((-counts[often]).tolist(), pairs[often].tolist(), strict=True)
            self._queue += new
            heapq.heapify(self._queue)
            self._waiting = [(pairs[~often], counts[~often])] if not often.all() else []
            top = -self._queue[0][0] if self._queue else 0
        return bool(self._queue)
