from __future__ import annotations

import copy
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from golden_io import assert_same_bits, decode, golden_cases, load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import ConfigError, MetadataError, PrepError
from opentau_prep.notices import collect_notices
from opentau_prep.pooling import aggregate_stacked, aggregate_stats, is_quantile, pool_feature

WARNING_FIELDS = ("quantiles", "n_missing", "n_contributors", "missing", "suffix")
PER_DIM = ("min", "max", "mean", "std", "q01", "q99")


@pytest.mark.parametrize("case", golden_cases("aggregate_stats"))
def test_aggregate_stats_golden_case_is_bit_equal(case):
    inputs = decode(case["contributors"]), case["weights"], case["contributor_names"]
    if case.get("expected_error"):
        with pytest.raises(PrepError):
            aggregate_stats(*inputs)
        return
    with collect_notices() as notices:
        pooled = aggregate_stats(*inputs)
    assert_same_bits(pooled, decode(case["expected"]))
    assert list(pooled) == sorted(pooled)
    found = [
        {"kind": n.kind, "feature": n.feature, **{k: n.details[k] for k in WARNING_FIELDS}}
        for n in notices
    ]
    assert found == case["warnings"]


@st.composite
def recordings(draw, min_size=1, max_size=6, n_dims=None):
    """Draw the raw data of a few contributors, (N, D) each, with scales far apart."""
    n_dims = n_dims or draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(st.lists(st.integers(1, 40), min_size=min_size, max_size=max_size))
    offset = rng.normal(size=n_dims) * 10.0 ** rng.integers(-3, 4, size=n_dims)
    scale = 10.0 ** rng.integers(-2, 3, size=n_dims)
    return [offset + scale * rng.normal(size=(n, n_dims)) for n in lengths]


def stats_of(data):
    return {
        "min": data.min(axis=0),
        "max": data.max(axis=0),
        "mean": data.mean(axis=0),
        "std": data.std(axis=0),
        "q01": np.quantile(data, 0.01, axis=0),
        "q99": np.quantile(data, 0.99, axis=0),
        "count": np.array([len(data)]),
    }


@settings(max_examples=60, deadline=None)
@given(recordings())
def test_aggregate_stats_of_parts_equals_stats_of_concatenation(parts):
    pooled = aggregate_stats([{"x": stats_of(part)} for part in parts])["x"]
    whole = stats_of(np.concatenate(parts))
    span = np.abs(np.concatenate(parts)).max(axis=0)
    assert np.array_equal(pooled["min"], whole["min"])
    assert np.array_equal(pooled["max"], whole["max"])
    assert np.array_equal(pooled["count"], whole["count"])
    np.testing.assert_allclose(pooled["mean"], whole["mean"], rtol=0, atol=(1e-13 * span).max())
    # The variance of nearly equal numbers is only as exact as their squares.
    assert (np.abs(pooled["std"] ** 2 - whole["std"] ** 2) <= 1e-13 * span**2).all()


@settings(max_examples=40, deadline=None)
@given(recordings(min_size=2), st.randoms(use_true_random=False))
def test_aggregate_stats_order_changes_only_float_addition(parts, random):
    contributors = [{"x": stats_of(part)} for part in parts]
    shuffled = random.sample(contributors, len(contributors))
    first, second = aggregate_stats(contributors)["x"], aggregate_stats(shuffled)["x"]
    span = np.abs(np.concatenate(parts)).max(axis=0)
    for stat in ("min", "max", "count"):
        assert_same_bits(first[stat], second[stat])
    for stat in ("mean", "q01", "q99"):
        assert (np.abs(first[stat] - second[stat]) <= 1e-14 * span).all()
    assert (np.abs(first["std"] ** 2 - second["std"] ** 2) <= 1e-13 * span**2).all()


@settings(max_examples=40, deadline=None)
@given(recordings(), st.data())
def test_aggregate_stats_all_nan_contributor_changes_only_count(parts, data):
    contributors = [{"x": stats_of(part)} for part in parts]
    broken = {s: np.full_like(v, np.nan) for s, v in contributors[0]["x"].items() if s != "count"}
    broken["count"] = np.array([17])
    place = data.draw(st.integers(0, len(contributors)))
    with_broken = [*contributors[:place], {"x": broken}, *contributors[place:]]
    plain, pooled = aggregate_stats(contributors)["x"], aggregate_stats(with_broken)["x"]
    assert pooled["count"][0] == plain["count"][0] + 17
    for stat in PER_DIM:
        assert_same_bits(pooled[stat], plain[stat], stat)


@settings(max_examples=40, deadline=None)
@given(recordings(min_size=1, max_size=1))
def test_aggregate_stats_one_contributor_keeps_its_stats(parts):
    alone = stats_of(parts[0])
    pooled = aggregate_stats([{"x": alone}])["x"]
    for stat in PER_DIM:
        np.testing.assert_allclose(pooled[stat], alone[stat], rtol=4e-16, atol=0)


