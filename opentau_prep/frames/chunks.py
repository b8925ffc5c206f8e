"""Action chunks: which rows one is made of, and gathering many of them at once.

A chunk starts at a frame and takes `chunk_size` steps at the control rate the policy is trained at.
Steps that fall between two frames are resampled; steps past the episode's end repeat its last
frame. All row numbers count through the dataset's selected episodes, concatenated in order, because
rounding a tie to the even row depends on where the episode starts there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import ConfigError, DataError

__all__ = [
    "ResampleStrategy",
    "chunk_padding",
    "chunk_rows",
    "first_pad",
    "gather_chunks",
    "nearest_rows",
    "shifted_rows",
    "subtract_state",
]

ResampleStrategy = Literal["nearest", "linear"]


def chunk_rows(
    starts: npt.ArrayLike,
    ep_start: npt.ArrayLike,
    ep_end: npt.ArrayLike,
    *,
    chunk_size: int,
    fps: float,
    action_freq: float | None,
) -> npt.NDArray[np.float64]:
    """Return the soft rows of the chunks that start at `starts`.

    Step k sits at `start + (k / f) * fps`, in that order of operations, with `f = action_freq`, or
    `fps` when that is None, clipped to the episode's first and last row.

    Args:
        starts: (N,) integer rows of the concatenated selected episodes.
        ep_start: (N,) or scalar, the first row of each start's episode.
        ep_end: (N,) or scalar, one past the last row of each start's episode.
        chunk_size: Steps per chunk, T.
        fps: Frame rate of the dataset, Hz.
        action_freq: Control rate of the policy, Hz; None means the dataset's own.

    Returns:
        (N, chunk_size) float64, each within `[ep_start, ep_end - 1]`.

    Raises:
        ConfigError: A chunk size, frame rate or control rate that is not positive.
        DataError: A start outside its episode.

    Example:
        >>> chunk_rows([7], 0, 9, chunk_size=4, fps=30, action_freq=60)
        array([[7. , 7.5, 8. , 8. ]])
    """
    starts, first, end = np.broadcast_arrays(
        np.atleast_1d(np.asarray(starts, dtype=np.int64)),
        np.asarray(ep_start, dtype=np.int64),
        np.asarray(ep_end, dtype=np.int64),
    )
    if np.any((starts < first) | (starts >= end)):
        raise DataError("a chunk starts outside its episode", hint="Check the episode spans.")
    soft = _unclipped(starts, chunk_size, fps, action_freq)
    clipped: npt.NDArray[np.float64] = np.clip(soft, first[:, None], (end - 1)[:, None], out=soft)
    return clipped


def chunk_padding(
    starts: npt.ArrayLike,
    ep_end: npt.ArrayLike,
    *,
    chunk_size: int,
    fps: float,
    action_freq: float | None,
) -> npt.NDArray[np.bool_]:
    """Return which steps lie past the episode's end, as an (N, chunk_size) mask.

    A step is padding when its unclipped soft row is at or past `ep_end`; one between the last row
    and `ep_end` is still data, although it is clipped. The arguments are those of `chunk_rows`.
    """
    starts, end = np.broadcast_arrays(
        np.atleast_1d(np.asarray(starts, dtype=np.int64)), np.asarray(ep_end, dtype=np.int64)
    )
    soft = _unclipped(starts, chunk_size, fps, action_freq)
    mask: npt.NDArray[np.bool_] = soft >= end[:, None]
    return mask


def first_pad(padding: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the first padded step of each chunk of an (N, T) mask, T where there is none.

    Padding always runs to the chunk's end, so `T - first_pad(mask)` is the number of padded steps.
    """
    first: npt.NDArray[np.int64] = np.sum(~padding, axis=1, dtype=np.int64)
    return first


