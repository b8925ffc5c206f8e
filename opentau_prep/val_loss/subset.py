"""Which frames of a dataset are held out for validation: the same on every rank and machine."""

from __future__ import annotations

import hashlib
import math
import operator

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ConfigError

__all__ = ["subset_size", "validation_subset"]


def validation_subset(n_frames: int, ratio: float, seed: int, name: str) -> NDArray[np.int64]:
    r"""Return the rows of one dataset that belong to its validation set.

    Every row i gets the i-th 64-bit word of a Philox counter generator keyed by the first 16 bytes
    of SHA-256 of `"<seed>\n<name>"` (UTF-8). The validation set is the `int(n_frames * ratio)` rows
    with the smallest words, ties to the smaller row: the size training's own split gives. Words are
    raw integers, not a library's shuffle, so no NumPy version changes them; the key holds nothing
    of the rank, of the global random state or of other datasets, so neither can they; and a row's
    word does not depend on `n_frames`, so a dataset that grows keeps most of its validation rows.

    Args:
        n_frames: The dataset's selected frames, concatenated in order; rows count from 0.
        ratio: `val_split_ratio`, in [0, 1].
        seed: Any whole number.
        name: The dataset's mixture-level name.

    Returns:
        Ascending rows, (int(n_frames * ratio),) int64; empty when the product is below 1.

    Raises:
        ConfigError: `n_frames` is negative or not whole, `seed` is not whole, or `ratio` is not in
            [0, 1].
    """
    frames, key = _checked(n_frames, ratio, seed, name)
    size = _size(frames, ratio)
    if size == 0:
        return np.empty(0, dtype=np.int64)
    digest = hashlib.sha256(f"{key}\n{name}".encode()).digest()
    generator = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    order = np.argsort(generator.random_raw(frames), kind="stable")
    return np.sort(order[:size]).astype(np.int64)


def subset_size(n_frames: int, ratio: float, name: str = "validation_subset") -> int:
    """Return how many rows `validation_subset` gives, without drawing them.

    Raises:
        ConfigError: As `validation_subset`.
    """
    return _size(_checked(n_frames, ratio, 0, name)[0], ratio)


def _size(frames: int, ratio: float) -> int:
    return min(int(frames * float(ratio)), frames)


def _checked(n_frames: int, ratio: float, seed: int, name: str) -> tuple[int, int]:
    try:
        frames, key = operator.index(n_frames), operator.index(seed)
    except TypeError as error:
        raise ConfigError(
            f"n_frames {n_frames!r} and seed {seed!r} must be whole numbers", where=name
        ) from error
    if frames < 0:
        raise ConfigError(f"{frames} frames where at least 0 are needed", where=name)
    if not (math.isfinite(ratio) and 0 <= ratio <= 1):
        raise ConfigError(f"val_split_ratio is {ratio!r}, not in [0, 1]", where=name)
    return frames, key
