"""Exact sums against `fractions.Fraction`, and their text form."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import DataError
from opentau_prep.val_loss import exact

finite = st.floats(allow_nan=False, allow_infinity=False)


def exact_sum(values):
    return sum((Fraction(v) for v in values), Fraction(0))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(finite, st.integers(0, 3)), max_size=60))
def test_sum_by_group_any_finite_values_equals_fractions(pairs):
    values = np.array([v for v, _ in pairs], dtype=np.float64)
    groups = np.array([g for _, g in pairs], dtype=np.int64)
    totals = exact.sum_by_group(values, groups, 4)
    for group in range(4):
        expected = exact_sum(v for v, g in pairs if g == group)
        assert exact.fixed_to_fraction(totals[group]) == expected


@pytest.mark.parametrize(
    "values",
    [
        [1e16, 1.0, -1e16],
        [5e-324, -5e-324, 5e-324],
        [np.finfo(float).max] * 5,
        [np.finfo(float).max, 5e-324, -np.finfo(float).max],
        [2.2250738585072014e-308, -2.225073858507201e-308],
        [-0.0, 0.0],
        [],
    ],
)
def test_sum_by_group_extreme_values_equals_fractions(values):
    total = exact.sum_by_group(np.array(values, float), np.zeros(len(values), np.int64), 1)[0]
    assert exact.fixed_to_fraction(total) == exact_sum(values)


def test_sum_by_group_many_values_of_all_magnitudes_equals_fractions():
    values = np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.arange(-200, 300, 0.5)
    totals = exact.sum_by_group(values, np.arange(1000) % 3, 3)
    assert exact.fixed_to_fraction(totals[1]) == exact_sum(values[1::3].tolist())


@pytest.mark.parametrize("sign", [1, -1])
def test_sum_by_group_many_of_the_largest_mantissas_do_not_overflow(sign):
    n, value = 1 << 18, sign * float((1 << 53) - 1) * 2.0**10
    total = exact.sum_by_group(np.full(n, value), np.zeros(n, np.int64), 1)[0]
    assert exact.fixed_to_fraction(total) == n * Fraction(value)


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, max_size=5))
def test_encode_fixed_any_total_round_trips(values):
    total = exact.sum_by_group(np.array(values, float), np.zeros(len(values), np.int64), 1)[0]
    assert exact.decode_fixed(exact.encode_fixed(total)) == total


def test_encode_fixed_plain_numbers_is_readable():
    totals = exact.sum_by_group(np.array([1.5, -4.0]), np.array([0, 1]), 3)
    assert [exact.encode_fixed(t) for t in totals] == ["3p-1", "-1p2", "0p0"]


@pytest.mark.parametrize(
    "text", ["", "1", "zp0", "1p", "1p-9999", "1p99999999999", None, 3, "1" * 5000 + "p0"]
)
def test_decode_fixed_malformed_text_is_data_error(text):
    with pytest.raises(DataError, match="exact sum"):
        exact.decode_fixed(text)
