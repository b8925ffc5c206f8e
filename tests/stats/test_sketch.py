import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep import DataError
from opentau_prep.stats.sketch import (
    RANK_ERROR,
    QuantileSketch,
    SketchTree,
    decode_sketches,
    encode_sketches,
)

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("OPENTAU_PREP_REAL_DATA", ROOT.parent / "shared" / "data"))
EVERY = np.arange(1, 1000) / 1000


def _rank_error(values, found, q):
    """How far q is from the ranks that `found` has among the values."""
    low, high = (
        np.searchsorted(np.sort(values), found, s) / len(values) for s in ("left", "right")
    )
    return float(np.maximum(low - q, q - high).max(initial=0.0))


def _sketch_in_parts(matrix, parts):
    tree = SketchTree()
    for part in np.array_split(matrix, parts):
        tree.add(QuantileSketch.of(part))
    return tree.finish()


def _worst_error(matrix, sketch):
    """The largest rank error of 999 quantiles of any dim."""
    found = sketch.quantiles(EVERY)
    return max(_rank_error(matrix[:, d], found[:, d], EVERY) for d in range(matrix.shape[1]))


@pytest.fixture(scope="module", params=["g1_pick_bottle", "so101_record_test"])
def real(request):
    files = sorted((REAL / request.param).glob("data/*/*.parquet"))
    if not files:
        pytest.skip("the real datasets are not here")
    names = ["observation.state", "action"]
    tables = [pq.read_table(file, columns=names) for file in files]
    columns = [
        np.concatenate(
            [t[n].combine_chunks().flatten().to_numpy().reshape(len(t), -1) for t in tables]
        )
        for n in names
    ]
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize("parts", [1, 7, 100])
def test_quantiles_real_datasets_rank_error_is_within_bound(real, parts):
    assert _worst_error(real, _sketch_in_parts(real, parts)) <= RANK_ERROR


@pytest.mark.parametrize("parts", [1, 7, 100])
def test_quantiles_hard_distributions_rank_error_is_within_bound(parts):
    rng = np.random.default_rng(0)
    rows = 40_000
    matrix = np.stack(
        [
            rng.standard_normal(rows),
            rng.standard_cauchy(rows),
            (rng.random(rows) < 0.011).astype(float),  # a gripper whose step is at 1 %
            (rng.random(rows) < 0.0105) * rng.standard_normal(rows),
            rng.integers(0, 40, rows) / 40,
            np.arange(rows) / rows,  # sorted input: parts do not overlap
            rng.exponential(size=rows) ** 4,
            np.full(rows, 0.3),
        ],
        axis=1,
    ).astype(np.float32)
    sketch = _sketch_in_parts(matrix, parts)
    assert _worst_error(matrix, sketch) <= RANK_ERROR
    assert max(len(part) for part in sketch.to_bytes()) <= 16 * 1024 + 25
    assert (sketch.quantiles([0.0, 1.0]) == [matrix.min(axis=0), matrix.max(axis=0)]).all()
    assert (sketch.quantiles(EVERY)[:, 7] == np.float32(0.3)).all()