@settings(max_examples=40, deadline=None)
@given(recordings(min_size=2), st.integers(0, 2**32 - 1))
def test_aggregate_stats_masks_equal_scalar_formula(parts, seed):
    rng = np.random.default_rng(seed)
    contributors = [stats_of(part) for part in parts]
    for entry in contributors:
        for stat in PER_DIM:
            bad = rng.random(entry[stat].size) < 0.3
            entry[stat][bad] = rng.choice([np.nan, np.inf, -np.inf], bad.sum())
    weights = rng.integers(1, 1000, len(parts)).astype(float)
    pooled = aggregate_stats([{"x": c} for c in contributors], weights)["x"]
    for dim in range(parts[0].shape[1]):
        expected = scalar_pool(contributors, weights, dim)
        for stat, value in expected.items():
            assert pooled[stat][dim] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), stat


def scalar_pool(contributors, weights, dim):
    """Pool one dim with plain Python numbers and exact sums: the formula as it is written."""
    rows = [{s: float(c[s][dim]) for s in PER_DIM} for c in contributors]

    def average(value, *needed):
        pairs = zip(weights, rows, strict=True)
        kept = [(w, r) for w, r in pairs if all(math.isfinite(r[s]) for s in needed)]
        if not kept:
            return math.nan
        return math.fsum(w * value(r) for w, r in kept) / math.fsum(w for w, _ in kept)

    mean = average(lambda r: r["mean"], "mean")
    variance = average(lambda r: r["std"] ** 2 + (r["mean"] - mean) ** 2, "mean", "std")
    lows = [r["min"] for r in rows if math.isfinite(r["min"])]
    highs = [r["max"] for r in rows if math.isfinite(r["max"])]
    return {
        "mean": mean,
        "std": math.sqrt(variance),
        "min": min(lows, default=math.nan),
        "max": max(highs, default=math.nan),
        "q01": average(lambda r: r["q01"], "q01"),
        "q99": average(lambda r: r["q99"], "q99"),
    }


def contributor(n_dims=2, **changes):
    base = {stat: np.arange(n_dims) + 1.0 for stat in ("min", "max", "mean", "std")}
    return {"x": {**base, "count": np.array([4]), **changes}}


def without(entry, stat):
    return {"x": {k: v for k, v in entry["x"].items() if k != stat}}


def test_aggregate_stats_never_changes_its_arguments():
    inputs = [contributor(q01=np.array([np.nan, 1.0])), contributor()]
    before = copy.deepcopy(inputs)
    aggregate_stats(inputs, [1.0, 2.0], ["a", "b"])
    assert_same_bits(inputs, before)


def test_aggregate_stats_squares_each_std_in_its_own_dtype():
    narrow, wide = np.array([0.1, 0.3], np.float32), np.array([0.1, 0.3])
    same_mean = {"mean": np.zeros(2)}
    pooled = aggregate_stats([contributor(std=narrow, **same_mean), contributor(std=wide)], [1, 0])
    assert_same_bits(pooled["x"]["std"], np.sqrt((narrow * narrow).astype(np.float64)))


def test_aggregate_stats_masked_extremes_keep_float32():
    low, high = np.array([np.nan, -np.inf], np.float32), np.array([1.0, np.inf], np.float32)
    pooled = aggregate_stats([contributor(min=low, max=high), contributor(min=high, max=low)])["x"]
    assert_same_bits(pooled["min"], np.array([1.0, np.nan], np.float32))
    assert_same_bits(pooled["max"], np.array([1.0, np.nan], np.float32))


def test_aggregate_stats_empty_list_is_empty():
    assert aggregate_stats([]) == {}


def test_aggregate_stats_more_lacking_than_shown_are_counted():
    q = np.array([1.0, 2.0])
    inputs = [contributor(q01=q), *(contributor() for _ in range(13))]
    with collect_notices() as notices:
        pooled = aggregate_stats(inputs, None, [f"org/d{i}" for i in range(14)], context="a::b")
    assert "q01" not in pooled["x"]
    (notice,) = notices
    assert notice.details["n_missing"] == 13
    assert notice.details["missing"] == [f"org/d{i}" for i in range(1, 11)]
    assert notice.details["context"] == "a::b"
    assert notice.message.startswith("a::b, feature 'x': dropping 'q01'")
    assert "org/d10 and 3 more" in notice.message
    assert "org/d11" not in notice.message


@pytest.mark.parametrize("stat", ["min", "max", "mean", "std", "count"])
def test_aggregate_stats_missing_stat_names_contributor(stat):
    with pytest.raises(MetadataError, match=rf"^org/b: .*'x'.*{stat}|^org/b: .*{stat}.*'x'"):
        aggregate_stats([contributor(), without(contributor(), stat)], None, ["org/a", "org/b"])


def test_aggregate_stats_missing_count_is_fine_with_weights():
    pooled = aggregate_stats([without(contributor(), "count")], [3])
    assert pooled["x"]["count"] == 3.0


