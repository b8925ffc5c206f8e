"""What a tokenizer does to chunks it was not fitted on: lengths, errors, vocabulary, truncation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import ConfigError

__all__ = [
    "LengthStats",
    "SquaredErrors",
    "VocabularyUse",
    "length_counts",
    "length_stats",
    "lengths_that_keep",
    "truncated_share",
    "vocabulary_use",
]

Floats = npt.NDArray[np.float64]

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
