from __future__ import annotations

import numpy as np
import pytest
from golden_io import assert_same_bits, decode, golden_cases, load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import ConfigError, MetadataError, PrepError
from opentau_prep.normalization import (
    Convention,
    normalize,
    normalize_mean_std,
    unnormalize,
    unnormalize_mean_std,
)

VERSIONS = [0, 1]


def rows_for(case, name, stat):
    """Return a stat of every sample's own row, with the axes of a batch: (B, 1..., *shape)."""
    rows = np.stack([np.asarray(row[name][stat]) for row in decode(case["stats"])])
    picked = rows[case["dataset_index"]]
    extra = decode(case["batch"])[name].ndim - picked.ndim
    return picked.reshape(len(picked), *(1,) * extra, *picked.shape[1:])


def apply_to_batch(case, version, direction, batch):
    """Do what a policy does with a batch: every feature of a type with a mode, the rest as is."""
    result = dict(batch)
    for name, feature in case["features"].items():
        mode = case["norm_map"].get(feature["type"])
        if mode is None or name not in batch:
            continue
        convention = Convention.of(mode, version)
        convention.pick(case["stats"][0][name])
        first, second = (rows_for(case, name, stat) for stat in convention.stat_names)
        result[name] = getattr(convention, direction)(batch[name], first, second)
    return result


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", golden_cases("normalize"))
def test_normalize_golden_case_is_bit_equal(case, version):
    expected = decode(case["expected"][f"config_version_{version}"])
    batch = decode(case["batch"])
    if "normalize" not in expected:
        with pytest.raises(PrepError):
            apply_to_batch(case, version, "normalize", batch)
        return
    normalized = apply_to_batch(case, version, "normalize", batch)
    assert_same_bits(normalized, expected["normalize"])
    back = apply_to_batch(case, version, "unnormalize", normalized)
    assert_same_bits(back, expected["unnormalize_of_normalize"])
    taken = apply_to_batch(case, version, "unnormalize", batch)
    assert_same_bits(taken, expected["unnormalize"])


@pytest.mark.parametrize("case", golden_cases("fit_per_head", "normalize_chunks"))
def test_normalize_agrees_with_recorded_fit_where_dims_have_a_range(case):
    # The recorded fit rounds elsewhere (in float64 when its stats are), so this is no bit test.
    case = decode(case)
    moving = case["action_max"] - case["action_min"] > 1e-3
    for version in VERSIONS:
        ours = normalize(
            case["chunks"], case["action_min"], case["action_max"], config_version=version
        )
        recorded = case["expected"][f"config_version_{version}"]["out"]
        finite = np.isfinite(ours) & moving
        np.testing.assert_allclose(ours[finite], recorded[finite], rtol=2e-6, atol=5e-7)


def test_recorded_fit_cases_cover_dims_with_a_range():
    cases = [decode(case) for case in load_golden("fit_per_head")["normalize_chunks"]]
    assert sum(((c["action_max"] - c["action_min"]) > 1e-3).sum() for c in cases) >= 6


@pytest.mark.parametrize(("version", "center"), [(0, -1.0), (1, 0.0), (2, 0.0)])
def test_normalize_padded_dim_lands_where_its_version_says(version, center):
    padded = normalize(np.zeros((2, 3)), np.zeros(3), np.zeros(3), config_version=version)
    np.testing.assert_allclose(padded, center, atol=1e-6)


