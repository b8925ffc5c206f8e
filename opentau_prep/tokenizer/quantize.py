"""FAST's arithmetic: action chunks to whole numbers, whole numbers to code points, and back.

A chunk goes through a DCT over time, is scaled and rounded, flattened row-major (frequency outer,
action dim inner), and each number becomes one Unicode code point: its distance from `min_token`.

A value below `min_token` has no code point in the published scheme, which clamps it and so loses
it. Here the negative distances wrap round to the top half of Unicode. Distances that would fall on
code points that do not survive UTF-8 (the surrogates) or that stand for broken UTF-8 (U+FFFD) step
over them. The scheme agrees with the published one for every distance from 0 to 0xD7FF.

Source: Pertsch et al., "FAST: Efficient Action Tokenization for Vision-Language-Action Models",
arXiv:2501.09747, section 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from opentau_prep.errors import DataError

__all__ = [
    "code_points",
    "dct_coefficients",
    "dequantize",
    "quantize",
    "values_of_code_points",
]

_SURROGATES = 0xD800
_N_SURROGATES = 0x800
_REPLACEMENT = 0xFFFD
_WRAP = 0x80000
_UNICODE_END = 0x110000
# Code points from _WRAP on belong to negative distances; the holes below it cost 0x801 distances.
_MAX_DISTANCE = _WRAP - _N_SURROGATES - 2
_MIN_DISTANCE = _WRAP - _UNICODE_END
_LARGEST_VALUE = _MAX_DISTANCE // 2
_BLOCK_CHUNKS = 256


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
        scale: Steps a unit of coefficient; larger is finer and longer.

    Returns:
        (N, T * D) int32: `rint(dct * scale)`, row-major (frequency outer, action dim inner).

    Raises:
        DataError: A chunk with a non-finite value, or with one too large for a code point.
    """
    values = np.empty((len(chunks), chunks.shape[1] * chunks.shape[2]), dtype=np.int32)
    # In blocks that stay in the cache between the steps.
    for start in range(0, len(chunks), _BLOCK_CHUNKS):
        scaled = dct_coefficients(chunks[start : start + _BLOCK_CHUNKS])
        scaled *= scale
        np.rint(scaled, out=scaled)
        # NaN fails both comparisons, so one test catches it together with the overlarge values.
        if not (scaled.min() >= -_LARGEST_VALUE and scaled.max() <= _LARGEST_VALUE):
            _refuse(chunks, scale)
        values[start : start + len(scaled)] = scaled.reshape(len(scaled), -1)
    return values


def dequantize(
    values: npt.NDArray[np.integer[Any]], scale: float, *, time_horizon: int, action_dim: int
) -> npt.NDArray[np.float64]:
    """Return the (N, T, D) float64 chunks that (N, T * D) whole numbers stand for."""
    coefficients = values.reshape(-1, time_horizon, action_dim) / scale
    chunks: npt.NDArray[np.float64] = fft.idct(coefficients, axis=1, norm="ortho")
    return chunks


def code_points(values: npt.NDArray[np.integer[Any]], min_token: int) -> npt.NDArray[np.uint32]:
    """Return the code point of each whole number, in the same shape.

    Args:
        values: Whole numbers, as from `quantize`.
        min_token: The number that has code point 0.

    Raises:
        DataError: A number too far from `min_token` to have a code point.

    Example:
        >>> code_points(np.array([-3, -2, 5, -4]), -3)
        array([      0,       1,       8, 1114111], dtype=uint32)
    """
    if not values.size:
        return np.zeros(values.shape, dtype=np.uint32)
    low, high = int(values.min()) - min_token, int(values.max()) - min_token
    if low >= 0 and high < _SURROGATES:
        near = values.astype(np.int32)
        near -= min_token
        return near.view(np.uint32)
    if low < _MIN_DISTANCE or high > _MAX_DISTANCE:
        raise DataError(
            f"quantized values from {values.min()} to {values.max()} do not fit into Unicode"
            f" around min_token {min_token}",
            hint="Look for actions far out of their normalization range, or lower the scale.",
        )
    distance = values.astype(np.int64) - min_token
    points = np.where(distance < 0, distance + _UNICODE_END, distance)
    lifted = (distance >= _SURROGATES) * _N_SURROGATES
    points += lifted
    points += (distance + lifted >= _REPLACEMENT).astype(np.int64)
    return points.astype(np.uint32)


def values_of_code_points(points: npt.NDArray[np.uint32], min_token: int) -> npt.NDArray[np.int64]:
    """Return the whole numbers behind code points; U+FFFD (broken bytes) gives 0."""
    distance = points.astype(np.int64)
    wrapped = distance >= _WRAP
    broken = distance == _REPLACEMENT
    distance -= (points > _REPLACEMENT) & ~wrapped
    distance -= ((points >= _SURROGATES + _N_SURROGATES) & ~wrapped) * _N_SURROGATES
    distance -= wrapped * _UNICODE_END
    distance += min_token
    distance[broken] = 0
    return distance


def _refuse(chunks: npt.NDArray[np.floating[Any]], scale: float) -> None:
    scaled = np.rint(dct_coefficients(chunks) * scale)
    rows, _, dims = np.nonzero(~(np.abs(scaled) <= _LARGEST_VALUE))
    kind = "too large to be a token" if np.isfinite(scaled).all() else "not finite"
    raise DataError(
        f"{len(np.unique(rows))} of {len(scaled)} action chunks have values that are {kind}"
        f" (action dims {np.unique(dims).tolist()})",
        hint="Check the actions and their normalization range with 'opentau-prep validate'.",
    )
