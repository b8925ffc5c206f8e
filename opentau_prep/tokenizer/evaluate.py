"""What a tokenizer does to chunks it was not fitted on: lengths, errors, vocabulary, truncation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import ConfigError

__all__ = [
    "ErrorSums",
    "LengthStats",
    "RoundTrip",
    "SquaredErrors",
    "VocabularyUse",
    "error_sums",
    "length_counts",
    "length_stats",
    "length_stats_by_group",
    "lengths_that_keep",
    "round_trip_error",
    "truncated_share",
    "vocabulary_use",
]

_KEPT_SHARES = (0.99, 0.999, 1.0)


@dataclass(frozen=True)
class LengthStats:
    """Tokens a chunk; percentiles by linear interpolation."""

    n_chunks: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: int


@dataclass(frozen=True)
class RoundTrip:
    """What is lost between a chunk and its decoded tokens, in the chunks' own units.

    Attributes:
        mse: Mean squared error over every value.
        max_abs: Largest absolute error.
        per_dim_mse: (D,) mean squared error a dim.
    """

    mse: float
    max_abs: float
    per_dim_mse: tuple[float, ...]


@dataclass(frozen=True)
class SquaredErrors:
    """Sums over (N, T, D) values, which parts of a corpus can be added up from.

    Attributes:
        counts: (D,) int64, values of each dim.
        squared: (D,) float64, sum of their squared errors.
        max_abs: Largest absolute error.
    """

    counts: npt.NDArray[np.int64]
    squared: npt.NDArray[np.float64]
    max_abs: float

    def __add__(self, other: SquaredErrors) -> SquaredErrors:
        """Return the sums over both; dims that one lacks have the other's alone."""
        counts = _added(self.counts, other.counts)
        return SquaredErrors(
            counts, _added(self.squared, other.squared), max(self.max_abs, other.max_abs)
        )

    def result(self) -> RoundTrip:
        """Return the error that the sums stand for."""
        mse = float(self.squared.sum() / self.counts.sum())
        return RoundTrip(mse, self.max_abs, tuple((self.squared / self.counts).tolist()))


@dataclass(frozen=True)
class ErrorSums:
    """Errors in normalized units and in the dataset's own; the latter without padded dims."""

    normalized: SquaredErrors
    native: SquaredErrors

    @classmethod
    def total(cls, parts: Iterable[ErrorSums | None]) -> ErrorSums | None:
        """Return the sums over all parts, None when there are none."""
        there = [part for part in parts if part is not None]
        if not there:
            return None
        normalized = reduce(add, (part.normalized for part in there))
        return cls(normalized, reduce(add, (part.native for part in there)))


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


def length_stats_by_group(
    lengths: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], names: Sequence[str]
) -> dict[str, LengthStats]:
    """Return group name -> distribution, in the order of `names`; empty groups are left out.

    Args:
        lengths: (N,) token lengths.
        groups: (N,) index into `names` of each chunk's dataset or head.
        names: Group names.
    """
    parts = _by_group(lengths, groups, len(names))
    return {name: length_stats(part) for name, part in zip(names, parts, strict=True) if part.size}


def truncated_share(lengths: npt.NDArray[np.int64], max_length: int) -> float:
    """Return the share of chunks with more than `max_length` tokens, which training would cut."""
    return float(np.mean(lengths > max_length))


def lengths_that_keep(
    lengths: npt.NDArray[np.int64], shares: Iterable[float] = _KEPT_SHARES
) -> dict[float, int]:
    """Return share -> the smallest maximum length that leaves that share of the chunks whole."""
    return {share: int(np.quantile(lengths, share, method="inverted_cdf")) for share in shares}


def round_trip_error(
    chunks: npt.NDArray[np.floating[Any]], decoded: npt.NDArray[np.floating[Any]]
) -> RoundTrip:
    """Return the error of decoded (N, T, D) chunks against the originals, in float64."""
    return error_sums(chunks, decoded).result()


def error_sums(
    chunks: npt.NDArray[np.floating[Any]], decoded: npt.NDArray[np.floating[Any]]
) -> SquaredErrors:
    """Return the sums that `round_trip_error` is made of."""
    error = decoded.astype(np.float64) - chunks
    squared = np.einsum("ntd,ntd->d", error, error)
    counts = np.full(len(squared), error.shape[0] * error.shape[1], dtype=np.int64)
    return SquaredErrors(counts, squared, float(np.abs(error).max()))


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


def _added(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
    wide, narrow = (a, b) if len(a) >= len(b) else (b, a)
    total: npt.NDArray[Any] = wide.copy()
    total[: len(narrow)] += narrow
    return total


def _by_group(
    values: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], n_groups: int
) -> list[npt.NDArray[np.int64]]:
    order = np.argsort(groups, kind="stable")
    edges = np.searchsorted(groups[order], np.arange(1, n_groups))
    return np.split(values[order], edges)
