"""Learning BPE merges on arrays: the merges that the `tokenizers` library learns, in less time.

All words lie in one linked list of symbols with separators between them, and a merge is one
vectorized step over all places where its pair occurs. The reference is `BpeTrainer` of tokenizers
0.23, whose rules decide ties and caps:

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
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_VOCAB", "Merges", "byte_symbols", "learn_merges"]

# Counts of all pairs are one (vocab + 1)^2 int32 matrix: 256 MiB at this size.
MAX_VOCAB = 8192
_N_BYTES = 256
_DEAD = np.uint32(0xFFFFFFFF)
_HALF = np.uint32(16)
_LOW = np.uint32(0xFFFF)
_COMPACT_BELOW = 0.8
_BLOCK = 1 << 20

Int = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Merges:
    """What was learned.

    Attributes:
        tokens: The bytes of each id; the first 256 are the single bytes.
        pairs: (left id, right id) of each merge, in order.
        lengths: (M,) int64, tokens of each measured word.
    """

    tokens: tuple[bytes, ...]
    pairs: tuple[tuple[int, int], ...]
    lengths: npt.NDArray[np.int64]


def byte_symbols() -> tuple[int, ...]:
    """Return the byte of each of the first 256 ids, in the order of byte-level BPE.

    Byte-level models write each byte as one printable character: those that Latin-1 can print as
    themselves, the others from U+0100 on. Ids follow these characters' code points.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(_N_BYTES) if byte not in set(printable)]
    return (*printable, *others)


def learn_merges(
    text: npt.NDArray[np.uint8],
    word_lengths: Int,
    *,
    vocab_size: int,
    min_frequency: int = 2,
    caps: Sequence[int | None] = (None,),
    n_measured: int = 0,
) -> list[Merges]:
    """Return the merges of a byte-level BPE for each cap on a token's length.

    Fits with different caps are one fit up to the first pair that a cap keeps from counting.

    Args:
        text: (B,) bytes of all words, one after the other.
        word_lengths: (W,) bytes in each word, adding up to B.
        vocab_size: Ids in all, 256 to `MAX_VOCAB`; fewer come out when no pair is frequent enough.
        min_frequency: Least count of a pair that is merged.
        caps: Longest tokens, in bytes, None for any length; see the module.
        n_measured: How many words, the last ones, are only encoded: nothing is learned from them.
    """
    finite = sorted({cap for cap in caps if cap is not None})
    last = None if None in caps else finite.pop()
    least = max(1, min_frequency)
    found: dict[int | None, Merges] = {}

    def finish(learner: _Learner, waiting: list[int]) -> Merges:
        while len(learner.tokens) < vocab_size:
            pair, count = learner.most_frequent()
            if count < least:
                break
            while waiting and learner.longest_with(pair) >= waiting[0]:
                cap = waiting.pop(0)
                found[cap] = finish(learner.branch(cap, pair, count), [])
            learner.merge(pair)
        return learner.result()

    trunk = finish(_Learner(text, word_lengths, vocab_size, last, n_measured), finite)
    return [found.get(cap, trunk) if cap != last else trunk for cap in caps]


