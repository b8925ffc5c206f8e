"""Control modes that come back, heads, weights and logger keys."""

from fractions import Fraction
from typing import NamedTuple

import pytest

from opentau_prep import ConfigError, DataError, GroupedLosses
from opentau_prep.notices import collect_notices


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
        dataset_index=index, dataset=names, control_mode=modes,
        losses={"MSE": (list(sums), [1.0] * len(sums))},
    )  # fmt: skip


def modes(result):
    return {(g["dataset"], g["control_mode"]): g["recovered"] for g in result["groups"]}


@pytest.mark.parametrize("masked", [None, "", "  ", "unknown", "UNKNOWN", float("nan")])
def test_result_masked_mode_comes_back_from_head(masked):
    losses = losses_of((0, "a", masked, 1.0), (0, "b", masked, 3.0), (1, "c", masked, 5.0))
    result = losses.result(heads=HEADS)
    assert modes(result) == {("a", "joint"): 1, ("b", "joint"): 1, ("c", "ee"): 1}
    assert result["metrics"]["Validation/by_dataset/b/MSE Loss"] == 3.0


def test_result_masked_and_plain_samples_of_a_dataset_are_one_group():
    result = losses_of((0, "a", " joint ", 1.0), (0, "a", None, 2.0)).result(heads=HEADS)
    assert modes(result) == {("a", "joint"): 1}
    assert result["metrics"]["Validation/by_dataset/a/MSE Loss"] == 1.5


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


def test_result_datasets_of_one_head_are_kept_apart():
    result = losses_of((0, "a", "joint", 1.0), (0, "b", "joint", 4.0)).result(heads=HEADS)
    found = result["metrics"]
    assert [found[f"Validation/by_dataset/{name}/MSE Loss"] for name in "ab"] == [1.0, 4.0]
    assert found["Validation/franka::joint/MSE Loss"] == 2.5
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
    assert result["metrics"]["Validation/MSE Loss"] == float(expected)
    assert result["aggregate"]["weights"] == "mixture"
    assert result == losses.result(heads=HEADS, weights=[0.1, 0.2, 0.7, 5.0])


def test_aggregate_member_without_samples_still_counts_in_its_heads_weight():
    losses = losses_of((0, "a", "joint", 1.0), (1, "c", "ee", 4.0))
    result = losses.result(heads=HEADS, weights={"a": 1, "b": 2, "c": 3, "lab/d": 1})
    assert result["metrics"]["Validation/MSE Loss"] == 2.5


def test_aggregate_absent_heads_renormalize():
    losses = losses_of((1, "c", "ee", 4.0))
    result = losses.result(heads=HEADS, weights={"a": 9, "b": 9, "c": 0.001, "lab/d": 9})
    assert result["metrics"]["Validation/MSE Loss"] == 4.0


def test_aggregate_zero_total_weight_is_zero():
    losses = losses_of((1, "c", "ee", 4.0))
    result = losses.result(heads=HEADS, weights={"a": 1, "b": 1, "c": 0, "lab/d": 1})
    assert result["metrics"]["Validation/MSE Loss"] == 0.0
    assert result["metrics"]["Validation/by_dataset/c/MSE Loss"] == 4.0


def test_aggregate_head_with_nothing_to_count_adds_zero_as_in_training():
    losses = losses_of((0, "a", "joint", 1.0), (1, "c", "ee", 4.0))
    losses.update(
        dataset_index=[0, 1], dataset=["a", "c"], losses={"CE": ([0.0, 6.0], [0, 2])},
    )  # fmt: skip
    result = losses.result(heads=HEADS, weights={"a": 1, "b": 0, "c": 2, "lab/d": 1})
    assert result["metrics"]["Validation/CE Loss"] == (1 * 0 + 2 * 3) / 3
    assert result["aggregate"]["losses"]["CE"]["heads"] == 2
    assert "Validation/franka::joint/CE Loss" not in result["metrics"]
    assert result["metrics"]["Validation/Loss"] == (1 * (1 + 0) + 2 * (4 + 3)) / 3