def nearest_rows(soft_rows: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return soft rows rounded to whole ones, halves to the even row."""
    rows: npt.NDArray[np.int64] = np.rint(soft_rows).astype(np.int64)
    return rows


def shifted_rows(
    soft_rows: npt.NDArray[np.float64], shift: npt.NDArray[np.int64], strategy: ResampleStrategy
) -> npt.NDArray[np.float64]:
    """Return soft rows of the dataset as rows of frames that were read.

    A tie is rounded to the even one of the rows that training counts, so it is rounded before the
    shift; for fractions the shift is exact.

    Args:
        soft_rows: (N, T) float64 rows of the concatenated selected episodes, as from `chunk_rows`.
        shift: (N,) int64, what is added to get rows of the frames that were read.
        strategy: As in `gather_chunks`.
    """
    rows = nearest_rows(soft_rows).astype(np.float64) if strategy == "nearest" else soft_rows
    shifted: npt.NDArray[np.float64] = rows + shift[:, np.newaxis]
    return shifted


def gather_chunks(
    matrix: npt.NDArray[Any], soft_rows: npt.NDArray[np.float64], strategy: ResampleStrategy
) -> npt.NDArray[Any]:
    """Return the values of `matrix` at soft rows.

    Args:
        matrix: (R, D) frames, one per row.
        soft_rows: (N, T) float64 rows of `matrix`, as from `chunk_rows`.
        strategy: `nearest` takes the nearest row, halves the even one; `linear` interpolates
            between the rows below and above in float64.

    Returns:
        (N, T, D), of the dtype of `matrix` for `nearest`, float64 for `linear`.

    Raises:
        ConfigError: An unknown strategy.
    """
    if strategy == "nearest":
        nearest: npt.NDArray[Any] = np.take(matrix, nearest_rows(soft_rows), axis=0)
        return nearest
    if strategy != "linear":
        raise ConfigError(
            f"unknown resample strategy {strategy!r}", hint="Use 'nearest' or 'linear'."
        )
    below = np.floor(soft_rows)
    above_weight = (soft_rows - below)[..., None]
    lower: npt.NDArray[Any] = np.take(matrix, below.astype(np.int64), axis=0).astype(np.float64)
    upper = np.take(matrix, np.ceil(soft_rows).astype(np.int64), axis=0)
    # Two products, as training has it: lower + (upper - lower) * w differs in the last bit.
    lower *= 1.0 - above_weight
    lower += upper * above_weight
    return lower


def subtract_state(
    chunks: npt.NDArray[Any], state_at_start: npt.NDArray[Any], state_map: Mapping[int, int]
) -> npt.NDArray[Any]:
    """Return delta actions: mapped action dims minus the state at the chunk's first step.

    Args:
        chunks: (N, T, D) absolute actions, dataset units.
        state_at_start: (N, S) states at the start frames, dataset units.
        state_map: Action dim -> the state dim to subtract; other action dims stay absolute.

    Returns:
        A new (N, T, D) array of the dtype of `chunks`.

    Raises:
        ConfigError: A mapped dim that the actions or the state do not have.
    """
    actions = np.fromiter(state_map.keys(), dtype=np.int64, count=len(state_map))
    states = np.fromiter(state_map.values(), dtype=np.int64, count=len(state_map))
    _check_dims("action", actions, chunks.shape[-1])
    _check_dims("state", states, state_at_start.shape[-1])
    out: npt.NDArray[Any] = chunks.copy()
    out[..., actions] -= state_at_start[:, None, states]
    return out


def _unclipped(
    starts: npt.NDArray[np.int64], chunk_size: int, fps: float, action_freq: float | None
) -> npt.NDArray[np.float64]:
    rate = fps if action_freq is None else action_freq
    for name, value in (("chunk_size", chunk_size), ("fps", fps), ("action_freq", rate)):
        if not 0 < value < float("inf"):
            raise ConfigError(f"{name} must be a positive number, not {value!r}")
    offsets = (np.arange(chunk_size, dtype=np.float64) / rate) * fps
    soft: npt.NDArray[np.float64] = starts[:, None] + offsets[None, :]
    return soft


def _check_dims(side: str, dims: npt.NDArray[np.int64], width: int) -> None:
    wrong = dims[(dims < 0) | (dims >= width)]
    if wrong.size:
        raise ConfigError(
            f"delta_action_state_map names {side} dims {wrong.tolist()}, but there are {width}",
            where="delta_action_state_map",
        )
