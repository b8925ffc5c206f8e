import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import opentau_prep
from opentau_prep import DataError, RunningStats
from opentau_prep.stats.binning import ColumnHistogram

GOLDEN = Path(__file__).parents[1] / "golden"
# The plain loop below has the edges of the NumPy that runs it.
NUMPY1 = np.lib.NumpyVersion(np.__version__) < "2.0.0"
CASES = json.loads((GOLDEN / "running_stats.json").read_text())["cases"]


def _loop(batches, num_bins=5000):
    """The estimator as its definition reads: np.histogram per batch and dim."""
    count, edges, counts = 0, [], []
    for batch in batches:
        low, high = batch.min(axis=0), batch.max(axis=0)
        mean, square = np.mean(batch, axis=0), np.mean(batch**2, axis=0)
        if count == 0:
            least, most, run_mean, run_square = low, high, mean.copy(), square.copy()
            edges = [
                np.linspace(a - 1e-10, b + 1e-10, num_bins + 1)
                for a, b in zip(low, high, strict=True)
            ]
            counts = [np.zeros(num_bins) for _ in edges]
        grew = bool((high > most).any() or (low < least).any())
        least, most = np.minimum(least, low), np.maximum(most, high)
        for d in range(len(edges)):
            if grew:
                new = np.linspace(least[d], most[d], num_bins + 1)
                counts[d] = np.histogram(edges[d][:-1], bins=new, weights=counts[d])[0]
                edges[d] = new
            counts[d] = counts[d] + np.histogram(batch[:, d], bins=edges[d])[0]
        count += len(batch)
        run_mean += (mean - run_mean) * (len(batch) / count)
        run_square += (square - run_square) * (len(batch) / count)
    std = np.sqrt(np.maximum(0, run_square - run_mean**2))
    q01, q99 = (
        np.array(
            [
                e[np.searchsorted(np.cumsum(c), q * count)]
                for e, c in zip(edges, counts, strict=True)
            ]
        )
        for q in (0.01, 0.99)
    )
    return {"mean": run_mean, "std": std, "q01": q01, "q99": q99}


def _assert_same_bits(found, expected):
    for name in ("mean", "std", "q01", "q99"):
        assert found[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(
            found[name].view(f"u{found[name].itemsize}"),
            expected[name].view(f"u{found[name].itemsize}"),
            err_msg=name,
        )


def _expected(case, key):
    recorded = case["expected"] if case[key] == "same" else case[key]
    return {
        name: np.array(recorded[name]["data"], dtype=recorded[name]["dtype"])
        for name in ("mean", "std", "q01", "q99")
    }


@pytest.mark.parametrize("key", ["expected", "expected_numpy1"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_running_stats_golden_matrix_gives_recorded_bits(case, key):
    matrix = np.load(GOLDEN / case["matrix"])
    whole = RunningStats(numpy1_edges=key == "expected_numpy1")
    whole.update_many(matrix, case["batch_size"])
    single = RunningStats(numpy1_edges=key == "expected_numpy1")
    for start in range(0, len(matrix), case["batch_size"]):
        single.update(matrix[start : start + case["batch_size"]])
    _assert_same_bits(whole.get_statistics(), _expected(case, key))
    _assert_same_bits(single.get_statistics(), _expected(case, key))


def _matrix(kind, rows, dims, dtype, seed):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((rows, dims))
    if kind == "drift":
        noise += np.arange(rows)[:, np.newaxis] * rng.uniform(-0.1, 0.1, dims)
    elif kind == "offset":  # few float32 steps in the range: bins collapse
        noise = noise * rng.choice([1e-5, 1e-3, 1.0], dims) + rng.choice([-2048, 3.0, 1e6], dims)
    elif kind == "discrete":
        noise = rng.integers(-2, 3, (rows, dims)) * rng.choice([0, 0.25, 1000], dims)
    elif kind == "edges":  # values that sit on or beside bin edges
        noise = rng.integers(0, 5001, (rows, dims)) / 5000
        noise = np.nextafter(noise, rng.choice([-1.0, 2.0], noise.shape))
    elif kind == "tiny":
        noise *= 1e-9
    return noise.astype(dtype)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["noise", "drift", "offset", "discrete", "edges", "tiny"]),
    rows=st.integers(2, 700),
    dims=st.integers(1, 6),
    dtype=st.sampled_from([np.float32, np.float64]),
    batch=st.sampled_from([1, 7, 32, 600]),
    layout=st.sampled_from(["C", "F", "sliced", "reversed"]),
    single=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_update_any_matrix_equals_histogram_loop(
    kind, rows, dims, dtype, batch, layout, single, seed
):
    matrix = _matrix(kind, rows, dims, dtype, seed)
    if layout == "F":
        matrix = np.asfortranarray(matrix)
    elif layout == "sliced":
        matrix = np.repeat(matrix, 2, axis=1)[:, ::2]
    elif layout == "reversed":
        matrix = matrix[::-1]
    stats = RunningStats(numpy1_edges=NUMPY1)
    batches = [matrix[i : i + batch] for i in range(0, rows, batch)]
    if single:
        for rows_of_batch in batches:
            stats.update(rows_of_batch)
    else:
        stats.update_many(matrix, batch)
    expected = _loop(batches)
    _assert_same_bits(stats.get_statistics(), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_update_many_several_blocks_equals_histogram_loop(dtype, monkeypatch):
    monkeypatch.setattr("opentau_prep.stats.histogram._BLOCK_VALUES", 32 * 5 * 60)
    matrix = np.cumsum(_matrix("noise", 9_000, 5, np.float64, 3), axis=0).astype(dtype)
    matrix[:, 4] = np.sin(np.arange(9_000) / 200) + 3
    stats = RunningStats(numpy1_edges=NUMPY1)
    stats.update_many(matrix[:4000])
    stats.update_many(matrix[4000:])
    batches = [matrix[i : i + 32] for i in range(0, 4000, 32)]
    batches += [matrix[i : i + 32] for i in range(4000, 9_000, 32)]
    _assert_same_bits(stats.get_statistics(), _loop(batches))
    assert stats.count == 9_000


def test_update_higher_rank_batch_flattens_leading_axes():
    block = _matrix("noise", 64, 3, np.float32, 5)
    nested, flat = RunningStats(num_quantile_bins=50), RunningStats(num_quantile_bins=50)
    nested.update(block.reshape(4, 16, 3))
    flat.update(block)
    _assert_same_bits(nested.get_statistics(), flat.get_statistics())


def test_get_statistics_fewer_than_two_vectors_is_data_error():
    stats = RunningStats()
    with pytest.raises(DataError, match="at least 2"):
        stats.get_statistics()
    stats.update([[1.0, 2.0]])
    with pytest.raises(DataError, match="1 were given"):
        stats.get_statistics()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((4, 2), np.float32), "width 2 after vectors of width 3"),
        (np.zeros((0, 3), np.float32), "at least one vector"),
        (np.zeros((4, 3)), "float64 vectors after float32"),
        (np.array([[0, np.nan, np.inf]], np.float32), r"not finite.*dims \[1, 2\]"),
        (np.array([["a", "b", "c"]]), "expected numbers"),
        ([[1.0, 2.0, 3.0], [1.0]], "different widths"),
    ],
)
def test_update_unusable_batch_is_data_error_and_leaves_state(batch, message):
    stats = RunningStats()
    stats.update(_matrix("noise", 40, 3, np.float32, 1))
    before = stats.get_statistics()
    with pytest.raises(DataError, match=message):
        stats.update(batch)
    _assert_same_bits(stats.get_statistics(), before)