def test_aggregate_head_without_a_finite_sample_is_left_out():
    losses = losses_of((0, "a", "joint", float("nan")), (1, "c", "ee", 4.0))
    with collect_notices():
        result = losses.result(heads=HEADS, weights={"a": 1, "b": 0, "c": 2, "lab/d": 1})
    assert result["metrics"]["Validation/MSE Loss"] == 4.0
    assert result["aggregate"]["losses"]["MSE"]["heads"] == 1


def test_aggregate_without_weights_takes_samples_as_weights():
    losses = losses_of(*[(0, "a", "joint", 1.0)] * 3, (1, "c", "ee", 5.0))
    result = losses.result(heads=HEADS)
    assert result["metrics"]["Validation/MSE Loss"] == 2.0
    assert result["aggregate"]["weights"] == "samples"


def test_aggregate_dataset_without_head_has_a_group_only():
    losses = losses_of((-1, "vqa", None, 100.0), (0, "a", "joint", 1.0))
    result = losses.result(heads=HEADS)
    assert result["metrics"]["Validation/by_dataset/vqa/MSE Loss"] == 100.0
    assert result["metrics"]["Validation/MSE Loss"] == 1.0
    assert result["groups"][1]["norm_heads"] == []


def test_result_groups_are_in_mixture_order():
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
    metrics = result["metrics"]
    assert metrics["Validation/by_dataset/a/Loss"] == metrics["Validation/franka::joint/Loss"] == 1
    assert metrics["Validation/by_dataset/c/Loss"] == 5.5
    # Weighted over the heads' totals: franka::joint weighs 2 and has no CE.
    assert metrics["Validation/Loss"] == result["aggregate"]["total"] == (2 * 1 + 1 * 5.5) / 3
    assert [head["total"] for head in result["norm_heads"]] == [1.0, 5.5]


def test_result_without_loss_weights_the_metrics_have_trainings_default_total():
    losses = losses_of((0, "a", "joint", 1.0)).update(
        dataset_index=[0], dataset=["a"], losses={"CE": ([6.0], [2]), "L1": ([8.0], [2])}
    )
    result = losses.result()
    assert result["metrics"] == {
        f"Validation/{place}{name}": value
        for place in ("0/", "by_dataset/a/", "")
        for name, value in {"MSE Loss": 1.0, "CE Loss": 3.0, "L1 Loss": 4.0, "Loss": 4.0}.items()
    }
    assert "total" not in result["aggregate"]


def test_result_several_modes_of_a_dataset_have_keys_of_their_own():
    result = losses_of(
        (0, "x", "y/m", 1.0), (0, "x", "n", 3.0), (0, "x/y", "m", 2.0), (0, "x/y", "n", 2.0)
    ).result()
    assert result["metrics"]["Validation/by_control_mode/x/y%2Fm/MSE Loss"] == 1.0
    assert result["metrics"]["Validation/by_control_mode/x/y/m/MSE Loss"] == 2.0
    assert result["metrics"]["Validation/by_dataset/x/MSE Loss"] == 2.0


def test_result_places_in_the_mixture_equal_names():
    names = list(HEADS.dataset_to_norm_index)
    rows = [(1, "c", "ee", 7.0), (0, "b", "joint", 2.0), (0, "a", None, 1.0)]
    placed = [(row, names.index(name), mode, value) for row, name, mode, value in rows]
    weights = [0.1, 0.2, 0.7, 5.0]
    by_place = losses_of(*placed)
    by_name = losses_of(*rows)
    assert by_place.result(heads=HEADS, weights=weights) == by_name.result(
        heads=HEADS, weights=weights
    )
    both = losses_of(*placed).merge(by_name.state())
    assert [g["samples"] for g in both.result(heads=HEADS)["groups"]] == [2, 2, 2]
    assert "Validation/by_dataset/2/MSE Loss" in losses_of(*placed).result()["metrics"]


def test_result_place_beyond_the_heads_is_data_error():
    with pytest.raises(DataError, match="no dataset 4 among the 4"):
        losses_of((0, 4, None, 1.0)).result(heads=HEADS)


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
