"""Words of symbols, and merging a pair wherever it occurs, one vectorized step per merge.

A merge works on whole arrays of symbols while it takes a large share of them, and then on a linked
list.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["N_BYTES", "FlatWords", "Words", "apply_merges", "byte_symbols", "split_words"]

N_BYTES = 256
_DEAD = np.uint32(0xFFFFFFFF)
_HALF = np.uint32(16)
_LOW = np.uint32(0xFFFF)
# Arrays are packed when fewer symbols than this share are alive.
_COMPACT_BELOW = 0.5
_BLOCK = 1 << 20
# One of so many symbols must go for a merge on whole arrays to cost less than one on a list.
_FLAT_ABOVE = 200

Int = npt.NDArray[np.integer[Any]]
Symbols = npt.NDArray[np.uint16]
Neighbours = Sequence[tuple[Int, Int]]
Words: TypeAlias = "FlatWords | _LinkedWords"


def byte_symbols() -> tuple[int, ...]:
    """Return the byte of each of the first 256 ids, in the order of byte-level BPE.

    Byte-level models write each byte as one printable character: those that Latin-1 can print as
    themselves, the others from U+0100 on. Ids follow these characters' code points.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(N_BYTES) if byte not in set(printable)]
    return (*printable, *others)


def apply_merges(
    text: npt.NDArray[np.uint8],
    word_lengths: Int,
    pairs: Sequence[tuple[int, int]],
    *,
    vocab_size: int,
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    """Return what learned merges make of words: the ids of all, flat, and (W,) tokens per word.

    Args:
        text: (B,) bytes of all words, one after the other.
        word_lengths: (W,) bytes in each word.
        pairs: `Merges.pairs`.
        vocab_size: As they were learned with.
    """
    words: Words = FlatWords(text, word_lengths, vocab_size, len(word_lengths))
    for merged, (first, second) in enumerate(pairs, N_BYTES):
        words, _ = words.merge(first, second, merged)
    return split_words(words)


class FlatWords:
    """Words as arrays of symbols, while a merge takes a large share of them.

    Args:
        text: (B,) bytes of all words, one after the other.
        word_lengths: (W,) bytes in each word.
        separator: The symbol before, between and after the words of each block.
        n_measured: How many words, the last ones, have no part in what `merge` returns.
    """

    def __init__(
        self, text: npt.NDArray[np.uint8], word_lengths: Int, separator: int, n_measured: int
    ) -> None:
        self.separator = separator
        to_id = np.empty(N_BYTES, dtype=np.uint16)
        to_id[list(byte_symbols())] = np.arange(N_BYTES)
        ends = np.cumsum(word_lengths)
        n_learned = len(word_lengths) - n_measured
        total = int(ends[-1]) if len(ends) else 0
        cuts = np.searchsorted(ends, np.arange(_BLOCK, total, _BLOCK)).tolist()
        edges = sorted({0, n_learned, len(word_lengths), *cuts})
        self.blocks = []
        self._n_learned = edges.index(n_learned)
        for first, last in itertools.pairwise(edges):
            begin = int(ends[first - 1]) if first else 0
            block = np.full(int(ends[last - 1]) - begin + last - first + 1, separator, np.uint16)
            in_word = np.ones(len(block), dtype=np.bool_)
            in_word[0] = False
            in_word[ends[first:last] - begin + np.arange(1, last - first + 1)] = False
            block[in_word] = to_id[text[begin : int(ends[last - 1])]]
            self.blocks.append(block)

    def copy(self) -> FlatWords:
        """Return a copy that merges on its own."""
        other = copy.copy(self)
        other.blocks = self.blocks[:]  # arrays are replaced, never changed
        return other

    def counts(self, width: int) -> npt.NDArray[np.int32]:
        """Return how often each pair of bytes occurs, (width, width), in words to learn from."""
        small = N_BYTES + 1
        found = np.zeros(small * small, dtype=np.int64)
        for block in self.blocks[: self._n_learned]:
            ids = np.minimum(block, N_BYTES).astype(np.uint32)
            found += np.bincount(ids[:-1] * np.uint32(small) + ids[1:], minlength=small * small)
        counts = np.zeros((width, width), dtype=np.int32)
        counts[:N_BYTES, :N_BYTES] = found.reshape(small, small)[:-1, :-1]
        return counts

    def measured(self) -> Symbols:
        """Return the symbols of the measured words, with separators."""
        return _joined(self.blocks[self._n_learned :])

    def merge(self, first: int, second: int, merged: int) -> tuple[Words, Neighbours]:
        """Merge a pair wherever it occurs.

        Returns:
            The words, and the symbols before and after each occurrence in words to learn from, at
            the time it is merged.
        """
        n, n_merged = sum(map(len, self.blocks)), 0
        neighbours = []
        for i, block in enumerate(self.blocks):
            at = np.flatnonzero((block[:-1] == first) & (block[1:] == second))
            if first == second and len(at) > 1:
                at = at[_every_other(at[1:] != at[:-1] + 1)]
            n_merged += len(at)
            if i < self._n_learned:
                left, right = block[at - 1], block[at + 2]
                left[1:][at[1:] == at[:-1] + 2] = merged  # directly follows another merged one
                neighbours.append((left, right))
            block = block.copy()
            block[at] = merged
            keep = np.ones(len(block), dtype=np.bool_)
            keep[at + 1] = False
            self.blocks[i] = block[keep]
        if n_merged * _FLAT_ABOVE < n:
            learned = _joined(self.blocks[: self._n_learned])
            symbols = _joined(self.blocks)
            return _LinkedWords(symbols, self.separator, max(len(learned), 1) - 1), neighbours
        return self, neighbours


class _LinkedWords:
    """Words as one linked list of symbols, with a separator before, between and after them.

    `_key[i]` holds the symbol at place i in its upper half and the next symbol in its lower half,
    so that one comparison finds a pair. Places that a merge emptied hold `_DEAD` until the next
    compaction. `_places[s]` holds every place of symbol s, and others that it had: a pair is looked
    for where the rarer of its symbols is.

    Args:
        symbols: The list.
        separator: The symbol between words.
        edge: The place from which on words are measured.
    """

    def __init__(self, symbols: Symbols, separator: int, edge: int) -> None:
        self.separator = separator
        self._edge = edge
        n = len(symbols)
        self._live = n
        self._key = symbols.astype(np.uint32) << _HALF
        self._key[:-1] |= symbols[1:]
        self._key[-1] |= np.uint32(separator)
        self._next = np.arange(1, n + 1, dtype=np.int32)
        self._prev = np.arange(-1, n - 1, dtype=np.int32)
        # Stable and of 16 bits: a radix sort.
        order = np.argsort(symbols, kind="stable").astype(np.int32)
        edges = np.cumsum(np.bincount(symbols, minlength=separator + 1))
        self._places: list[Int] = np.split(order, edges[:separator])

    def copy(self) -> _LinkedWords:
        """Return a copy that merges on its own."""
        other = copy.copy(self)
        for name in ("_key", "_next", "_prev"):
            setattr(other, name, getattr(self, name).copy())
        other._places = self._places[:]
        return other

    def measured(self) -> Symbols:
        """Return the symbols of the measured words, with separators."""
        key = self._key[self._edge :]
        found: Symbols = (key[key != _DEAD] >> _HALF).astype(np.uint16)
        return found

    def merge(self, first: int, second: int, merged: int) -> tuple[_LinkedWords, Neighbours]:
        """Merge a pair wherever it occurs; see `FlatWords.merge`."""
        at = self._occurrences(first, second)
        ends = self._next[at]
        before, after = self._prev[at], self._next[ends]
        keys = self._key[before]
        left, right = keys >> _HALF, self._key[ends] & _LOW
        follows = ends[:-1] == before[1:]  # pairs that directly follow another merged one
        new = right
        if follows.any():
            left[1:][follows] = merged
            new = right.copy()
            new[:-1][follows] = merged
        self._key[before] = (keys & ~_LOW) | np.uint32(merged)
        self._key[ends] = _DEAD
        self._key[at] = np.uint32(merged << 16) | new
        self._next[at] = after
        self._prev[after] = at
        self._places[merged] = at
        self._live -= len(at)
        n = int(at.searchsorted(self._edge))
        neighbours = [(left[:n], right[:n])]
        if self._live < _COMPACT_BELOW * len(self._key):
            alive = self._key != _DEAD
            edge = int(np.count_nonzero(alive[: self._edge]))
            symbols = (self._key[alive] >> _HALF).astype(np.uint16)
            return _LinkedWords(symbols, self.separator, edge), neighbours
        return self, neighbours

    def _occurrences(self, first: int, second: int) -> Int:
        """Return the places of a pair that a merge from left to right takes, in order."""
        at: Int
        at, ends = self._places[first], self._places[second]
        if len(ends) < len(at):
            ends = ends[self._key[ends] >> _HALF == second]
            self._places[second] = ends
            at = self._prev[ends]
        at = at[self._key[at] == np.uint32(first << 16 | second)]
        if first == second and len(at) > 1:
            at = at[_every_other(self._next[at[:-1]] != at[1:])]
        return at


def split_words(
    words: Words,
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    """Return the ids of the measured words, flat, and how many each has."""
    symbols = words.measured()
    lengths = np.diff(np.flatnonzero(symbols == words.separator)) - 1
    return symbols[symbols != words.separator], lengths.astype(np.int64)


def _joined(blocks: Sequence[Symbols]) -> Symbols:
    """Return blocks as one, with one separator where two meet."""
    rest = [block[1:] for block in blocks[1:]]
    return np.concatenate([*blocks[:1], *rest]) if blocks else np.zeros(0, dtype=np.uint16)


def _every_other(begins: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which of n + 1 places a merge from left to right takes in runs of one symbol.

    Args:
        begins: (n,) whether each place but the first begins a run.
    """
    n = len(begins) + 1
    starts = np.concatenate([[0], np.flatnonzero(begins) + 1])
    run_starts_odd = np.repeat((starts & 1).astype(np.bool_), np.diff(starts, append=n))
    is_odd = np.zeros(n, dtype=np.bool_)
    is_odd[1::2] = True
    kept: npt.NDArray[np.bool_] = is_odd == run_starts_odd
    return kept
