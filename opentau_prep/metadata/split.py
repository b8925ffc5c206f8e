"""Which frames of a dataset validate: the rows that training holds out, computed without torch.

Source: torch.utils.data.random_split over torch.randperm with a CPU generator
(aten/src/ATen/native/TensorFactories.cpp, randperm_cpu; ATen/core/MT19937RNGEngine.h), as OpenTau's
make_dataset calls it (datasets/factory.py, commit 0b153a9). LeRobot's rule is that of
make_train_eval_datasets (datasets/factory.py, commit 7427f31).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Sequence
from typing import Final, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from opentau_prep.config.training import SEED_OF_NULL
from opentau_prep.errors import ConfigError

__all__ = ["held_out_episodes", "train_val_split", "validation_size"]

_WORDS: Final = 1 << 32
# From here on torch draws 64-bit words, and shuffles inside out.
_WIDE: Final = (_WORDS - 1) // 20
# Tuned on datasets of 2,581 to 1,000,000 rows: with fewer steps left, one loop beats many blocks.
_LOOP: Final = 5_000


def train_val_split(
    n: SupportsIndex, ratio: float, seed: SupportsIndex | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of one dataset that OpenTau trains on, and those that it validates on.

    Rows count through the entry's selected episodes, concatenated in order. Every entry of a
    mixture is split alone and by the same seed, so neither its neighbors, nor the rank, nor the
    number of ranks changes the split.

    Args:
        n: The entry's selected frames.
        ratio: Its `val_split_ratio`, in [0, 1].
        seed: The training config's `seed`, from -2^63 to 2^64 - 1 (torch uses the lowest 32
            bits); None (null in the config) is 8675309.

    Returns:
        `(train_rows, val_rows)`, two ascending int64 arrays of n - k and k rows, where
        k = int(n * ratio).

    Raises:
        ConfigError: `n` is negative or not a whole number, `ratio` is not in [0, 1], or `seed` is
            not a whole number that torch takes.

    Example:
        >>> train_rows, val_rows = train_val_split(7, 0.333, 0)
        >>> val_rows.tolist()
        [1, 6]
    """
    size = validation_size(n, ratio)
    rows = operator.index(n)
    order = _permutation(rows, _seed_word(seed))
    return np.sort(order[: rows - size]), np.sort(order[rows - size :])


def validation_size(n: SupportsIndex, ratio: float, where: str = "train_val_split") -> int:
    """Return how many of `n` rows validate, without drawing them: int(n * ratio).

    Raises:
        ConfigError: As `train_val_split`.
    """
    try:
        rows = operator.index(n)
    except TypeError as error:
        raise ConfigError(f"{n!r} frames where a whole number is needed", where=where) from error
    if rows < 0:
        raise ConfigError(f"{rows} frames where at least 0 are needed", where=where)
    return int(rows * _checked_ratio(ratio, where))


def held_out_episodes(tasks: Sequence[Hashable], ratio: float) -> NDArray[np.int64]:
    """Return the positions of the episodes that LeRobot evaluates on.

    Of the m episodes of one task (an episode's first, where it has several) the last
    ceil(m * ratio) are held out.

    Args:
        tasks: Each selected episode's task, in the order of the selection.
        ratio: The share of each task's episodes to hold out, in [0, 1].

    Returns:
        Ascending positions in `tasks`, int64.

    Raises:
        ConfigError: `ratio` is not in [0, 1].
    """
    share = _checked_ratio(ratio, "held_out_episodes")
    of_task: dict[Hashable, list[int]] = {}
    for position, task in enumerate(tasks):
        of_task.setdefault(task, []).append(position)
    held_out: list[int] = []
    for positions in of_task.values():
        held_out += positions[len(positions) - math.ceil(len(positions) * share) :]
    return np.array(sorted(held_out), dtype=np.int64)


def _checked_ratio(ratio: float, where: str) -> float:
    if not (isinstance(ratio, (int, float, np.floating)) and 0 <= ratio <= 1):
        raise ConfigError(f"val_split_ratio is {ratio!r}, not in [0, 1]", where=where)
    return float(ratio)


def _seed_word(seed: SupportsIndex | None) -> int:
    """Return the 32 bits that torch seeds MT19937 with."""
    try:
        number = SEED_OF_NULL if seed is None else operator.index(seed)
    except TypeError:
        number = _WORDS**2
    if isinstance(seed, (bool, np.bool_)) or not -(1 << 63) <= number < 1 << 64:
        raise ConfigError(
            f"{seed!r} where a whole number from -2^63 to 2^64 - 1 is needed", where="seed"
        )
    return number % _WORDS


def _permutation(n: int, seed: int) -> NDArray[np.int64]:
    """Return `torch.randperm(n)` of a CPU generator with this seed."""
    # NumPy's policy freezes RandomState; its full-range draws are MT19937's own words.
    stream = np.random.RandomState(seed)
    order = np.arange(n, dtype=np.int64)
    scratch = np.empty(n if n > _LOOP else 0, dtype=np.int64)
    wide = n >= _WIDE
    done = 0
    while done < n:
        left = done + 1 if wide else n - done
        # Steps rarely meet within a block of about the root of the rows that they choose from.
        size = min(n - done, _LOOP if left <= _LOOP else math.isqrt(left))
        step = np.arange(done, done + size, dtype=np.int64)
        if wide:
            words = stream.randint(0, _WORDS, size=(size, 2), dtype=np.uint32).astype(np.uint64)
            word = (words[:, 0] << np.uint64(32)) | words[:, 1]
            other = (word % (step + 1).astype(np.uint64)).astype(np.int64)
        else:
            word = stream.randint(0, _WORDS, size=size, dtype=np.uint32)
            other = step + word % (n - step)
        if left <= _LOOP:
            _swap_in_turn(order, step, other)
        else:
            _swap_block(order, step, other, scratch)
        done += size
    return order


def _swap_block(
    order: NDArray[np.int64],
    step: NDArray[np.int64],
    other: NDArray[np.int64],
    scratch: NDArray[np.int64],
) -> None:
    """Swap `order[step]` and `order[other]`, one pair after the other, as if in a loop.

    A pair that shares no row with another pair of the block commutes with all of them.

    Args:
        order: (n,), changed in place.
        step: (B,) consecutive rows.
        other: (B,) rows.
        scratch: (n,), of any content.
    """
    pair = np.arange(len(step))
    scratch[other] = pair
    last = scratch[other]
    meets = last != pair
    meets[last[meets]] = True
    inside = (other >= step[0]) & (other <= step[-1]) & (other != step)
    meets |= inside
    meets[other[inside] - step[0]] = True
    free = ~meets
    a, b = step[free], other[free]
    order[a], order[b] = order[b], order[a]
    _swap_in_turn(order, step[meets], other[meets])


def _swap_in_turn(
    order: NDArray[np.int64], step: NDArray[np.int64], other: NDArray[np.int64]
) -> None:
    if not len(step):
        return
    rows, where = np.unique(np.concatenate([step, other]), return_inverse=True)
    values = order[rows].tolist()
    places = where.reshape(-1).tolist()
    for i, j in zip(places[: len(step)], places[len(step) :], strict=True):
        values[i], values[j] = values[j], values[i]
    order[rows] = values