@pytest.mark.parametrize(
    "bad",
    [
        {"mean": np.zeros(3)},
        {"std": np.array(1.0)},
        {"count": np.array([1, 2])},
        {"count": np.array([-1])},
        {"count": np.array([np.nan])},
        {"max": np.array(["a", "b"])},
        {"max": [[1.0], [1.0, 2.0]]},
        {"min": np.array([None, 1.0], dtype=object)},
    ],
    ids=str,
)
def test_aggregate_stats_unusable_stat_names_contributor_and_feature(bad):
    with pytest.raises(MetadataError, match="'x'") as error:
        aggregate_stats([contributor(), contributor(**bad)], None, ["org/a", "org/b"])
    assert error.value.where == "org/b"


@pytest.mark.parametrize("weights", [[1.0], [1.0, np.nan], [1.0, -2.0], ["a", "b"], [[1.0], [2.0]]])
def test_aggregate_stats_unusable_weights_are_config_errors(weights):
    with pytest.raises(ConfigError):
        aggregate_stats([contributor(), contributor()], weights)


def test_pool_feature_masks_say_who_took_part():
    first = contributor(mean=np.array([np.nan, 1.0]))
    second = contributor(std=np.array([1.0, np.inf]), max=np.array([np.inf, 3.0]))
    record = pool_feature([first, {"y": first["x"]}, second], "x", weights=[1.0, 5.0, 2.0])
    assert record.contributors == (0, 2)
    assert record.weights.tolist() == [1.0, 2.0]
    assert record.masks["mean"].tolist() == [[False, True], [True, True]]
    assert record.masks["std"].tolist() == [[False, True], [True, False]]
    assert record.masks["max"].tolist() == [[True, True], [False, True]]
    assert record.masks["min"].all()


def test_pool_feature_unknown_feature_is_a_config_error():
    with pytest.raises(ConfigError, match="z"):
        pool_feature([contributor()], "z")


def test_is_quantile_accepts_only_quantile_names():
    names = ("q01", "q99", "q99.9", "q5", "q", "qq1", "count", "q01x")
    assert [name for name in names if is_quantile(name)] == ["q01", "q99", "q99.9", "q5"]


def real_data_root():
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("OPENTAU_PREP_REAL_DATA", beside))


def test_aggregate_stats_of_real_episodes_equals_recorded_training_stats():
    file = real_data_root() / "g1_pick_bottle" / "meta" / "episodes_stats.jsonl"
    if not file.is_file():
        pytest.skip(f"no real datasets at {real_data_root()}")
    episodes = [json.loads(line)["stats"] for line in file.read_text("utf-8").splitlines()]
    pooled = aggregate_stats(episodes)
    (case,) = (c for c in load_golden("heads")["cases"] if c["name"] == "real: so101 + g1")
    recorded = decode(case["datasets"][1]["stats"])
    assert len(episodes) == 100
    assert_same_bits({feature: pooled[feature] for feature in recorded}, recorded)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 130])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("scale", [1, 0.3, 1e305])
@pytest.mark.filterwarnings("error")
def test_aggregate_stacked_wide_features_have_the_bits_of_one_by_one(n, broken, scale):
    rng = np.random.default_rng(n)
    counts = rng.integers(1, 300, (n, 1)) * scale
    blocks = {}
    for feature, width in (("a", 7), ("b", 2), ("c", 1), ("d", 14)):
        names = ("q99", "min", "std", "mean", "max", "q01")
        values = np.abs(rng.normal(size=(n, len(names), width))) * 10.0 ** rng.integers(-8, 8)
        if broken:
            values[rng.random(values.shape) < 0.2] = rng.choice([np.nan, np.inf, -0.0])
        blocks[feature] = {stat: values[:, i] for i, stat in enumerate(names)} | {"count": counts}
    rows = [
        {f: {stat: values[i] for stat, values in entry.items()} for f, entry in blocks.items()}
        for i in range(n)
    ]
    pooled, expected = aggregate_stacked(blocks), aggregate_stats(rows)
    assert list(pooled) == list(expected)
    for feature, entry in expected.items():
        assert list(pooled[feature]) == list(entry)
        for stat, values in entry.items():
            assert pooled[feature][stat].dtype == values.dtype
            assert pooled[feature][stat].tobytes() == values.tobytes()


def test_aggregate_stats_one_warning_per_set_of_contributors_that_lack_quantiles():
    base = {"min": [0.0], "max": [1.0], "mean": [0.5], "std": [0.1], "count": [3]}
    carried = (["q01", "q10", "q99"], ["q01", "q99"], [])
    contributors = [{"x": {**base, **{name: [0.2] for name in names}}} for names in carried]
    with collect_notices() as notices:
        pooled = aggregate_stats(contributors)
    assert not any(stat.startswith("q") for stat in pooled["x"])
    groups = [(n.details["quantiles"], n.details["missing"]) for n in notices]
    assert groups == [(["q01", "q99"], [2]), (["q10"], [1, 2])]


def test_aggregate_stats_unusable_weight_names_its_contributor():
    with pytest.raises(ConfigError, match=r"weight -1\.0 of contributor 2 "):
        aggregate_stats([contributor() for _ in range(3)], [0.0, 1.0, -1.0])
