"""The byte-level BPE under the action tokenizer: training, encoding, decoding, all on arrays.

Chunks are rows of code points (see `quantize`). All 256 bytes are in the vocabulary, so that every
chunk can be encoded; a chunk is one word, so that a token may be as long as the corpus deserves.
`merges` learns what the trainer of `tokenizers` would; that library encodes and decodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from opentau_prep.errors import ConfigError
from opentau_prep.tokenizer.merges import MAX_VOCAB, Merges, learn_merges
from opentau_prep.tokenizer.words import N_BYTES, apply_merges, byte_symbols

__all__ = [
    "WIDER",
    "Encoded",
    "Trained",
    "affordable_words",
    "decode_points",
    "encode_points",
    "strings_of_points",
    "train_and_measure",
    "train_bpe",
    "trainer_bytes",
    "unknown_bytes",
    "utf8_bytes",
]

Points = npt.NDArray[np.uint32]

# As in the trainer of tokenizers that FAST uses: a pair seen once is not merged.
_MIN_FREQUENCY = 2
_BLOCK_CHUNKS = 1024
# Code points from which on UTF-8 takes two, three and four bytes.
WIDER = (0x80, 0x800, 0x10000)
# Peak resident bytes per UTF-8 byte of corpus, rounded up from scripts/measure_bpe_trainer.py: of
# `learn_merges` with its counts of all pairs apart, and of the trainer of tokenizers 0.23.
_LEARNER_BYTES = 10
_PAIR_BYTES = 5
_LIBRARY_BYTES = 135


def strings_of_points(points: Points) -> list[str]:
    """Return each row of an (N, L) array of code points as one string of L characters."""
    n, length = points.shape
    # One decode of the whole block, then slices: NumPy's own '<U' view would drop trailing NULs.
    text = np.ascontiguousarray(points, dtype="<u4").tobytes().decode("utf-32-le")
    return [text[i * length : (i + 1) * length] for i in range(n)]


def utf8_bytes(points: Points) -> int:
    """Return how many bytes (N, L) code points take in UTF-8: what the trainer's cost goes by."""
    beyond = sum(int(np.count_nonzero(points >= edge)) for edge in WIDER)
    return points.size + beyond


def trainer_bytes(n_utf8_bytes: int, vocab_size: int) -> int:
    """Return an upper estimate of the trainer's peak memory, in bytes, for a corpus so large."""
    if vocab_size > MAX_VOCAB:
        return n_utf8_bytes * _LIBRARY_BYTES
    return n_utf8_bytes * _LEARNER_BYTES + vocab_size**2 * _PAIR_BYTES


def affordable_words(word_bytes: float, vocab_size: int, memory_bytes: int) -> int:
    """Return how many words of so many UTF-8 bytes the trainer can take, at least one."""
    fixed = trainer_bytes(0, vocab_size)
    per_word = (trainer_bytes(1 << 20, vocab_size) - fixed) / (1 << 20) * word_bytes
    return max(1, int((memory_bytes - fixed) / per_word))


def train_bpe(points: Points, *, vocab_size: int, max_token_length: int | None = None) -> Tokenizer:
    """Return a byte-level BPE trained on chunks, the same for the same chunks in any order.

    Args:
        points: (N, L) code points, one chunk a row.
        vocab_size: Tokens in all, the 256 bytes included; fewer come out when the corpus runs out
            of pairs that occur at least twice.
        max_token_length: Longest token, in UTF-8 bytes; None means no limit.

    Raises:
        ConfigError: A vocabulary that has no room for the 256 bytes, a cap below 1, or no chunks.
    """
    if vocab_size < N_BYTES:
        raise ConfigError(
            f"a vocabulary of {vocab_size} has no room for the {N_BYTES} bytes",
            where="vocab_size",
            hint=f"Give at least {N_BYTES + 1}.",
        )
    if max_token_length is not None and max_token_length < 1:
        raise ConfigError(f"must be at least 1, not {max_token_length}", where="max_token_length")
    if not points.size:
        raise ConfigError("there are no chunks to fit a tokenizer on")
    none = np.zeros((0, points.shape[1]), dtype=np.uint32)
    ((trained, _),) = train_and_measure(
        points, none, vocab_size=vocab_size, caps=(max_token_length,)
    )
    return trained.tokenizer


@dataclass(frozen=True)
class Encoded:
    """The tokens of N chunks.

    Attributes:
        ids: (sum of lengths,) ids, chunk after chunk.
        lengths: (N,) int64, tokens per chunk.
    """

    ids: npt.NDArray[np.integer[Any]]
    lengths: npt.NDArray[np.int64]

    def rows(self) -> list[list[int]]:
        """Return the ids of each chunk."""
        ids: list[int] = self.ids.tolist()
        ends = np.cumsum(self.lengths).tolist()
        return [ids[end - n : end] for end, n in zip(ends, self.lengths.tolist(), strict=True)]

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Encoded:
        """Return some chunks, by increasing position."""
        chosen = np.zeros(len(self.lengths), dtype=np.bool_)
        chosen[rows] = True
        return Encoded(self.ids[np.repeat(chosen, self.lengths)], self.lengths[chosen])


