"""What a tokenizer does to chunks: lengths, errors, vocabulary, truncation; why they are long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from opentau_prep.errors import ConfigError
from opentau_prep.tokenizer.bpe import WIDER, Encoded
from opentau_prep.tokenizer.quantize import dequantize, quantize

if TYPE_CHECKING:
    from opentau_prep.tokenizer.options import FitOptions

__all__ = [
    "Explained",
    "Halved",
    "LengthStats",
    "SquaredErrors",
    "VocabularyUse",
    "explain",
    "explained_json",
    "length_counts",
    "length_stats",
    "lengths_that_keep",
    "token_shares",
    "truncated_share",
    "vocabulary_use",
]

Floats = npt.NDArray[np.float64]
Points = npt.NDArray[np.uint32]

_BLOCK = 256
# The limits that are suggested keep these shares of the chunks whole.
_KEPT_SHARES = (0.99, 0.999, 1.0)


@dataclass(frozen=True)
class LengthStats:
    """Tokens per chunk; percentiles by linear interpolation."""

    n_chunks: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: int


@dataclass(frozen=True)
class SquaredErrors:
    """Errors of decoded chunks, which parts of a corpus can be added up from; D dims.

    Attributes:
        counts: (D,) int64, values of each dim.
        squared: (D,) float64, sum of their squared errors.
        largest: (D,) float64, largest absolute error.
    """

    counts: npt.NDArray[np.int64]
    squared: Floats
    largest: Floats

    @classmethod
    def of(
        cls, chunks: npt.NDArray[np.floating[Any]], decoded: npt.NDArray[np.floating[Any]]
    ) -> SquaredErrors:
        """Return the errors of decoded (N, T, D) chunks against the originals, in float64."""
        error = decoded.astype(np.float64) - chunks
        counts = np.full(error.shape[2], error.shape[0] * error.shape[1], dtype=np.int64)
        return cls(
            counts, np.einsum("ntd,ntd->d", error, error), np.abs(error).max(axis=(0, 1), initial=0)
        )

    @classmethod
    def total(cls, parts: Iterable[SquaredErrors | None]) -> SquaredErrors | None:
        """Return the errors over all parts, None when there are none."""
        there = [part for part in parts if part is not None]
        return reduce(add, there) if there else None

    def __add__(self, other: SquaredErrors) -> SquaredErrors:
        """Return the errors over both; dims that one lacks have the other's alone."""
        a, b = (self, other) if len(self.counts) >= len(other.counts) else (other, self)
        missing = (0, len(a.counts) - len(b.counts))
        return SquaredErrors(
            a.counts + np.pad(b.counts, missing),
            a.squared + np.pad(b.squared, missing),
            np.maximum(a.largest, np.pad(b.largest, missing)),
        )

    def in_units(self, half: Floats) -> SquaredErrors:
        """Return the errors of the first len(half) dims, each multiplied by its half range."""
        kept = slice(len(half))
        return SquaredErrors(
            self.counts[kept], self.squared[kept] * half**2, self.largest[kept] * np.abs(half)
        )

    @property
    def mse(self) -> float:
        """Mean squared error over every value."""
        return float(self.squared.sum() / self.counts.sum())

    @property
    def max_abs(self) -> float:
        """Largest absolute error."""
        return float(self.largest.max(initial=0))


@dataclass(frozen=True)
class VocabularyUse:
    """How much of a vocabulary some encoded chunks use.

    Attributes:
        size: Tokens in the vocabulary.
        used: Distinct tokens that occur.
        share: `used / size`.
        entropy_bits: Entropy of the tokens' frequencies; `log2(size)` would be an even use.
    """

    size: int
    used: int
    share: float
    entropy_bits: float


def length_stats(lengths: npt.NDArray[np.int64]) -> LengthStats:
    """Return the distribution of (N,) token lengths.

    Raises:
        ConfigError: No chunks.
    """
    if not lengths.size:
        raise ConfigError("there are no chunks to measure token lengths on")
    p50, p95, p99 = np.percentile(lengths, [50, 95, 99]).tolist()
    return LengthStats(len(lengths), float(lengths.mean()), p50, p95, p99, int(lengths.max()))


def truncated_share(lengths: npt.NDArray[np.int64], max_length: int) -> float:
    """Return the share of chunks with more than `max_length` tokens, which training would cut."""
    return float(np.mean(lengths > max_length))


def lengths_that_keep(
    lengths: npt.NDArray[np.int64], shares: Iterable[float] = _KEPT_SHARES
) -> dict[float, int]:
    """Return share -> the smallest maximum length that leaves that share of the chunks whole."""
    return {share: int(np.quantile(lengths, share, method="inverted_cdf")) for share in shares}


def length_counts(lengths: npt.NDArray[np.int64]) -> dict[str, int]:
    """Return token length (as text, for JSON) -> chunks, by length: all that forecasts need."""
    values, counts = np.unique(lengths, return_counts=True)
    return {str(v): c for v, c in zip(values.tolist(), counts.tolist(), strict=True)}


def vocabulary_use(ids: npt.NDArray[np.integer[Any]], size: int) -> VocabularyUse:
    """Return how much of a vocabulary of `size` tokens some encoded chunks use."""
    counts = np.bincount(ids)
    probabilities = counts[counts > 0] / max(1, counts.sum())
    return VocabularyUse(
        size=size,
        used=len(probabilities),
        share=len(probabilities) / size,
        entropy_bits=float(-(probabilities * np.log2(probabilities)).sum()) + 0.0,
    )