def test_quantiles_many_fractions_are_monotone():
    matrix = np.random.default_rng(1).standard_normal((30_000, 2))
    found = _sketch_in_parts(matrix, 9).quantiles(np.linspace(0, 1, 5001))
    assert (np.diff(found, axis=0) >= 0).all()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(3000, 12_000),
    cuts=st.lists(st.integers(0, 12_000), min_size=1, max_size=30),
    seed=st.integers(0, 2**32 - 1),
)
def test_merge_any_split_has_the_quality_of_one_pass(rows, cuts, seed):
    rng = np.random.default_rng(seed)
    matrix = np.stack([rng.gamma(0.5, size=rows), rng.integers(0, 300, rows)], axis=1)
    bounds = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    parts = [QuantileSketch.of(matrix[a:b]) for a, b in itertools.pairwise(bounds)]
    merged = parts[0].merge(*parts[1:])
    assert merged.count.tolist() == [rows, rows]
    assert _worst_error(matrix, merged) <= RANK_ERROR


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7, 20])
def test_quantiles_few_values_equal_numpy_exactly(rows):
    matrix = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
    q = [0.0, 0.01, 0.3, 0.5, 0.99, 1.0]
    found = QuantileSketch.of(matrix).quantiles(q)
    expected = (
        np.quantile(matrix.astype(np.float64), q, axis=0) if rows else np.full((6, 3), np.nan)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_of_non_finite_values_are_left_out():
    matrix = np.random.default_rng(2).standard_normal((500, 3))
    matrix[::3, 0], matrix[::4, 1], matrix[:, 2] = np.nan, -np.inf, np.nan
    found = QuantileSketch.of(matrix)
    clean = [QuantileSketch.of(matrix[np.isfinite(matrix[:, d]), d : d + 1]) for d in range(2)]
    assert found.to_bytes()[:2] == [c.to_bytes()[0] for c in clean]
    assert found.count[2] == 0
    assert np.isnan(found.quantiles([0.5])[0, 2])
    assert np.isnan(found.ranks([0, 0, 0])[2])


@pytest.mark.parametrize("parts", [1, 20])
def test_ranks_continuous_values_equal_counted_shares(parts):
    matrix = np.random.default_rng(3).standard_normal((50_000, 4))
    sketch = _sketch_in_parts(matrix, parts)
    for value in (-9.0, -2.33, -1.0, 0.0, 1.0, 2.33, 9.0):
        found = sketch.ranks(np.full(4, value))
        np.testing.assert_allclose(found, (matrix < value).mean(axis=0), atol=RANK_ERROR)
    assert sketch.ranks(np.full(4, -9.0)).tolist() == [0.0] * 4
    assert sketch.ranks(np.full(4, 9.0)).tolist() == [1.0] * 4


def test_ranks_constant_dim_is_half():
    assert QuantileSketch.of(np.full((1000, 1), 5.0)).ranks([5.0]).tolist() == [0.5]


def test_of_another_process_gives_the_same_bytes():
    code = (
        "import hashlib, numpy as np\n"
        "from opentau_prep.stats.sketch import QuantileSketch\n"
        "m = np.random.default_rng(0).standard_normal((20000, 3)).astype('f4')\n"
        "first, *rest = [QuantileSketch.of(p) for p in np.array_split(m, 11)]\n"
        "print(hashlib.sha256(b''.join(first.merge(*rest).to_bytes())).hexdigest())\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].strip()) == 64


def test_merge_leaves_its_inputs_unchanged():
    a, b = (QuantileSketch.of(np.random.default_rng(s).random((5000, 2))) for s in (1, 2))
    before = a.to_bytes(), b.to_bytes()
    assert a.merge(b).count.tolist() == [10_000, 10_000]
    assert (a.to_bytes(), b.to_bytes()) == before


def test_encode_sketches_round_trip():
    matrix = np.random.default_rng(4).random((3000, 2))
    sketches = {"action": QuantileSketch.of(matrix), "empty": QuantileSketch.of(matrix[:0])}
    document = json.loads(json.dumps(encode_sketches(sketches)))
    decoded = decode_sketches(document)
    for name, sketch in sketches.items():
        assert decoded[name].to_bytes() == sketch.to_bytes()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"format": "other", "features": {}},
        {"format": "apache-datasketches/tdigest<double>", "features": {}},
        {"format": "opentau-prep/order-statistics", "features": {"a": ["not base64!"]}},
        {"format": "opentau-prep/order-statistics", "features": {"a": ["AAAA"]}},
        {"format": "opentau-prep/order-statistics", "features": {"a": [3]}},
        {"format": "opentau-prep/order-statistics", "features": {"a": None}},
    ],
)
def test_decode_sketches_broken_document_is_data_error(document):
    with pytest.raises(DataError):
        decode_sketches(document)


def test_merge_different_widths_is_data_error():
    one, two = QuantileSketch.of(np.eye(3)), QuantileSketch.of(np.eye(2))
    with pytest.raises(DataError, match="cannot merge"):
        one.merge(two)
    with pytest.raises(DataError, match="expected 3 values"):
        one.ranks([1.0])