@st.composite
def chunks_and_range(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_dims = draw(st.integers(1, 5))
    shape = (*draw(st.lists(st.integers(1, 4), max_size=2)), n_dims)
    lo = rng.normal(size=n_dims) * 10.0 ** rng.integers(-2, 3, size=n_dims)
    span = 10.0 ** rng.integers(-2, 3, size=n_dims)
    span[rng.random(n_dims) < 0.3] = 0
    values = lo + np.where(span, span, 1.0) * rng.uniform(-1, 2, size=shape)
    return values.astype(np.float32), lo, lo + span


@settings(max_examples=60, deadline=None)
@given(chunks_and_range(), st.sampled_from(VERSIONS))
def test_unnormalize_undoes_normalize(inputs, version):
    values, lo, hi = inputs
    back = unnormalize(
        normalize(values, lo, hi, config_version=version), lo, hi, config_version=version
    )
    assert back.dtype == np.float32
    # Subtracting lo loses the bits below lo's own last one.
    scale = np.maximum(np.abs(lo), np.where(hi > lo, hi - lo, 1.0))
    assert (np.abs(back - values) <= 4e-6 * scale).all()


@settings(max_examples=60, deadline=None)
@given(chunks_and_range(), st.sampled_from(VERSIONS))
def test_unnormalize_mean_std_undoes_normalize_mean_std(inputs, version):
    values, mean, hi = inputs
    std = hi - mean
    normalized = normalize_mean_std(values, mean, std, config_version=version)
    back = unnormalize_mean_std(normalized, mean, std, config_version=version)
    scale = np.maximum(np.abs(mean), np.maximum(std, 1.0))
    assert (np.abs(back - values) <= 4e-6 * scale).all()


@pytest.mark.parametrize("function", [normalize, unnormalize, normalize_mean_std])
def test_normalize_many_blocks_equal_one_chunk_at_a_time(function):
    rng = np.random.default_rng(3)
    corpus = rng.normal(size=(5000, 10, 4)).astype(np.float32)
    lo, hi = np.array([-1.0, 0.0, 2.0, 5.0]), np.array([1.0, 0.0, 9.0, 5.0])
    whole = function(corpus, lo, hi)
    assert_same_bits(whole, np.stack([function(chunk, lo, hi) for chunk in corpus]))


def test_normalize_own_stats_of_every_row_reach_every_block():
    rng = np.random.default_rng(5)
    values, lo = rng.normal(size=(40_000, 3)), rng.normal(size=(40_000, 3))
    whole = normalize(values, lo, lo + 2)
    for row in (0, 21_845, 39_999):
        assert_same_bits(whole[row], normalize(values[row], lo[row], lo[row] + 2))


def test_normalize_in_place_and_float64_input_give_the_same_bits():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(300, 50, 32)).astype(np.float32)
    lo, hi = rng.normal(size=32), rng.normal(size=32) + 5
    expected = normalize(values, lo, hi)
    assert_same_bits(normalize(values.astype(np.float64), lo, hi), expected)
    assert_same_bits(normalize(values.transpose(1, 0, 2), lo, hi).transpose(1, 0, 2), expected)
    mine = values.copy()
    assert normalize(mine, lo, hi, out=mine) is mine
    assert_same_bits(mine, expected)


def test_normalize_leaves_its_arguments_alone():
    values, lo, hi = np.ones((2, 2), np.float32), np.zeros(2), np.ones(2)
    normalize(values, lo, hi)
    assert values.tolist() == [[1, 1], [1, 1]]
    assert lo.tolist() == [0, 0]
    assert hi.tolist() == [1, 1]


def test_normalize_accepts_anything_with_array():
    class Tensor:
        def __init__(self, data):
            self.data = data

        def __array__(self, dtype=None, copy=None):
            return np.array(self.data, dtype=dtype)

    expected = normalize(np.array([[1.0, 2.0]]), np.zeros(2), np.ones(2))
    assert_same_bits(normalize(Tensor([[1.0, 2.0]]), Tensor([0.0, 0.0]), Tensor([1, 1])), expected)


def test_normalize_empty_corpus_stays_empty():
    assert normalize(np.empty((0, 50, 4)), np.zeros(4), np.ones(4)).shape == (0, 50, 4)


@pytest.mark.parametrize(
    ("values", "lo", "hi"),
    [
        (np.ones((2, 4)), np.zeros(3), np.ones(3)),
        (np.ones((2, 4)), np.zeros(1), np.ones(1)),
        (np.ones((2, 4)), np.zeros(4), np.ones(3)),
        (np.ones(4), np.zeros((2, 4)), np.ones((2, 4))),
        (np.float32(1), np.zeros(1), np.ones(1)),
        (np.array(["a", "b"]), np.zeros(2), np.ones(2)),
        ([[1.0], [1.0, 2.0]], np.zeros(2), np.ones(2)),
        (np.ones(2), 0.0, 1.0),
    ],
)
def test_normalize_unfitting_shapes_are_config_errors(values, lo, hi):
    with pytest.raises(ConfigError):
        normalize(values, lo, hi)


