import numpy as np
import pytest

from opentau_prep import ConfigError
from opentau_prep.stats.quantiles import quantile_name, sort_columns, sort_spans

Q = [0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0]


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 101, 4097])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_sort_columns_finite_block_equal_numpy(rows, dtype):
    rng = np.random.default_rng(rows)
    matrix = (rng.standard_normal((rows, 4)) * 10).astype(dtype)
    before = matrix.copy()
    found = sort_columns(matrix).quantiles(Q)
    np.testing.assert_array_equal(found, np.quantile(matrix.astype(np.float64), Q, axis=0))
    np.testing.assert_array_equal(matrix, before)


def test_sort_columns_non_finite_values_are_left_out():
    matrix = np.random.default_rng(0).standard_normal((50, 4))
    matrix[::7, 0] = np.nan
    matrix[::5, 1] = np.inf
    matrix[1::9, 1] = -np.inf
    matrix[:25, 2], matrix[25:, 2] = np.inf, np.nan
    columns = sort_columns(matrix)
    found = columns.quantiles(Q)
    for d in (0, 1, 3):
        finite = matrix[np.isfinite(matrix[:, d]), d]
        assert columns.count[d] == len(finite)
        np.testing.assert_array_equal(found[:, d], np.quantile(finite, Q))
    assert columns.count[2] == 0
    assert np.isnan(found[:, 2]).all()


def test_sort_spans_each_span_equals_its_own_finite_rows():
    matrix = np.random.default_rng(1).standard_normal((60, 3)).astype(np.float32)
    matrix[[3, 30, 31, 59], [0, 1, 1, 2]] = np.nan, np.inf, -np.inf, np.nan
    spans = np.array([[0, 20], [20, 20], [25, 60]])
    found = sort_spans(matrix.T.copy(), spans)
    for k in (0, 2):
        rows = matrix[spans[k, 0] : spans[k, 1]].astype(np.float64)
        finite = [column[np.isfinite(column)] for column in rows.T]
        np.testing.assert_array_equal(found.count[k], [len(column) for column in finite])
        wanted = np.stack([np.quantile(column, Q) for column in finite], axis=1)
        np.testing.assert_array_equal(found.quantiles(Q)[k], wanted)
    assert np.isnan(found.quantiles(Q)[1]).all()


@pytest.mark.parametrize("q", [[-0.1], [1.1], [0.5, float("nan")]])
def test_sort_columns_fraction_outside_range_is_config_error(q):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        sort_columns(np.eye(3)).quantiles(q)


@pytest.mark.parametrize(
    ("q", "name"),
    [(0.01, "q01"), (0.1, "q10"), (0.5, "q50"), (0.99, "q99"), (0.999, "q99.9"), (0.005, "q00.5")],
)
def test_quantile_name_fraction_gives_lerobot_name(q, name):
    assert quantile_name(q) == name


def test_sort_columns_infinities_at_either_end_are_left_out_of_each_span():
    matrix = np.array([[-np.inf, 1.0, 5.0], [2.0, np.inf, np.nan], [3.0, 4.0, np.nan]])
    spans = np.array([[0, 3], [3, 3]])
    columns = sort_spans(np.array(matrix.T, order="C"), spans)
    assert columns.count.tolist() == [[2, 2, 1], [0, 0, 0]]
    first, second = columns.quantiles([0.0, 0.5, 1.0])
    np.testing.assert_array_equal(first.T, [[2.0, 2.5, 3.0], [1.0, 2.5, 4.0], [5.0, 5.0, 5.0]])
    assert np.isnan(second).all()


@pytest.mark.parametrize("zeros", [[-0.0, 0.0], [0.0, -0.0], [-0.0, -0.0]])
def test_quantiles_of_zeros_have_no_sign(zeros):
    found = sort_columns(np.array(zeros)[:, np.newaxis]).quantiles(Q)
    assert not np.signbit(found).any()
