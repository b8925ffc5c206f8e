import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep import DataError
from opentau_prep.stats.moments import Moments, block_moments, merge_moments, span_moments

FIELDS = ("count", "mean", "mean_rest", "m2", "min", "max", "nan", "pos_inf", "neg_inf")


def _assert_close_to_two_pass(found, matrix):
    wide = matrix.astype(np.float64)
    mean = wide.mean(axis=0)
    scale = np.abs(wide).mean(axis=0)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-12 * scale.max())
    spread = np.sqrt(np.square(wide - mean).mean(axis=0))
    np.testing.assert_allclose(found.std, spread, rtol=1e-12)
    np.testing.assert_array_equal(found.min, wide.min(axis=0))
    np.testing.assert_array_equal(found.max, wide.max(axis=0))
    np.testing.assert_array_equal(found.count, np.full(matrix.shape[1], len(matrix)))


def _assert_equal(a, b):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_block_moments_many_slabs_equal_two_pass(dtype):
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((50_000, 7)) * 1000 + 500).astype(dtype)
    _assert_close_to_two_pass(block_moments(matrix), matrix)


def test_block_moments_huge_mean_tiny_spread_keeps_twelve_digits():
    rng = np.random.default_rng(1)
    # Multiples of 2**-20 beside 2**30: every value and deviation is exact in float64.
    steps = rng.integers(-1000, 1001, (100_000, 3))
    found = block_moments(steps * 2.0**-20 + 2.0**30)
    expected = steps - steps.mean(axis=0)
    np.testing.assert_allclose(
        found.std, np.sqrt(np.square(expected).mean(axis=0)) * 2.0**-20, rtol=1e-12
    )
    np.testing.assert_allclose(found.mean, steps.mean(axis=0) * 2.0**-20 + 2.0**30, rtol=1e-15)


def test_block_moments_constant_dim_has_exactly_no_spread():
    found = block_moments(np.full((10_001, 2), 0.1, np.float32))
    assert found.std.tolist() == [0.0, 0.0]
    assert found.mean.tolist() == [float(np.float32(0.1))] * 2


def test_block_moments_non_finite_values_are_counted_and_left_out():
    matrix = np.array([[1, np.nan, np.nan], [2, np.inf, np.nan], [6, 5, -np.inf], [3, 7, np.inf]])
    found = block_moments(matrix)
    assert found.count.tolist() == [4, 2, 0]
    assert (found.nan.tolist(), found.pos_inf.tolist(), found.neg_inf.tolist()) == (
        [0, 1, 2],
        [0, 1, 1],
        [0, 0, 1],
    )
    assert found.non_finite.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(found.mean, [3, 6, np.nan])
    np.testing.assert_allclose(found.std, [np.sqrt(3.5), 1, np.nan], rtol=1e-15)
    np.testing.assert_array_equal(found.min, [1, 5, np.nan])
    np.testing.assert_array_equal(found.max, [6, 7, np.nan])


def test_span_moments_long_empty_and_gapped_spans_equal_each_alone():
    rng = np.random.default_rng(2)
    matrix = rng.standard_normal((40_000, 4)).astype(np.float32)
    spans = np.array([[0, 30_000], [30_000, 30_000], [30_010, 30_013], [30_500, 40_000]])
    found = span_moments(matrix, spans)
    assert found.count.shape == found.mean.shape == (4, 4)
    for k, (start, stop) in enumerate(spans.tolist()):
        if start == stop:
            assert found.count[k].tolist() == [0] * 4
            assert np.isnan(found.mean[k]).all()
        else:
            _assert_close_to_two_pass(found[k], matrix[start:stop])
    _assert_close_to_two_pass(found.total(), np.concatenate([matrix[a:b] for a, b in spans]))


def test_span_moments_of_no_spans_has_no_rows():
    found = span_moments(np.zeros((5, 2)), np.zeros((0, 2), dtype=np.int64))
    assert found.count.shape == found.mean.shape == (0, 2)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 300),
    cuts=st.lists(st.integers(0, 300), max_size=12),
    offset=st.sampled_from([0.0, 1.0, 1e8]),
    bad=st.integers(0, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_merge_moments_any_split_equals_one_pass(rows, cuts, offset, bad, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((rows, 3)) + offset
    matrix[rng.integers(0, rows, bad), rng.integers(0, 3, bad)] = np.resize(
        [np.nan, np.inf, -np.inf], bad
    )
    bounds = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    parts = [block_moments(matrix[a:b]) for a, b in itertools.pairwise(bounds)]
    merged = merge_moments(parts)
    for d in range(3):
        finite = matrix[np.isfinite(matrix[:, d]), d]
        assert merged.count[d] == len(finite)
        if len(finite):
            np.testing.assert_allclose(merged.mean[d], finite.mean(), rtol=1e-12, atol=1e-13)
            spread = np.square(finite - finite.mean()).sum()
            np.testing.assert_allclose(merged.m2[d], spread, rtol=1e-11, atol=1e-12 * offset)
            assert (merged.min[d], merged.max[d]) == (finite.min(), finite.max())
    kinds = (np.isnan(matrix), matrix == np.inf, matrix == -np.inf)
    for name, kind in zip(("nan", "pos_inf", "neg_inf"), kinds, strict=True):
        np.testing.assert_array_equal(getattr(merged, name), kind.sum(axis=0))


def test_as_json_round_trip_keeps_every_bit():
    matrix = np.array([[0.1, np.nan], [1 / 3, np.nan], [-0.0, np.inf]])
    for state in (block_moments(matrix), span_moments(matrix, np.array([[0, 2], [2, 3]]))):
        text = json.dumps(state.as_json(), allow_nan=False)
        _assert_equal(Moments.from_json(json.loads(text)), state)


@pytest.mark.parametrize("broken", [{}, {"mean": "x"}, {"count": [1]}, {"m2": [[1.0], [1.0, 2.0]]}])
def test_from_json_broken_state_is_data_error(broken):
    state = block_moments(np.eye(3)).as_json()
    state.update(broken)
    if not broken:
        del state["max"]
    with pytest.raises(DataError, match="moments"):
        Moments.from_json(state)


def test_merge_different_widths_is_data_error():
    two, three = block_moments(np.eye(2)), block_moments(np.eye(3))
    with pytest.raises(DataError, match="cannot merge"):
        two.merge(three)
    with pytest.raises(DataError, match="different widths"):
        merge_moments([two, three])
    with pytest.raises(DataError, match="no moments"):
        merge_moments([])


def test_std_of_one_value_is_zero_and_of_none_is_nan():
    found = block_moments(np.array([[5.0, np.nan]]))
    assert found.count.tolist() == [1, 0]
    np.testing.assert_array_equal(found.std, [0.0, np.nan])
