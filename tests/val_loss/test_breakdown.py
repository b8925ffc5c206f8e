"""Control modes that come back, heads, weights and logger keys."""

from fractions import Fraction
from typing import NamedTuple

import pytest

from opentau_prep import ConfigError, DataError, GroupedLosses


class Heads(NamedTuple):
    """The part of a mixture's norm heads that matters here."""

    norm_keys: list
    dataset_to_norm_index: dict
    norm_key_to_dataset_names: dict


def heads_of(**members):
    """Return heads from `key=[datasets]`, with `__` standing for `::` and `_s_` for a slash."""
    keys = {k.replace("__", "::").replace("_s_", "/"): v for k, v in members.items()}
    rows = {name: row for row, names in enumerate(keys.values()) for name in names}
    return Heads(list(keys), rows, keys)


HEADS = heads_of(franka__joint=["a", "b"], aloha__ee=["c"], lab_s_d=["lab/d"])


def losses_of(*rows):
    """Return losses from (row, dataset, mode, sum) samples, each with count 1."""
    index, names, modes, sums = zip(*rows, strict=True)
    return GroupedLosses().update(
        dataset_index=list(index), dataset=list(names), control_mode=list(modes),
        losses={"MSE": (list(sums), [1.0] * len(sums))},
    )  # fmt: skip


def modes(result):
    return {(g["dataset"], g["control_mode"]): g["recovered"] for g in result["groups"]}


@pytest.mark.parametrize("masked", [None, "", "  ", "unknown", "UNKNOWN", float("nan")])
def test_result_masked_mode_comes_back_from_head(masked):
    losses = losses_of((0, "a", masked, 1.0), (0, "b", masked, 3.0), (1, "c", masked, 5.0))
    result = losses.result(heads=HEADS)
    assert modes(result) == {("a", "joint"): 1, ("b", "joint"): 1, ("c", "ee"): 1}
    assert result["metrics"]["Validation/b/joint/MSE"] == 3.0


def test_result_masked_and_plain_samples_of_a_dataset_are_one_group():
    result = losses_of((0, "a", " joint ", 1.0), (0, "a", None, 2.0)).result(heads=HEADS)
    assert modes(result) == {("a", "joint"): 1}
    assert result["metrics"]["Validation/a/joint/MSE"] == 1.5


def test_result_declared_mode_brings_back_a_fallback_head():
    losses = losses_of((2, "lab/d", None, 1.0))
    assert modes(losses.result(heads=HEADS)) == {("lab/d", "unknown"): 0}
    declared = losses.result(heads=HEADS, control_modes={"lab/d": "ee", "a": None})
    assert modes(declared) == {("lab/d", "ee"): 1}


def test_result_fallback_head_named_like_a_tag_gives_no_mode():
    heads = heads_of(odd__name=["odd::name"])
    assert modes(losses_of((0, "odd::name", None, 1.0)).result(heads=heads)) == {
        ("odd::name", "unknown"): 0
    }


@pytest.mark.parametrize("order", [1, -1])
def test_result_without_heads_mode_comes_back_from_other_samples(order):
    rows = [(0, "a", None, 1.0), (0, "a", "joint", 1.0), (0, "b", None, 1.0), (1, "c", None, 1.0)]
    result = losses_of(*rows[::order]).result()
    assert modes(result) == {("a", "joint"): 1, ("b", "joint"): 1, ("c", "unknown"): 0}


def test_result_ambiguous_samples_recover_nothing():
    rows = [(0, "a", "joint", 1.0), (0, "a", "ee", 1.0), (0, "a", None, 1.0)]
    assert modes(losses_of(*rows).result()) == {
        ("a", "ee"): 0,
        ("a", "joint"): 0,
        ("a", "unknown"): 0,
    }


def test_result_datasets_of_one_head_are_told_apart():
    result = losses_of((0, "a", "joint", 1.0), (0, "b", "joint", 4.0)).result(heads=HEADS)
    found = result["metrics"]
    assert (found["Validation/a/joint/MSE"], found["Validation/b/joint/MSE"]) == (1.0, 4.0)
    assert found["ValidationHead/franka::joint/MSE"] == 2.5
    assert result["norm_heads"][0]["datasets"] == ["a", "b"]


def test_result_groups_and_heads_without_samples_are_absent():
    result = losses_of((1, "c", "ee", 2.0)).result(heads=HEADS)
    assert [g["dataset"] for g in result["groups"]] == ["c"]
    assert [h["norm_key"] for h in result["norm_heads"]] == ["aloha::ee"]
    assert not any("/a/" in key or "franka" in key for key in result["metrics"])


def test_aggregate_weighs_heads_by_members_weights():
    losses = losses_of((0, "a", "joint", 1.0), (0, "b", "joint", 2.0), (1, "c", "ee", 7.0))
    weights = {"a": 0.1, "b": 0.2, "c": 0.7, "lab/d": 5.0}
    result = losses.result(heads=HEADS, weights=weights)
    w = {name: Fraction(value) for name, value in weights.items()}
    expected = ((w["a"] + w["b"]) * Fraction(3, 2) + w["c"] * 7) / (w["a"] + w["b"] + w["c"])
    assert result["metrics"]["Validation/MSE"] == float(expected)
    assert result["aggregate"]["weights"] == "mixture"
    assert result == losses.result(heads=HEADS, weights=[0.1, 0.2, 0.7, 5.0])


