"""The validation subset: a pure function of its arguments, of training's size, evenly spread."""

import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep import ConfigError, validation_subset


def philox_words(key: int, n: int) -> list[int]:
    """Return n words of Philox-4x64-10 with counters 1, 2, …: plain integers, from the paper."""
    mask = (1 << 64) - 1
    words: list[int] = []
    for counter in range(1, n // 4 + 2):
        c, k = [counter, 0, 0, 0], [key & mask, key >> 64]
        for _ in range(10):
            p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [(p1 >> 64) ^ c[1] ^ k[0], p1 & mask, (p0 >> 64) ^ c[3] ^ k[1], p0 & mask]
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        words.extend(c)
    return words[:n]


@pytest.mark.parametrize("seed", [0, 7, -3])
def test_validation_subset_rows_are_those_of_an_independent_philox(seed):
    name, n, ratio = "org/d#1", 203, 0.17
    key = int.from_bytes(hashlib.sha256(f"{seed}\n{name}".encode()).digest()[:16], "little")
    words = philox_words(key, n)
    expected = sorted(sorted(range(n), key=lambda row: (words[row], row))[: int(n * ratio)])
    assert validation_subset(n, ratio, seed, name).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2000), st.floats(0, 1), st.integers(0, 2**70), st.text(max_size=8))
def test_validation_subset_any_arguments_gives_distinct_ascending_rows(n, ratio, seed, name):
    rows = validation_subset(n, ratio, seed, name)
    assert len(rows) == int(n * ratio)
    assert rows.dtype == np.int64
    assert np.all(np.diff(rows) > 0)
    assert not len(rows) or (rows[0] >= 0 and rows[-1] < n)


def test_validation_subset_random_state_of_the_rank_changes_nothing():
    first = validation_subset(1000, 0.05, 1, "a")
    np.random.seed(123)
    random.seed(5)
    np.testing.assert_array_equal(validation_subset(1000, 0.05, 1, "a"), first)


def test_validation_subset_other_process_gives_same_rows():
    code = "import opentau_prep as o; print(o.validation_subset(500, 0.1, 3, 'x/y').tolist())"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "77", "RANK": "1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == str(validation_subset(500, 0.1, 3, "x/y").tolist())


def test_validation_subset_seed_and_name_each_change_the_rows():
    base = validation_subset(1000, 0.2, 0, "a").tolist()
    assert base != validation_subset(1000, 0.2, 1, "a").tolist()
    assert base != validation_subset(1000, 0.2, 0, "b").tolist()


def test_validation_subset_grown_dataset_keeps_most_rows():
    before, after = validation_subset(10_000, 0.1, 0, "a"), validation_subset(10_500, 0.1, 0, "a")
    assert len(set(before.tolist()) & set(after.tolist())) > 0.9 * len(before)


def test_validation_subset_many_seeds_hits_all_rows_evenly():
    hits = np.zeros(20)
    for seed in range(2000):
        hits[validation_subset(20, 0.25, seed, "d")] += 1
    # 500 expected a row, standard deviation 19.4.
    assert hits.min() > 500 - 5 * 19.4
    assert hits.max() < 500 + 5 * 19.4


@pytest.mark.parametrize(
    ("n", "ratio", "seed"),
    [(-1, 0.1, 0), (1.5, 0.1, 0), (5, 1.5, 0), (5, float("nan"), 0), (5, 0.1, "s")],
)
def test_validation_subset_bad_argument_is_config_error(n, ratio, seed):
    with pytest.raises(ConfigError):
        validation_subset(n, ratio, seed, "d")
