from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from golden_io import assert_same_bits, decode, golden_cases

from opentau_prep.errors import ConfigError, MetadataError, PrepError
from opentau_prep.heads import build_norm_heads, raw_dims, standardize_stats
from opentau_prep.notices import collect_notices

HEAD_WARNINGS = ("quantiles", "n_missing", "n_contributors", "missing", "suffix")


def standardize_case(case):
    cfg, datasets = case["cfg"], decode(case["datasets"])
    per_dataset, dims = [], []
    for ds in datasets:
        selection = {k: ds[k] for k in ("name_map", "state_index", "action_index", "repo_id")}
        per_dataset.append(
            standardize_stats(
                ds["stats"],
                max_state_dim=cfg["max_state_dim"],
                max_action_dim=cfg["max_action_dim"],
                num_cams=cfg["num_cams"],
                **selection,
            )
        )
        dims.append(raw_dims(ds["stats"], **selection))
    return per_dataset, dims


def build_case(case):
    with collect_notices() as notices:
        per_dataset, dims = standardize_case(case)
        heads = build_norm_heads(
            dataset_names=case["dataset_names"],
            per_dataset_stats=per_dataset,
            metadatas=[SimpleNamespace(info=ds["info"]) for ds in case["datasets"]],
            raw_dims=dims,
        )
    return per_dataset, heads, notices


def as_golden(notice):
    """Write one of our notices as the reference writes its warnings."""
    if notice.kind == "non_finite":
        return {
            "kind": notice.kind,
            "repo_id": notice.dataset,
            "feature": notice.feature,
            "stat": notice.details["stat"],
            "flat_indices": list(notice.dims),
            "shape": notice.details["shape"],
        }
    if notice.kind == "dropped_quantiles":
        told = {k: notice.details[k] for k in HEAD_WARNINGS}
        return {
            "kind": notice.kind,
            "head": notice.details["context"].removeprefix("norm head ").strip("'"),
            "feature": notice.feature,
            **told,
        }
    return {"kind": notice.kind, **notice.details}


@pytest.mark.parametrize("case", golden_cases("heads"))
def test_build_norm_heads_golden_case_is_bit_equal(case):
    per_dataset, heads, notices = build_case(case)
    expected = case["expected"]
    assert_same_bits(per_dataset, decode(expected["per_dataset_stats"]), "per_dataset_stats")
    assert_same_bits(heads.per_norm_key_stats, decode(expected["per_norm_key_stats"]), "heads")
    assert heads.norm_keys == expected["norm_keys"]
    for field in ("norm_key_to_index", "dataset_to_norm_index", "norm_key_to_dataset_names"):
        actual = getattr(heads, field)
        assert actual == expected[field]
        assert list(actual) == list(expected[field])
    told = [as_golden(n) for n in notices if n.kind != "placeholder_pooled"]
    assert told == case["warnings"]
    for row in expected["verbatim_heads"]:
        (member,) = heads.norm_key_to_dataset_names[heads.norm_keys[row]]
        alone = per_dataset[case["dataset_names"].index(member)]
        assert_same_bits(heads.per_norm_key_stats[row], alone)


@pytest.mark.parametrize("case", golden_cases("heads", "error_cases"))
def test_build_norm_heads_golden_error_case_is_an_expected_error(case):
    with pytest.raises(PrepError) as error:
        build_case(case)
    assert any(name in str(error.value) for name in (*case["dataset_names"], "franka::joint"))


@pytest.mark.parametrize("case", golden_cases("heads", "quirk_cases"))
def test_build_norm_heads_golden_quirk_case_is_refused(case):
    with pytest.raises(PrepError) as error:
        build_case(case)
    assert case["dataset_names"][0] in str(error.value)


def metadata(robot_type="franka", control_mode="joint", **info):
    return SimpleNamespace(info={"robot_type": robot_type, "control_mode": control_mode, **info})


def stats_like(value, n_dims=2):
    entry = {stat: np.full(n_dims, float(value)) for stat in ("min", "max", "mean", "std")}
    return {"state": entry, "actions": dict(entry)}


