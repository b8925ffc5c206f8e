"""The held-out rows: equal to torch's, by golden vectors and by a Mersenne Twister of Python."""

import random

import numpy as np
import pytest
from golden_io import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep import ConfigError, train_val_split
from opentau_prep.metadata import split
from opentau_prep.metadata.split import held_out_episodes


def twister(word: int) -> random.Random:
    """Return Python's MT19937 in the state of Matsumoto's init_genrand(word)."""
    state = [word]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ (state[-1] >> 30)) + i) & 0xFFFFFFFF)
    stream = random.Random()
    stream.setstate((3, (*state, 624), None))
    return stream


def shuffled(n: int, seed: int) -> list[int]:
    """Return 0 .. n-1 after the forward Fisher-Yates shuffle, one row at a time."""
    stream, rows = twister(seed % 2**32), list(range(n))
    for i in range(n - 1):
        j = i + stream.getrandbits(32) % (n - i)
        rows[i], rows[j] = rows[j], rows[i]
    return rows


def shuffled_inside_out(n: int, seed: int) -> list[int]:
    stream, rows = twister(seed % 2**32), []
    for i in range(n):
        high, low = stream.getrandbits(32), stream.getrandbits(32)
        j = (high << 32 | low) % (i + 1)
        rows.append(i)
        rows[i], rows[j] = rows[j], rows[i]
    return rows


@pytest.mark.parametrize("case", load_golden("split"), ids=lambda case: f"{case['frames']}")
def test_train_val_split_golden_rows_are_held_out(case):
    train, val = train_val_split(case["frames"], case["val_split_ratio"], case["seed"])
    assert val.tolist() == case["val_rows"]
    assert sorted([*train.tolist(), *case["val_rows"]]) == list(range(case["frames"]))
    assert train.dtype == val.dtype == np.int64


@pytest.mark.parametrize("n", [0, 1, 2, 5_000, 5_001, 40_000])
@pytest.mark.parametrize("seed", [0, 1000, 2**32 + 7, 2**63 + 1, -1, -(2**63)])
def test_train_val_split_any_seed_equals_a_plain_shuffle(n, seed):
    rows = shuffled(n, seed)
    train, val = train_val_split(n, 0.3, seed)
    kept = n - int(n * 0.3)
    assert train.tolist() == sorted(rows[:kept])
    assert val.tolist() == sorted(rows[kept:])


@settings(max_examples=25, deadline=None)
@given(st.integers(5_001, 9_000), st.integers(0, 2**32 - 1))
def test_permutation_in_blocks_equals_a_plain_shuffle(n, seed):
    assert split._permutation(n, seed).tolist() == shuffled(n, seed)


@pytest.mark.parametrize("n", [50, 9_000])
def test_permutation_beyond_narrow_draws_is_shuffled_inside_out(monkeypatch, n):
    monkeypatch.setattr(split, "_WIDE", n)
    assert split._permutation(n, 3).tolist() == shuffled_inside_out(n, 3)
    assert split._permutation(n - 1, 3).tolist() == shuffled(n - 1, 3)


def test_train_val_split_null_seed_is_the_trainers_constant():
    for ours, named in zip(
        train_val_split(500, 0.1), train_val_split(500, 0.1, 8_675_309), strict=True
    ):
        np.testing.assert_array_equal(ours, named)


@pytest.mark.parametrize(
    ("n", "ratio", "size"), [(10, 0, 0), (10, 1, 10), (19, 0.05, 0), (20, 0.05, 1), (0, 0.5, 0)]
)
def test_train_val_split_extreme_ratios_hold_out_whole_numbers(n, ratio, size):
    train, val = train_val_split(n, ratio, 0)
    assert (len(train), len(val)) == (n - size, size)


@pytest.mark.parametrize(
    ("n", "ratio", "seed"),
    [
        (-1, 0.1, 0), (1.5, 0.1, 0), (5, 1.5, 0), (5, -0.1, 0), (5, float("nan"), 0),
        (5, "x", 0), (5, 0.1, "s"), (5, 0.1, 1.5), (5, 0.1, True), (5, 0.1, 2**64),
        (5, 0.1, -(2**63) - 1),
    ],
)  # fmt: skip
def test_train_val_split_bad_argument_is_config_error(n, ratio, seed):
    with pytest.raises(ConfigError):
        train_val_split(n, ratio, seed)


def test_held_out_episodes_takes_the_last_of_each_task_rounded_up():
    tasks = ["a", "b", "a", "a", "b", "", "a"]
    # ceil(4 * 0.3) = 2 of a, ceil(2 * 0.3) = 1 of b, and the only one without a task.
    assert held_out_episodes(tasks, 0.3).tolist() == [3, 4, 5, 6]
    assert held_out_episodes(tasks, 0).tolist() == []
    assert held_out_episodes([], 0.5).tolist() == []
