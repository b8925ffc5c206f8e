"""FAST's arithmetic: action chunks to whole numbers, whole numbers to code points, and back.

A chunk goes through a DCT over time, is scaled and rounded, flattened row-major (frequency outer,
action dim inner), and each number becomes one Unicode code point: its distance from `min_token`.

`min_token` leaves headroom: every chunk within a stated multiple of the normalized range has a code
point for each of its numbers, and numbers beyond are clipped. So decoders that know `min_token`
alone (LeRobot's pi0-fast adds it to `ord`) get the same numbers as the processor of the folder.

Source: Pertsch et al., "FAST: Efficient Action Tokenization for Vision-Language-Action Models",
arXiv:2501.09747, section 5.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from opentau_prep.errors import DataError

__all__ = [
    "DEFAULT_HEADROOM",
    "MAX_DISTANCE",
    "clip_values",
    "code_points",
    "dct_coefficients",
    "dequantize",
    "min_token_of",
    "quantize",
    "values_of_code_points",
]

# `bench_tokenizer.py --headroom` on two published datasets: held-out sequences get 0.3 and 0.9 %
# longer with 1.8 times the range, and 0.6 to 0.8 % with anything from 4 to 25 times.
DEFAULT_HEADROOM = 10.0
# The last code point before the surrogates, which UTF-8 does not carry.
MAX_DISTANCE = 0xD7FF
_LOWEST_MIN_TOKEN = -(MAX_DISTANCE // 2)
# What decoders put where bytes are no UTF-8.
_REPLACEMENT = 0xFFFD
_LARGEST_VALUE = 1 << 30
_BLOCK_CHUNKS = 256


def min_token_of(lowest: int, *, chunk_size: int, scale: float, headroom: float) -> int:
    """Return the number that has code point 0.

    An orthonormal DCT of T values within [-h, h] has coefficients within h * sqrt(T): those of h =
    `headroom` are covered, and the corpus where it reaches further, in half of the code points.

    Args:
        lowest: Smallest quantized number of the corpus.
        chunk_size: Steps per chunk, T.
        scale: Quantization steps per unit of coefficient.
        headroom: Normalized values to cover: 10 is ten times [-1, 1], or ten standard deviations.
    """
    bound = math.ceil(headroom * math.sqrt(chunk_size) * scale)
    return max(min(-bound, lowest), _LOWEST_MIN_TOKEN)


def dct_coefficients(chunks: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Return the orthonormal DCT-II over time of (N, T, D) chunks, in their own float dtype.

    Training runs it in float32; a fit that must agree with training passes float32.
    """
    coefficients: npt.NDArray[np.floating[Any]] = fft.dct(chunks, axis=1, norm="ortho")
    return coefficients


def quantize(chunks: npt.NDArray[np.floating[Any]], scale: float) -> npt.NDArray[np.int32]:
    """Return chunks as rows of whole numbers.

    Args:
        chunks: (N, T, D) normalized action chunks, float32 as at run time.
        scale: Steps per unit of coefficient; larger is finer and longer.

    Returns:
        (N, T * D) int32: `rint(dct * scale)`, row-major (frequency outer, action dim inner).

    Raises:
        DataError: A chunk with a non-finite value.
    """
    values = np.empty((len(chunks), chunks.shape[1] * chunks.shape[2]), dtype=np.int32)
    # In blocks that stay in the cache between the steps.
    for start in range(0, len(chunks), _BLOCK_CHUNKS):
        scaled = dct_coefficients(chunks[start : start + _BLOCK_CHUNKS])
        scaled *= scale
        np.rint(scaled, out=scaled)
        # NaN fails both comparisons.
        if not (scaled.min() >= -_LARGEST_VALUE and scaled.max() <= _LARGEST_VALUE):
            _check_finite(chunks)
            np.clip(scaled, -_LARGEST_VALUE, _LARGEST_VALUE, out=scaled)
        values[start : start + len(scaled)] = scaled.reshape(len(scaled), -1)
    return values


def dequantize(
    values: npt.NDArray[np.integer[Any]], scale: float, *, time_horizon: int, action_dim: int
) -> npt.NDArray[np.float64]:
    """Return the (N, T, D) float64 chunks that (N, T * D) whole numbers decode to."""
    coefficients = values.reshape(-1, time_horizon, action_dim) / scale
    chunks: npt.NDArray[np.float64] = fft.idct(coefficients, axis=1, norm="ortho")
    return chunks


def clip_values(
    values: npt.NDArray[np.integer[Any]], min_token: int
) -> npt.NDArray[np.integer[Any]]:
    """Return whole numbers cut to those that have a code point."""
    cut: npt.NDArray[np.integer[Any]] = np.clip(values, min_token, min_token + MAX_DISTANCE)
    return cut


def code_points(values: npt.NDArray[np.integer[Any]], min_token: int) -> npt.NDArray[np.uint32]:
    """Return the code point of each whole number, in the same shape; numbers beyond are clipped.

    Args:
        values: Whole numbers, as from `quantize`.
        min_token: The number that has code point 0.

    Example:
        >>> code_points(np.array([-3, -2, 5, -4]), -3)
        array([0, 1, 8, 0], dtype=uint32)
    """
    points = values.astype(np.int32)
    points -= min_token
    np.clip(points, 0, MAX_DISTANCE, out=points)
    return points.view(np.uint32)


def values_of_code_points(points: npt.NDArray[np.uint32], min_token: int) -> npt.NDArray[np.int64]:
    """Return the whole numbers behind code points; U+FFFD (broken bytes) gives 0."""
    values = points.astype(np.int64) + min_token
    values[points == _REPLACEMENT] = 0
    return values


def _check_finite(chunks: npt.NDArray[np.floating[Any]]) -> None:
    rows, _, dims = np.nonzero(~np.isfinite(dct_coefficients(chunks)))
    if len(rows):
        raise DataError(
            f"{len(np.unique(rows))} of {len(chunks)} action chunks have values that are not"
            f" finite (action dims {np.unique(dims).tolist()})",
            hint="Check the actions and their normalization range with the command `validate`.",
        )