def build(metadatas, stats=None, dims=None, names=None):
    n = len(metadatas)
    return build_norm_heads(
        dataset_names=names or [f"d{i}" for i in range(n)],
        per_dataset_stats=stats or [stats_like(i + 1) for i in range(n)],
        metadatas=metadatas,
        raw_dims=dims or [(2, 2)] * n,
    )


def test_build_norm_heads_pools_by_frames_not_by_count():
    stats = [stats_like(1), stats_like(4)]
    for entry, count in zip(stats, (1, 1000), strict=True):
        entry["state"]["count"] = np.array([count])
    heads = build([metadata(total_frames=300), metadata(total_frames=100)], stats)
    assert heads.per_norm_key_stats[0]["state"]["mean"].tolist() == [1.75, 1.75]
    assert heads.per_norm_key_stats[0]["state"]["count"] == 400.0


def test_build_norm_heads_one_member_keeps_even_what_cannot_be_pooled():
    odd = {"state": {"mean": np.array([1, 2]), "anything": np.array(3)}, "actions": {}}
    heads = build([metadata()], [odd])
    assert_same_bits(heads.per_norm_key_stats, [odd])
    assert heads.per_norm_key_stats[0]["state"] is not odd["state"]


@pytest.mark.parametrize("frames", [None, 0, 0.0])
def test_build_norm_heads_no_frames_weigh_one(frames):
    heads = build([metadata(total_frames=frames), metadata(total_frames=np.int64(2))])
    assert heads.per_norm_key_stats[0]["state"]["count"] == 3.0


@pytest.mark.parametrize("frames", ["100", -5, float("nan"), float("inf"), 10**400, True, [3]])
def test_build_norm_heads_unusable_total_frames_names_dataset(frames):
    with pytest.raises(MetadataError, match=r"^d1: total_frames"):
        build([metadata(), metadata(total_frames=frames)])


def test_build_norm_heads_metadata_without_info_falls_back():
    heads = build([SimpleNamespace(info=None), metadata()])
    assert heads.norm_keys == ["d0", "franka::joint"]


def test_build_norm_heads_different_widths_list_every_member_of_the_head():
    dims = [(2, 2), (9, 9), (2, 3), (2, 2)]
    with pytest.raises(ConfigError) as error:
        build([metadata(), metadata("other"), metadata(), metadata()], dims=dims)
    text = str(error.value)
    assert "'franka::joint'" in text
    assert "d0 (state 2, actions 2); d2 (state 2, actions 3); d3 (state 2, actions 2)" in text
    assert "d1" not in text


@pytest.mark.parametrize("argument", ["per_dataset_stats", "metadatas", "raw_dims"])
def test_build_norm_heads_arguments_not_parallel_are_config_errors(argument):
    arguments = {
        "dataset_names": ["a", "b"],
        "per_dataset_stats": [stats_like(1)] * 2,
        "metadatas": [metadata()] * 2,
        "raw_dims": [(2, 2)] * 2,
    }
    with pytest.raises(ConfigError, match=f"1 {argument} for 2"):
        build_norm_heads(**{**arguments, argument: arguments[argument][:1]})


def test_build_norm_heads_placeholders_pooled_with_data_are_told():
    camera = {stat: np.full((3, 1, 1), 0.5) for stat in ("min", "max", "mean", "std")}
    vectors = {"observation.state": stats_like(1)["state"], "action": stats_like(2)["state"]}
    names = {"state": "observation.state", "actions": "action"}
    common = {"max_state_dim": 2, "max_action_dim": 2, "num_cams": 1}
    without = standardize_stats(vectors, name_map=names, **common)
    having = standardize_stats(
        {**vectors, "cam": camera}, name_map={**names, "camera0": "cam"}, **common
    )
    with collect_notices() as notices:
        heads = build([metadata(), metadata()], [having, without])
    (notice,) = notices
    assert (notice.kind, notice.feature) == ("placeholder_pooled", "camera0")
    assert notice.details["missing"] == ["d1"]
    assert heads.per_norm_key_stats[0]["camera0"]["mean"].ravel().tolist() == [0.25] * 3
    with collect_notices() as notices:
        build([metadata(), metadata()], [without, without])
    assert notices == []