def test_aggregate_member_without_samples_still_counts_in_its_heads_weight():
    losses = losses_of((0, "a", "joint", 1.0), (1, "c", "ee", 4.0))
    result = losses.result(heads=HEADS, weights={"a": 1, "b": 2, "c": 3, "lab/d": 1})
    assert result["metrics"]["Validation/MSE"] == 2.5


def test_aggregate_absent_heads_renormalize():
    losses = losses_of((1, "c", "ee", 4.0))
    result = losses.result(heads=HEADS, weights={"a": 9, "b": 9, "c": 0.001, "lab/d": 9})
    assert result["metrics"]["Validation/MSE"] == 4.0


def test_aggregate_zero_total_weight_is_zero():
    losses = losses_of((1, "c", "ee", 4.0))
    result = losses.result(heads=HEADS, weights={"a": 1, "b": 1, "c": 0, "lab/d": 1})
    assert result["metrics"]["Validation/MSE"] == 0.0
    assert result["metrics"]["Validation/c/ee/MSE"] == 4.0


def test_aggregate_head_with_no_count_of_a_loss_is_left_out_of_it():
    losses = losses_of((0, "a", "joint", 1.0), (1, "c", "ee", 4.0))
    losses.update(
        dataset_index=[0, 1], dataset=["a", "c"], control_mode=[None, None],
        losses={"CE": ([0.0, 6.0], [0, 2])},
    )  # fmt: skip
    result = losses.result(heads=HEADS, weights={"a": 1, "b": 0, "c": 1, "lab/d": 1})
    assert result["metrics"]["Validation/CE"] == 3.0
    assert result["aggregate"]["losses"]["CE"]["heads"] == 1
    assert "ValidationHead/franka::joint/CE" not in result["metrics"]


def test_aggregate_without_weights_takes_samples_as_weights():
    losses = losses_of(*[(0, "a", "joint", 1.0)] * 3, (1, "c", "ee", 5.0))
    result = losses.result(heads=HEADS)
    assert result["metrics"]["Validation/MSE"] == 2.0
    assert result["aggregate"]["weights"] == "samples"


def test_aggregate_dataset_without_head_has_a_group_only():
    losses = losses_of((-1, "vqa", None, 100.0), (0, "a", "joint", 1.0))
    result = losses.result(heads=HEADS)
    assert result["metrics"]["Validation/vqa/unknown/MSE"] == 100.0
    assert result["metrics"]["Validation/MSE"] == 1.0
    assert result["groups"][1]["norm_heads"] == []


def test_result_groups_stand_in_mixture_order():
    heads = heads_of(z__m=["z"], a__m=["a", "k"])
    rows = [(1, "k", "m", 1.0), (1, "a", "m", 1.0), (0, "z", "m", 1.0)]
    assert [g["dataset"] for g in losses_of(*rows).result(heads=heads)["groups"]] == ["z", "a", "k"]
    assert [g["dataset"] for g in losses_of(*rows).result()["groups"]] == ["a", "k", "z"]


def test_result_loss_weights_give_a_total_everywhere():
    losses = losses_of((0, "a", "joint", 1.0), (1, "c", "ee", 4.0))
    losses.update(
        dataset_index=[1], dataset=["c"], control_mode=["ee"], losses={"CE": ([6.0], [2])}
    )
    result = losses.result(
        heads=HEADS,
        weights=dict.fromkeys(["a", "b", "c", "lab/d"], 1),
        loss_weights={"MSE": 1, "CE": 0.5},
    )
    assert result["metrics"]["Validation/a/joint/total"] == 1.0
    assert result["metrics"]["Validation/c/ee/total"] == 5.5
    assert result["metrics"]["Validation/total"] == (2 * 1 + 4) / 3 + 1.5


def test_result_slash_in_control_mode_keeps_keys_apart():
    result = losses_of((0, "x", "y/m", 1.0), (0, "x/y", "m", 2.0)).result()
    assert result["metrics"]["Validation/x/y%2Fm/MSE"] == 1.0
    assert result["metrics"]["Validation/x/y/m/MSE"] == 2.0


@pytest.mark.parametrize("row", [(1, "a"), (7, "a"), (-1, "a"), (0, "stranger")])
def test_result_head_row_of_another_dataset_is_data_error(row):
    with pytest.raises(DataError, match=row[1]):
        losses_of((*row, "joint", 1.0)).result(heads=HEADS)


@pytest.mark.parametrize(
    "weights",
    [
        [1.0],
        {"a": 1},
        {"a": 1, "b": -1, "c": 1, "lab/d": 1},
        {"a": 1, "b": float("nan"), "c": 1, "lab/d": 1},
        {"a": 1, "b": float("inf"), "c": 1, "lab/d": 1},
        {"a": 1, "b": "x", "c": 1, "lab/d": 1},
    ],
)
def test_result_bad_weights_are_config_error(weights):
    with pytest.raises(ConfigError, match="weight"):
        losses_of((0, "a", "joint", 1.0)).result(heads=HEADS, weights=weights)


def test_result_bad_loss_weights_are_config_error():
    with pytest.raises(ConfigError, match="loss_weights"):
        losses_of((0, "a", "joint", 1.0)).result(loss_weights={"MSE": float("inf")})


def test_many_datasets_without_a_weight_are_counted_not_cut_off():
    heads = heads_of(franka__joint=[f"d{i}" for i in range(13)])
    with pytest.raises(ConfigError, match=r"d8, d9 and 3 more"):
        losses_of((0, "d0", "joint", 1.0)).result(heads=heads, weights={})