def test_update_caller_reuses_its_buffer_counts_what_was_passed():
    rows, buffer = _matrix("noise", 96, 3, np.float64, 8), np.empty((32, 3))
    stats = RunningStats()
    for start in range(0, 96, 32):
        buffer[:] = rows[start : start + 32]
        stats.update(buffer)
    assert stats.count == 96
    _assert_same_bits(stats.get_statistics(), _loop([rows[:32], rows[32:64], rows[64:]]))


def test_get_statistics_between_updates_changes_nothing_later():
    rows = _matrix("drift", 160, 2, np.float32, 9)
    asked = RunningStats(numpy1_edges=NUMPY1)
    for start in range(0, 160, 32):
        asked.update(rows[start : start + 32])
        if start:
            asked.get_statistics()
    _assert_same_bits(asked.get_statistics(), _loop([rows[i : i + 32] for i in range(0, 160, 32)]))


def test_get_statistics_result_is_record_and_mapping():
    stats = RunningStats()
    stats.update([[1.0, 2.0], [3.0, 4.0]])
    found = stats.get_statistics()
    assert list(found) == ["mean", "std", "q01", "q99"]
    assert found["mean"] is found.mean
    with pytest.raises(KeyError):
        found["count"]
    found.mean[:] = -1
    assert stats.get_statistics().mean.tolist() == [2.0, 3.0]


def test_running_stats_public_name_is_the_same_class():
    assert opentau_prep.RunningStats is RunningStats
    with pytest.raises(DataError):
        RunningStats(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_values", [3, 1000])
def test_column_histogram_of_a_dim_that_never_moves_equals_numpy(dtype, n_values):
    values = np.full(n_values, 3e9, dtype)  # so large that the margin of 1e-10 rounds away
    column = ColumnHistogram(values[0], values[0], 10, np.dtype(dtype))
    assert column.edges[0] == column.edges[-1]
    column.add(values)
    np.testing.assert_array_equal(column.counts, np.histogram(values, bins=column.edges)[0])


@pytest.mark.skipif(NUMPY1, reason="its linspace has other edges")
def test_column_histogram_range_smaller_than_its_bins_has_edges_of_linspace():
    high = np.float64(5e-324 * 1000)
    column = ColumnHistogram(0.0, high, 5000, np.dtype(np.float64))
    column.rebuild(0.0, high)
    np.testing.assert_array_equal(column.edges, np.linspace(np.float64(0), high, 5001))
