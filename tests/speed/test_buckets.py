"""Speed buckets against the reference's numbers."""

from __future__ import annotations

import pytest
from golden_io import load_golden
from hypothesis import given
from hypothesis import strategies as st

from opentau_prep import bucket_episode_length, compute_task_percentiles
from opentau_prep.speed.rows import MIN_DISTINCT_LENGTHS, PERCENTILES, SPARSE_BUCKET

GOLDEN = load_golden("speed")


def _by_int(mapping):
    return {int(key): value for key, value in mapping.items()}


def test_constants_match_the_reference():
    constants = GOLDEN["constants"]
    assert list(PERCENTILES) == constants["percentiles"]
    assert constants["min_distinct"] == MIN_DISTINCT_LENGTHS
    assert constants["sparse_bucket"] == SPARSE_BUCKET


@pytest.mark.parametrize("case", GOLDEN["compute_task_percentiles"])
def test_compute_task_percentiles_golden_equal(case):
    found = compute_task_percentiles(_by_int(case["lengths_per_task"]))
    assert found == _by_int(case["expected"])


@pytest.mark.parametrize("case", GOLDEN["bucket_episode_length"])
def test_bucket_episode_length_golden_equal(case):
    found = [bucket_episode_length(n, case["percentiles"]) for n in case["lengths"]]
    assert found == case["expected"]


def test_bucket_length_on_boundary_goes_up():
    percentiles = [float(p) for p in range(10, 110, 10)]
    assert [bucket_episode_length(n, percentiles) for n in (9, 10, 11, 99, 100)] == [
        0, 10, 10, 90, 100
    ]  # fmt: skip


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=60), st.randoms())
def test_compute_task_percentiles_any_order_same_result(lengths, random):
    shuffled = list(lengths)
    random.shuffle(shuffled)
    assert compute_task_percentiles({3: shuffled}) == compute_task_percentiles({3: lengths})
    sparse = len(set(lengths)) < 10
    assert (compute_task_percentiles({3: lengths})[3] is None) is sparse


@given(st.lists(st.integers(1, 500), min_size=30, max_size=60, unique=True))
def test_bucket_counts_episodes_between_percentiles(lengths):
    percentiles = compute_task_percentiles({0: lengths})[0]
    for length in lengths:
        below = sum(p <= length for p in percentiles)
        assert bucket_episode_length(length, percentiles) == 10 * below