@dataclass(frozen=True)
class Trained:
    """A tokenizer that was trained here.

    Attributes:
        tokenizer: The tokenizer.
        pairs: Its merges; None where the library learned them.
    """

    tokenizer: Tokenizer
    pairs: Sequence[tuple[int, int]] | None = None

    def encode(self, *points: Points) -> list[Encoded]:
        """Return what `tokenizer` makes of the rows of arrays of code points, (N, L) each."""
        if self.pairs is None:
            return [encode_points(self.tokenizer, each) for each in points]
        # The merges are applied to all of them at once: a merge of few symbols costs no less.
        parts = [_utf8(each) for each in points]
        text, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
        vocab_size = self.tokenizer.get_vocab_size()
        ids, lengths = apply_merges(text, sizes, self.pairs, vocab_size=vocab_size)
        rows = np.cumsum([len(each) for each in points])[:-1]
        by_array = np.split(lengths, rows)
        ends = np.cumsum([part.sum() for part in by_array])[:-1]
        return [Encoded(*each) for each in zip(np.split(ids, ends), by_array, strict=True)]


def train_and_measure(
    points: Points, measured: Points, *, vocab_size: int, caps: Sequence[int | None]
) -> Iterator[tuple[Trained, Encoded]]:
    """Yield the tokenizer of `train_bpe` for each cap, and what it makes of other chunks.

    Args:
        points: (N, L) code points to train on, at least one chunk.
        measured: (M, L) code points of other chunks.
        vocab_size: Tokens in all.
        caps: Longest token for each, in UTF-8 bytes, the longest first; None means no limit.
    """
    if vocab_size > MAX_VOCAB:
        for cap in caps:
            trained = Trained(_trained_by_library(points, vocab_size, cap))
            yield trained, encode_points(trained.tokenizer, measured)
        return
    text, lengths = _utf8(np.concatenate([points, measured]))
    for found in learn_merges(
        text,
        lengths,
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        caps=caps,
        n_measured=len(measured),
    ):
        yield Trained(_of_merges(found), found.pairs), Encoded(found.ids, found.lengths)


def _of_merges(learned: Merges) -> Tokenizer:
    characters = dict(zip(byte_symbols(), _alphabet(), strict=True))
    tokens = [token.decode("latin-1").translate(characters) for token in learned.tokens]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [(tokens[left], tokens[right]) for left, right in learned.pairs]
    return _byte_level(models.BPE(vocab=vocabulary, merges=merges))


def encode_points(tokenizer: Tokenizer, points: Points) -> Encoded:
    """Return the tokens of each row of (N, L) code points."""
    blocks = _string_blocks(points)
    rows = [code.ids for block in blocks for code in tokenizer.encode_batch_fast(block)]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    return Encoded(np.fromiter(chain.from_iterable(rows), dtype=np.int64), lengths)


def unknown_bytes(
    tokenizer: Tokenizer, points: Points
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return how many UTF-8 bytes of each row a byte-level model does not know, and has; (N,) each.

    A model that was fitted on other chunks lacks the bytes that these did not show; `tokenizers`
    leaves them out without a word.
    """
    known = tokenizer.get_vocab()
    is_unknown = np.empty(N_BYTES, dtype=np.int64)
    is_unknown[list(byte_symbols())] = [character not in known for character in _alphabet()]
    text, lengths = _utf8(points)
    if not len(lengths):
        return lengths, lengths
    return np.add.reduceat(is_unknown[text], np.cumsum(lengths) - lengths), lengths


def decode_points(
    tokenizer: Tokenizer, ids: Iterable[Sequence[int]]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Return the code points of token ids.

    Returns:
        All of them in one flat array, and the number that each id list gave, (N,) int64. Bytes that
        are not UTF-8, which only ids that no chunk was encoded to can give, come out as U+FFFD.
    """
    texts = tokenizer.decode_batch([list(row) for row in ids], skip_special_tokens=False)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    return np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4"), lengths


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    # The regex of text models would split a chunk wherever its numbers happen to look like letters.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _trained_by_library(points: Points, vocab_size: int, max_token_length: int | None) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=_alphabet(),
        max_token_length=max_token_length,
    )
    tokenizer = _byte_level(models.BPE())
    tokenizer.train_from_iterator(_string_blocks(points), trainer=trainer, length=len(points))
    return tokenizer


def _utf8(points: Points) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the UTF-8 bytes of all rows, one after the other, and the bytes in each."""
    lengths = np.full(len(points), points.shape[1], dtype=np.int64)
    if points.max() < WIDER[0]:
        return points.astype(np.uint8).ravel(), lengths
    for edge in WIDER:
        lengths += np.count_nonzero(points >= edge, axis=1)
    text = "".join(chain.from_iterable(_string_blocks(points)))
    return np.frombuffer(text.encode(), dtype=np.uint8), lengths


def _string_blocks(points: Points) -> Iterator[list[str]]:
    for start in range(0, len(points), _BLOCK_CHUNKS):
        yield strings_of_points(points[start : start + _BLOCK_CHUNKS])