@pytest.mark.parametrize("version", [-1, 1.0, "1", True, None])
def test_normalize_unknown_config_version_is_config_error(version):
    with pytest.raises(ConfigError, match="config_version"):
        normalize(np.ones(1), np.zeros(1), np.ones(1), config_version=version)


@pytest.mark.parametrize("out", [np.empty((2, 1)), np.empty((1, 2), np.float32), [[0.0], [0.0]]])
def test_normalize_unusable_out_is_config_error(out):
    with pytest.raises(ConfigError, match="out"):
        normalize(np.ones((2, 1)), np.zeros(1), np.ones(1), out=out)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_normalize_non_finite_stat_names_dims(bad):
    with pytest.raises(MetadataError, match=r"max .*dim\(s\) 1"):
        normalize(np.ones(2), np.zeros(2), np.array([1.0, bad]))


def test_normalize_range_beyond_float32_is_refused():
    with pytest.raises(MetadataError, match="range"):
        normalize(np.ones(1), np.array([-3e38]), np.array([3e38]))


def test_normalize_missing_stat_is_metadata_error():
    with pytest.raises(MetadataError, match="max"):
        normalize(np.ones(2), np.zeros(2), None)


def test_convention_pick_never_falls_back_to_min_and_max():
    stats = {"min": [0.0], "max": [1.0]}
    with pytest.raises(MetadataError, match="q01, q99"):
        Convention.of("QUANTILE").pick(stats)
    assert Convention.of("MIN_MAX").pick(stats) == ([0.0], [1.0])


def test_convention_of_unknown_mode_is_config_error():
    with pytest.raises(ConfigError, match="MIN_MAX"):
        Convention.of("ZSCORE")


def test_unnormalize_dim_without_range_rounds_in_the_order_of_the_policy():
    # Plain float32 steps, in the policy's order: the shift is undone after the offset is added.
    rng = np.random.default_rng(5)
    values = (rng.normal(size=(200, 3)) * 10).astype(np.float32)
    lo = np.array([-386.6023, 17.3, 0.1], dtype=np.float32)
    hi = lo + np.array([0.0, 2.5, 0.0], dtype=np.float32)
    spread = hi - lo
    size = np.where(np.abs(spread) < np.float32(1e-6), np.float32(1), spread)
    out = (values + np.float32(1)) / np.float32(2)
    out = out * (size + np.float32(1e-6)) + lo
    out = out - np.float32(0.5) * (size - spread)
    assert unnormalize(values, lo, hi).tobytes() == out.tobytes()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["MEAN_STD", "MIN_MAX", "QUANTILE"])
def test_affine_is_normalize_but_for_rounding(mode, version):
    convention = Convention.of(mode, version)
    first = np.array([-2.0, 0.5, 3.0], dtype=np.float32)  # the last dim has no range, or no spread
    second = first + np.float32([4.0, 0.25, 0.0]) if mode != "MEAN_STD" else np.float32([2, 0.1, 0])
    values = np.array([[-1.0, 0.6, 3.0], [5.0, 0.1, 3.5]], dtype=np.float32)
    center, half = convention.affine(first, second)
    found = (values.astype(np.float64) - center) / half
    np.testing.assert_allclose(
        found, convention.normalize(values, first, second), rtol=1e-5, atol=1e-6
    )


def test_convention_without_a_version_is_the_one_of_new_checkpoints():
    assert Convention.of("MIN_MAX") == Convention.of("MIN_MAX", 1) != Convention.of("MIN_MAX", 0)


def test_a_spread_of_exactly_epsilon_divides_by_itself():
    convention = Convention.of("MEAN_STD")
    epsilon = np.float32(convention.epsilon)
    found = convention.normalize(np.float32([1.0]), np.float32([0.0]), epsilon[np.newaxis])
    assert found.tolist() == [np.float32(1.0) / (epsilon + epsilon)]
