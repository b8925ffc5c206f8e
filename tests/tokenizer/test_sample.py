from __future__ import annotations

import math

import numpy as np
import pytest
from golden_io import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import ConfigError
from opentau_prep.tokenizer.plan import draw_starts, split_budget

BUDGETS = load_golden("fit_per_head")["compute_budgets_weighted"]


def _rounding_agrees(case):
    # The reference rounds each quota and splits null weights evenly; where weights
    # are given and its numbers add up to the total, largest remainder gives the same ones.
    return case["weights"] and sum(case["expected"]) == case["total_chunks"]


@pytest.mark.parametrize("case", [c for c in BUDGETS if _rounding_agrees(c)])
def test_split_budget_reference_case_that_adds_up_agrees(case):
    assert split_budget(case["total_chunks"], case["weights"]).tolist() == case["expected"]


@settings(max_examples=150, deadline=None)
@given(
    total=st.integers(0, 300_000),
    weights=st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=40).filter(any),
)
def test_split_budget_any_weights_add_up_within_one_of_the_quota(total, weights):
    shares = split_budget(total, weights)
    assert shares.sum() == total
    whole = math.fsum(weights)
    for share, weight in zip(shares.tolist(), weights, strict=True):
        quota = total * weight / whole
        assert math.floor(quota - 1e-6) <= share <= math.ceil(quota + 1e-6)


def test_split_budget_ties_go_to_the_first():
    assert split_budget(5, [1, 1, 1]).tolist() == [2, 2, 1]
    assert split_budget(4, [1, 1, 1, 5]).tolist() == [1, 1, 0, 2]


def test_split_budget_many_equal_float_weights_add_up():
    shares = split_budget(278_000, [0.1 / 393] * 393)
    assert shares.sum() == 278_000
    assert set(shares.tolist()) == {707, 708}


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [1.0, math.nan], [math.inf]])
def test_split_budget_impossible_weights_raise(weights):
    with pytest.raises(ConfigError, match="weights"):
        split_budget(10, weights)


def test_draw_starts_every_frame_once_before_twice():
    starts = draw_starts(7, 17, np.random.default_rng(3))
    assert sorted(starts[:7]) == sorted(starts[7:14]) == list(range(7))
    assert len(set(starts[14:])) == 3


def test_draw_starts_is_uniform_over_all_frames():
    counts = np.zeros(10)
    for seed in range(4000):
        counts[draw_starts(10, 1, np.random.default_rng(seed))] += 1
    # Chi-square with 9 degrees of freedom: 33.7 is exceeded once in 10,000.
    assert ((counts - 400) ** 2 / 400).sum() < 33.7


def test_draw_starts_shorter_draw_is_a_prefix():
    longer = draw_starts(50, 40, np.random.default_rng(1))
    assert draw_starts(50, 12, np.random.default_rng(1)).tolist() == longer[:12].tolist()


def test_draw_starts_of_nothing_raises_only_if_asked():
    assert draw_starts(0, 0, np.random.default_rng(0)).size == 0
    with pytest.raises(ConfigError, match="without frames"):
        draw_starts(0, 1, np.random.default_rng(0))