class _Learner:
    """The state between two merges.

    `_key[i]` holds the symbol at place i in its upper half and the next symbol in its lower half,
    so that one comparison finds a pair. Places that a merge emptied hold `_DEAD` until the next
    compaction.
    """

    def __init__(
        self,
        text: npt.NDArray[np.uint8],
        word_lengths: Int,
        vocab_size: int,
        cap: int | None,
        n_measured: int,
    ) -> None:
        order = byte_symbols()
        self.tokens = [bytes([byte]) for byte in order]
        self.pairs: list[tuple[int, int]] = []
        self._lengths = np.ones(vocab_size + 1, dtype=np.int64)
        self._cap = cap
        self._separator = vocab_size
        self._n_learned = len(word_lengths) - n_measured
        self._longest = 1
        self._set_symbols(_with_separators(text, word_lengths, order, vocab_size))
        learned = self._key[: self._blocks[self._n_blocks_learned - 1].stop]
        self._counts = _pair_counts(learned, vocab_size + 1)
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
        for name in ("_key", "_next", "_prev", "_counts", "_lengths"):
            setattr(other, name, getattr(self, name).copy())
        for name in ("tokens", "pairs", "_queue", "_waiting"):
            setattr(other, name, getattr(self, name)[:])
        heapq.heappush(other._queue, (-count, pair))
        return other

    def result(self) -> Merges:
        """Return what was learned."""
        symbols = self._key[self._key != _DEAD] >> _HALF
        ends = np.flatnonzero(symbols == self._separator)
        lengths = np.diff(ends)[self._n_learned :] - 1
        return Merges(tuple(self.tokens), tuple(self.pairs), lengths.astype(np.int64))

    def merge(self, pair: int) -> None:
        """Merge a pair wherever it occurs."""
        first, second = pair >> 16, pair & 0xFFFF
        merged = len(self.tokens)
        self.tokens.append(self.tokens[first] + self.tokens[second])
        self._lengths[merged] = len(self.tokens[-1])
        self._longest = max(self._longest, len(self.tokens[-1]))
        self.pairs.append((first, second))
        done = [self._merge_in(block, pair, merged) for block in self._blocks]
        self._recount(first, second, merged, done[: self._n_blocks_learned])
        self._live -= sum(len(left) for left, _ in done)
        if self._live < _COMPACT_BELOW * len(self._key):
            self._set_symbols(self._key[self._key != _DEAD] >> _HALF)

    def _merge_in(self, block: slice, pair: int, merged: int) -> tuple[Int, Int]:
        """Merge a pair in one block.

        Returns:
            The symbols before and after each occurrence at the time it is merged, (m,) each.
        """
        at = self._occurrences(block, pair)
        ends = self._next[at]
        before, after = self._prev[at], self._next[ends]
        left, right = self._key[before] >> _HALF, self._key[ends] & _LOW
        follows = ends[:-1] == before[1:]  # pairs that directly follow another merged one
        left[1:][follows] = merged
        self._key[before] = (self._key[before] & ~_LOW) | np.uint32(merged)
        self._key[ends] = _DEAD
        new = right.copy()
        new[:-1][follows] = merged
        self._key[at] = np.uint32(merged << 16) | new
        self._next[at] = after
        self._prev[after] = at
        return left, right

    def _set_symbols(self, symbols: npt.NDArray[np.uint32]) -> None:
        n = len(symbols)
        self._live = n
        self._key = symbols << _HALF
        self._key[:-1] |= symbols[1:]
        self._key[-1] |= np.uint32(self._separator)
        self._next = np.arange(1, n + 1, dtype=np.int32)
        self._prev = np.arange(-1, n - 1, dtype=np.int32)
        # Blocks begin at separators: those that are learned from, and then those of other words.
        ends = np.flatnonzero(symbols == self._separator)
        edge = int(ends[self._n_learned])
        cuts = ends[np.searchsorted(ends, np.arange(_BLOCK, n - 1, _BLOCK))]
        edges = np.unique([0, edge, *cuts.tolist(), n]).tolist()
        self._blocks = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self._n_blocks_learned = edges.index(edge)

    def _occurrences(self, block: slice, pair: int) -> Int:
        """Return the places of a pair that a merge from left to right takes, in order."""
        at = np.flatnonzero(self._key[block] == np.uint32(pair))
        at += block.start
        if pair >> 16 != pair & 0xFFFF or len(at) < 2:
            return at
        # In a run of one symbol, every other place.
        starts = np.flatnonzero(self._next[at[:-1]] != at[1:]) + 1
        starts = np.concatenate([[0], starts])
        run_starts_odd = np.repeat((starts & 1).astype(np.bool_), np.diff(starts, append=len(at)))
        is_odd = np.zeros(len(at), dtype=np.bool_)
        is_odd[1::2] = True
        kept: Int = at[is_odd == run_starts_odd]
        return kept

    def _recount(
        self, first: int, second: int, merged: int, done: Sequence[tuple[Int, Int]]
    ) -> None:
        """Change the counts by the neighbours of the merged pairs, and queue the new pairs."""
        width = self._separator + 1
        by_left, by_right = np.zeros((2, width), dtype=np.int64)
        for left, right in done:
            by_left += np.bincount(left, minlength=width)
            by_right += np.bincount(right, minlength=width)
        lefts, rights = np.flatnonzero(by_left[:-1]), np.flatnonzero(by_right[:-1])
        self._counts[lefts, first] -= by_left[lefts]
        self._counts[second, rights] -= by_right[rights]
        if self._cap is not None:
            room = self._cap - int(self._lengths[merged])
            lefts = lefts[self._lengths[lefts] < room]
            rights = rights[self._lengths[rights] < room]
        self._counts[lefts, merged] += by_left[lefts]
        self._counts[merged, rights] += by_right[rights]
        # (merged, merged) is among the first only: what follows a pair is not merged yet.
        pairs = np.concatenate([(lefts << 16) | merged, (merged << 16) | rights])
        counts = self._counts[pairs >> 16, pairs & 0xFFFF]
        often = counts >= self._least
        for count, pair in zip(counts[often].tolist(), pairs[often].tolist(), strict=True):
            heapq.heappush(self._queue, (-count, pair))
        rare = ~often & (counts > 0)
        self._waiting.append((pairs[rare], counts[rare]))

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


def _with_separators(
    text: npt.NDArray[np.uint8], word_lengths: Int, order: tuple[int, ...], separator: int
) -> npt.NDArray[np.uint32]:
    """Return the symbols of all words, with a separator before, between and after them."""
    to_id = np.empty(_N_BYTES, dtype=np.uint32)
    to_id[list(order)] = np.arange(_N_BYTES)
    symbols = np.full(len(text) + len(word_lengths) + 1, separator, dtype=np.uint32)
    in_word = np.ones(len(symbols), dtype=np.bool_)
    in_word[0] = False
    in_word[np.cumsum(word_lengths) + np.arange(1, len(word_lengths) + 1)] = False
    symbols[in_word] = to_id[text]
    return symbols


def _pair_counts(key: npt.NDArray[np.uint32], width: int) -> npt.NDArray[np.int32]:
    """Return how often each pair occurs, (width, width); pairs with a separator, the last, 0."""
    counts = np.zeros((width, width), dtype=np.int32)
    small = _N_BYTES + 1
    for start in range(0, len(key), _BLOCK):
        left = np.minimum(key[start : start + _BLOCK] >> _HALF, _N_BYTES)
        right = np.minimum(key[start : start + _BLOCK] & _LOW, _N_BYTES)
        found = np.bincount(left * small + right, minlength=small * small)
        counts[:_N_BYTES, :_N_BYTES] += found.reshape(small, small)[:-1, :-1]
    return counts