@dataclass(frozen=True)
class Halved:
    """Held-out chunks under half of something, encoded with the same tokenizer.

    Attributes:
        scale: Their scale.
        chunk_size: Their steps.
        mean: Mean tokens per chunk.
        p99: 99th percentile of them.
        mse: Mean squared error of a round trip, normalized units.
    """

    scale: float
    chunk_size: int
    mean: float
    p99: float
    mse: float

    @classmethod
    def of(
        cls,
        chunks: npt.NDArray[np.float32],
        scale: float,
        lengths: npt.NDArray[np.int64],
    ) -> Halved:
        """Return what is measured of (N, T, D) chunks with so many tokens, (N,)."""
        steps, dims = chunks.shape[1:]
        values = quantize(chunks, scale)
        decoded = dequantize(values, scale, time_horizon=steps, action_dim=dims)
        mse = float(np.mean((decoded - chunks) ** 2))
        return cls(scale, steps, float(lengths.mean()), float(np.percentile(lengths, 99)), mse)


@dataclass(frozen=True)
class Explained:
    """Where the tokens of held-out chunks come from.

    Attributes:
        counts: (N,) int64, chunks of each dataset.
        tokens: (N, T, D) float64, tokens of each dataset's chunks by DCT frequency and action dim;
            their sum is the sum of the chunks' lengths.
        halves: The chunks under half the scale, and every second step of them, which is the same
            time at half the rate; empty where nothing is held out.
    """

    counts: npt.NDArray[np.int64]
    tokens: Floats
    halves: Sequence[Halved]


def explain(
    tokenizer: Tokenizer,
    points: Points,
    encoded: Encoded,
    dataset: npt.NDArray[np.int64],
    *,
    n_datasets: int,
    options: FitOptions,
    min_token: int,
    halves: Sequence[Halved],
) -> Explained:
    """Return where the tokens of N chunks come from.

    Args:
        tokenizer: The tokenizer.
        points: (N, T * D) code points of the chunks.
        encoded: What the tokenizer makes of them.
        dataset: (N,) each chunk's dataset.
        n_datasets: How many datasets there are.
        options: The fit's options.
        min_token: The number with code point 0.
        halves: The chunks under half the scale and half the rate.
    """
    vocabulary = tokenizer.get_vocab()
    sizes = np.zeros(len(vocabulary), dtype=np.int64)
    # A byte-level token has one character per byte.
    sizes[list(vocabulary.values())] = [len(token) for token in vocabulary]
    tokens = token_shares(points, encoded, sizes, dataset, n_groups=n_datasets, zero=-min_token)
    shape = (n_datasets, options.chunk_size, options.action_dim)
    return Explained(np.bincount(dataset, minlength=n_datasets), tokens.reshape(shape), halves)


def token_shares(
    points: Points,
    encoded: Encoded,
    token_bytes: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    *,
    n_groups: int,
    zero: int,
) -> Floats:
    """Return how many tokens each of L places takes in the chunks of each group, (n_groups, L).

    A token counts in equal parts for the bytes of the numbers in it that are not 0; one that holds
    zeros alone, for all of its bytes. So a run of zeros that ends in a number counts for that
    number, which ends it.

    Args:
        points: (N, L) code points.
        encoded: Their tokens, which spell them exactly.
        token_bytes: (V,) bytes of each token.
        group: (N,) each chunk's group.
        n_groups: How many groups there are.
        zero: The code point of 0.
    """
    length = points.shape[1]
    total = np.zeros(n_groups * length)
    ends = np.concatenate([[0], np.cumsum(encoded.lengths)])
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        widths = np.ones(block.shape, dtype=np.int64)
        for edge in WIDER:
            widths += block >= edge
        ids = encoded.ids[ends[start] : ends[start + len(block)]]
        sizes = token_bytes[ids]
        number = np.repeat(np.arange(block.size), widths.ravel())
        counts = (block != zero).ravel()[number].astype(np.float64)
        first = np.cumsum(sizes) - sizes
        n_counted = np.add.reduceat(counts, first)
        only_zeros = n_counted == 0
        counts[np.repeat(only_zeros, sizes)] = 1
        counts /= np.repeat(np.where(only_zeros, sizes, n_counted), sizes)
        place = number + np.repeat(
            (group[start : start + len(block)] - np.arange(len(block))) * length,
            widths.sum(axis=1),
        )
        total += np.bincount(place, weights=counts, minlength=len(total))
    return total.reshape(n_groups, length)


def explained_json(found: Explained, head_of: Sequence[str]) -> dict[str, Any]:
    """Return it JSON-ready: tokens per chunk in all by frequency, of heads by dim as well.

    Args:
        found: What was found.
        head_of: The head of each dataset.
    """

    def group(mine: npt.NDArray[np.bool_]) -> dict[str, Any]:
        n = int(found.counts[mine].sum())
        tokens = found.tokens[mine].sum(axis=0) / n
        return {
            "chunks": n,
            "mean": float(tokens.sum()),
            "per_frequency": tokens.sum(axis=1).tolist(),
            "per_dim": tokens.sum(axis=0).tolist(),
        }

    heads = np.array(head_of)
    names = ("half_scale", "half_rate")
    return {
        "total": group(found.counts > 0),
        "heads": {
            head: group(heads == head)
            for head in dict.fromkeys(head_of)
            if found.counts[heads == head].any()
        },
        **{name: asdict(half) for name, half in zip(names, found.halves, strict=False)},
    }
