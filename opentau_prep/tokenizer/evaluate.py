"""What a tokenizer does to chunks it was not fitted on: lengths, errors, vocabulary, truncation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import ConfigError

__all__ = [
    "LengthStats",
    "RoundTrip",
    "VocabularyUse",
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
    error = decoded.astype(np.float64) - chunks
    squared = np.square(error)
    per_dim = squared.mean(axis=(0, 1))
    return RoundTrip(
        float(squared.mean()), float(np.abs(error).max()), tuple(float(v) for v in per_dim)
    )


def vocabulary_use(ids: Iterable[Sequence[int]], vocabulary: Mapping[str, int]) -> VocabularyUse:
    """Return how much of a tokenizer's vocabulary (token -> id) the encoded chunks use."""
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64)
    counts = np.bincount(flat)
    probabilities = counts[counts > 0] / max(1, counts.sum())
    return VocabularyUse(
        size=len(vocabulary),
        used=len(probabilities),
        share=len(probabilities) / len(vocabulary),
        entropy_bits=float(-(probabilities * np.log2(probabilities)).sum()) + 0.0,
    )


def _by_group(
    values: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], n_groups: int
) -> list[npt.NDArray[np.int64]]:
    order = np.argsort(groups, kind="stable")
    edges = np.searchsorted(groups[order], np.arange(1, n_groups))
    return np.split(values[order], edges)
