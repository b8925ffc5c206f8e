"""Drawing chunks as training draws them: how many from each dataset, and which start frames."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import ConfigError

__all__ = ["draw_starts", "split_budget"]


def split_budget(total: int, weights: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return how many of `total` go to each weight: whole numbers that add up to it exactly.

    Largest remainder: each gets its quota rounded down, and the rest goes to the largest fractions;
    of equal fractions, to the first. Computed with exact fractions, so the sum cannot drift.

    Args:
        total: What is to be divided, not negative.
        weights: One a dataset, not negative, not all zero; they need not add up to 1.

    Raises:
        ConfigError: A negative total, or weights that are negative, not finite, all zero or absent.

    Example:
        >>> split_budget(100, [1, 1, 1])
        array([34, 33, 33])
    """
    if total < 0:
        raise ConfigError(f"a budget cannot be negative: {total}")
    wrong = [i for i, w in enumerate(weights) if not 0 <= w < float("inf")]
    if wrong or not any(weights):
        problem = f"negative or not finite at {wrong}" if wrong else "no weight above zero"
        raise ConfigError(f"weights cannot divide a budget: {problem}", where="weights")
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact)
    quotas = [total * weight / whole for weight in exact]
    shares = [int(quota) for quota in quotas]
    by_fraction = sorted(range(len(quotas)), key=lambda i: (shares[i] - quotas[i], i))
    for i in by_fraction[: total - sum(shares)]:
        shares[i] += 1
    return np.array(shares, dtype=np.int64)


def draw_starts(n_frames: int, n_chunks: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return `n_chunks` start frames, uniform over `n_frames`, each once before any comes twice.

    The first n of a longer draw with the same generator state are the draw of n, up to `n_frames`:
    a corpus can grow without changing what it already holds.

    Args:
        n_frames: Selected frames of the dataset, at least 1 unless nothing is drawn.
        n_chunks: How many to draw.
        rng: Seeded by the run's seed and the dataset.

    Raises:
        ConfigError: Chunks asked of a dataset without frames.
    """
    if n_chunks and n_frames < 1:
        raise ConfigError("cannot draw chunks from a dataset without frames")
    passes = -(-n_chunks // n_frames) if n_chunks else 0
    drawn = [rng.permutation(n_frames) for _ in range(passes)]
    starts = np.concatenate(drawn) if drawn else np.empty(0, dtype=np.int64)
    return starts[:n_chunks].astype(np.int64)
