"""Grouped losses: taken apart correctly, and the same to the last bit however the samples come."""

import doctest
import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep import DataError, GroupedLosses, plan_validation
from opentau_prep.notices import collect_notices
from opentau_prep.val_loss import losses as losses_module

ADVERSARIAL = [1e16, 1.0, -1e16, 5e-324, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308,
               2.2250738585072014e-308, 0.1, -0.0, 1e-200, 3.0]  # fmt: skip


def samples(n, seed=0):
    """Return n samples of adversarial values over 4 datasets, 2 heads and masked modes."""
    rng = np.random.default_rng(seed)
    names = ["org/a", "org/b", "c#0", "c#1"]
    return [
        {
            "dataset": names[d],
            "row": [0, 0, 1, 1][d],
            "mode": None if masked else ["joint", "joint", "ee", "ee"][d],
            "MSE": (float(rng.choice(ADVERSARIAL)), float(rng.integers(1, 400))),
            "CE": (float(rng.normal()), float(rng.integers(0, 9))),
        }
        for d, masked in zip(rng.integers(0, 4, n).tolist(), rng.random(n) < 0.3, strict=True)
    ]


def feed(losses, batch, weights=None):
    return losses.update(
        weights=weights,
        dataset_index=[s["row"] for s in batch],
        dataset=[s["dataset"] for s in batch],
        control_mode=[s["mode"] for s in batch],
        losses={
            name: ([s[name][0] for s in batch], [s[name][1] for s in batch])
            for name in ("MSE", "CE")
        },
    )


def true_loss(chosen, name):
    """Return the correctly rounded loss of samples, by rational arithmetic."""
    total = sum((Fraction(s[name][0]) for s in chosen), Fraction(0))
    return float(total / sum(Fraction(s[name][1]) for s in chosen))


def one(**overrides):
    """Return update arguments of two samples."""
    arguments = {
        "dataset_index": [0, 0],
        "dataset": ["a", "a"],
        "control_mode": ["joint", "joint"],
        "losses": {"MSE": ([1.0, 2.0], [1, 1])},
    }
    return {**arguments, **overrides}


def metrics(losses, **known):
    return losses.result(**known)["metrics"]


def test_update_mixed_batch_is_taken_apart():
    losses = GroupedLosses()
    losses.update(
        dataset_index=[0, 1, 0, 0],
        dataset=["a", "c", "b", "a"],
        control_mode=["joint", "ee", "joint", "joint"],
        losses={"MSE": ([1.0, 10.0, 7.0, 2.0], [1, 4, 7, 5]), "CE": ([0, 6, 2, 0], [0, 2, 1, 0])},
    )
    found = metrics(losses)
    assert found["Validation/by_dataset/a/MSE Loss"] == 0.5
    assert found["Validation/by_dataset/b/MSE Loss"] == 1.0
    assert found["Validation/by_dataset/c/MSE Loss"] == 2.5
    assert found["Validation/0/MSE Loss"] == 10 / 13
    assert found["Validation/1/MSE Loss"] == 2.5
    assert found["Validation/by_dataset/c/CE Loss"] == 3.0
    assert "Validation/by_dataset/a/CE Loss" not in found  # nothing was counted: absent, not zero
    groups = {(g["dataset"], g["control_mode"]): g for g in losses.result()["groups"]}
    assert set(groups) == {("a", "joint"), ("b", "joint"), ("c", "ee")}
    assert groups["a", "joint"]["losses"]["MSE"] == {
        "loss": 0.5, "count": 6, "samples": 2, "non_finite": 0
    }  # fmt: skip
    assert groups["a", "joint"]["losses"]["CE"]["loss"] is None


def test_result_adversarial_values_equal_rational_arithmetic():
    chosen = samples(500)
    found = metrics(feed(GroupedLosses(), chosen))
    for name in ("MSE", "CE"):
        for dataset in ("org/a", "org/b", "c#0", "c#1"):
            expected = true_loss([s for s in chosen if s["dataset"] == dataset], name)
            assert found[f"Validation/by_dataset/{dataset}/{name} Loss"] == expected
        for row in (0, 1):
            expected = true_loss([s for s in chosen if s["row"] == row], name)
            assert found[f"Validation/{row}/{name} Loss"] == expected


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("shuffled", [False, True])
def test_result_any_ranks_batches_and_order_is_bit_identical(world_size, batch_size, shuffled):
    chosen = samples(130)
    whole = feed(GroupedLosses(), chosen)
    if shuffled:
        chosen = [chosen[i] for i in np.random.default_rng(9).permutation(len(chosen))]
    plan = plan_validation([len(chosen)], world_size=world_size, batch_size=batch_size)
    states = []
    for rank in range(world_size):
        mine = GroupedLosses()
        for batch, weights in zip(plan.batches(rank), plan.weights(rank), strict=True):
            feed(mine, [chosen[i] for i in batch], weights)
        states.append(json.loads(json.dumps(mine.state())))
    merged = GroupedLosses()
    for state in reversed(states):
        merged.merge(state)
    assert json.dumps(merged.result()) == json.dumps(whole.result())
    assert json.dumps(merged.state()) == json.dumps(whole.state())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_merge_any_partition_is_bit_identical(data):
    finite = st.floats(allow_nan=False, allow_infinity=False)
    values = data.draw(st.lists(finite, min_size=1, max_size=20))
    order = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))

    def losses_of(part):
        counts = [1.0] * len(part)
        return GroupedLosses().update(
            dataset_index=[0] * len(part), dataset=["d"] * len(part),
            control_mode=["m"] * len(part), losses={"MSE": (part, counts)},
        )  # fmt: skip

    merged = losses_of(order[cut:]).merge(losses_of(order[:cut]))
    assert merged.state() == losses_of(values).state()
    exact = sum(map(Fraction, values)) / len(values)
    assert merged.result()["metrics"]["Validation/by_dataset/d/MSE Loss"] == float(exact)


def test_result_one_small_value_between_cancelling_ones_survives():
    losses = GroupedLosses()
    for value in (1e16, 1.0, -1e16):
        losses.update(**one(losses={"MSE": ([value, 0.0], [0.5, 0.5])}))
    assert metrics(losses)["Validation/by_dataset/a/MSE Loss"] == 1 / 3


def test_result_sum_beyond_largest_float_still_has_its_mean():
    largest = 1.7976931348623157e308
    losses = GroupedLosses().update(**one(losses={"MSE": ([largest, largest], [1, 1])}))
    assert metrics(losses)["Validation/by_dataset/a/MSE Loss"] == largest


def test_result_mean_beyond_largest_float_is_written_as_text():
    losses = GroupedLosses().update(**one(losses={"MSE": ([1e308, 1e308], [0.25, 0.25])}))
    result = losses.result()
    assert result["groups"][0]["losses"]["MSE"]["loss"] == "Infinity"
    assert "Validation/by_dataset/a/MSE Loss" not in result["metrics"]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_update_non_finite_sample_is_left_out_and_reported(broken):
    losses = GroupedLosses()
    losses.update(**one(losses={"MSE": ([broken, 3.0], [1, 2]), "CE": ([4.0, 5.0], [broken, 1])}))
    losses.update(**one(dataset=["b", "b"], losses={"MSE": ([1.0, 1.0], [1, 1])}))
    with collect_notices() as said:
        result = losses.result()
    assert result["metrics"]["Validation/by_dataset/a/MSE Loss"] == 1.5
    assert result["metrics"]["Validation/by_dataset/a/CE Loss"] == 5.0
    assert result["metrics"]["Validation/by_dataset/b/MSE Loss"] == 1.0
    assert result["metrics"]["Validation/MSE Loss"] == 5 / 4
    counted = [g["losses"]["MSE"]["non_finite"] for g in result["groups"]]
    assert counted == [1, 0]
    assert result["aggregate"]["losses"]["MSE"]["non_finite"] == 1
    assert [(n.kind, n.dataset) for n in said] == [("non_finite_loss", "a")]
    assert said[0].details["non_finite"] == {"MSE": 1, "CE": 1}


def test_update_only_non_finite_samples_has_no_loss():
    losses = GroupedLosses().update(**one(losses={"MSE": ([math.nan] * 2, [1, 1])}))
    with collect_notices():
        result = losses.result()
    assert result["groups"][0]["losses"]["MSE"]["loss"] is None
    assert result["metrics"] == {}
    json.dumps(result, allow_nan=False)


def test_update_losses_in_separate_calls_do_not_double_samples():
    losses = GroupedLosses().update(**one())
    losses.update(**one(losses={"CE": ([1.0, 2.0], [1, 1])}))
    assert losses.result()["groups"][0]["samples"] == 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.bool_])
def test_update_numeric_dtypes_equal_lists(dtype):
    values = np.array([1, 0], dtype=dtype)
    array = GroupedLosses().update(**one(losses={"MSE": (values, values)}))
    plain = GroupedLosses().update(**one(losses={"MSE": ([1.0, 0.0], [1.0, 0.0])}))
    assert array.state() == plain.state()


def test_update_numpy_strings_and_indices_equal_lists():
    array = GroupedLosses().update(
        **one(
            dataset_index=np.array([0, 0], np.uint8),
            dataset=np.array(["a", "a"]),
            control_mode=np.array(["joint", None], dtype=object),
        )
    )
    assert array.state() == GroupedLosses().update(**one(control_mode=["joint", None])).state()


def test_update_torch_tensors_equal_lists():
    torch = pytest.importorskip("torch")
    sums, counts = torch.tensor([0.1, 2.0]), torch.tensor([1, 3])
    tensors = one(dataset_index=torch.tensor([0, 0]), losses={"MSE": (sums, counts)})
    plain = one(losses={"MSE": (np.array([0.1, 2.0], np.float32), [1, 3])})
    assert GroupedLosses().update(**tensors).state() == GroupedLosses().update(**plain).state()


@pytest.mark.parametrize("kind", ["grad", "bfloat16"])
def test_update_tensors_that_numpy_refuses_equal_lists(kind):
    torch = pytest.importorskip("torch")
    sums = torch.tensor([0.5, 2.0], requires_grad=kind == "grad")
    sums = sums.bfloat16() if kind == "bfloat16" else sums
    plain = GroupedLosses().update(**one(losses={"MSE": ([0.5, 2.0], [1, 1])}))
    assert GroupedLosses().update(**one(losses={"MSE": (sums, [1, 1])})).state() == plain.state()


def test_update_filler_rows_add_nothing():
    broken = one(losses={"MSE": ([1.0, math.nan], [1, 1])}, weights=np.array([1, 0], np.float32))
    alone = one(dataset_index=[0], dataset=["a"], control_mode=["joint"])
    plain = GroupedLosses().update(**{**alone, "losses": {"MSE": ([1.0], [1])}})
    assert GroupedLosses().update(**broken).state() == plain.state()
    filler = GroupedLosses().update(**one(weights=[0, 0]))
    assert filler.state()["cells"] == []


def test_update_values_changed_afterwards_do_not_count():
    sums = np.array([1.0, 2.0])
    losses = GroupedLosses().update(**one(losses={"MSE": (sums, np.ones(2))}))
    sums[:] = 100.0
    assert metrics(losses)["Validation/MSE Loss"] == 1.5


def test_update_buffer_full_or_not_gives_the_same_state(monkeypatch):
    chosen = samples(100)
    whole = feed(GroupedLosses(), chosen).state()
    monkeypatch.setattr(losses_module, "_MAX_BUFFERED", 7)
    losses = GroupedLosses()
    for start in range(0, 100, 3):
        feed(losses, chosen[start : start + 3])
        assert losses._n_buffered < 7
    assert losses.state() == whole


def test_update_means_is_the_aggregate_alone():
    losses = GroupedLosses().update(**one())
    losses.update_means({"L1": 2.0, "Accuracy": np.float32(0.5)})
    losses.merge(GroupedLosses().update_means({"L1": np.array([5.0]), "Accuracy": 1}).state())
    result = losses.result()
    assert result["metrics"]["Validation/L1 Loss"] == 3.5
    assert result["metrics"]["Validation/Accuracy"] == 0.75
    assert result["metrics"]["Validation/MSE Loss"] == result["metrics"]["Validation/Loss"] == 1.5
    assert result["groups"][0]["losses"].keys() == {"MSE"}
    assert result["aggregate"]["losses"]["L1"]["samples"] == 2


def test_update_means_alone_have_a_weighted_total():
    losses = GroupedLosses().update_means({"MSE": 1.0, "CE": 2.0}, samples=3)
    losses.update_means({"MSE": 5.0, "CE": 2.0}).update_means({"MSE": 9.0}, samples=0)
    found = losses.result(loss_weights={"MSE": 2, "CE": 10})["metrics"]
    assert found == {
        "Validation/MSE Loss": 2.0, "Validation/CE Loss": 2.0, "Validation/Loss": 24.0
    }  # fmt: skip


def test_update_means_of_a_loss_that_has_samples_is_data_error():
    losses = GroupedLosses().update(**one()).update_means({"MSE": 1.0})
    with pytest.raises(DataError, match="both per sample and as batch means"):
        losses.result()


@pytest.mark.parametrize("mean", [[1.0, 2.0], "x", None])
def test_update_means_malformed_mean_is_data_error(mean):
    losses = GroupedLosses()
    with pytest.raises(DataError, match="MSE"):
        losses.update_means({"MSE": mean})
    assert "batch_means" not in losses.state()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"dataset": ["a"]}, "dataset"),
        ({"dataset": "ab"}, "dataset"),
        ({"dataset": ["a", ""]}, "dataset"),
        ({"dataset": ["a", 3]}, "dataset"),
        ({"dataset": [0, -1]}, "dataset"),
        ({"dataset": [True, False]}, "dataset"),
        ({"weights": [1]}, "weights"),
        ({"weights": [1, 0.5]}, "weights"),
        ({"weights": [1, math.nan]}, "weights"),
        ({"dataset": ["a", 3.0]}, "dataset"),
        ({"control_mode": ["joint"]}, "control_mode"),
        ({"control_mode": ["joint", 4]}, "control_mode|string"),
        ({"dataset_index": [0, 0.5]}, "dataset_index"),
        ({"dataset_index": [0, -2]}, "dataset_index"),
        ({"dataset_index": [[0, 0]]}, "dataset_index"),
        ({"losses": {"MSE": ([1.0, 2.0],)}}, "MSE"),
        ({"losses": {"MSE": 3.0}}, "MSE"),
        ({"losses": {"MSE": ([1.0], [1, 1])}}, "MSE.*sums"),
        ({"losses": {"MSE": ([1.0, 2.0], [1, -1])}}, "negative"),
        ({"losses": {"MSE": (["x", "y"], [1, 1])}}, "MSE.*sums"),
        ({"losses": {"MSE": ([1j, 2j], [1, 1])}}, "MSE.*sums"),
        ({"losses": {"a/b": ([1.0, 2.0], [1, 1])}}, "a/b"),
        ({"losses": {"total": ([1.0, 2.0], [1, 1])}}, "total"),
        ({"losses": {"Loss": ([1.0, 2.0], [1, 1])}}, "Loss"),
        ({"losses": {"ok": ([1.0, 2.0], [1, 1]), "MSE": ([1.0], [1])}}, "MSE"),
    ],
)
def test_update_malformed_value_is_data_error_and_adds_nothing(changed, named):
    losses = GroupedLosses()
    with pytest.raises(DataError, match=named):
        losses.update(**one(**changed))
    assert losses.state()["cells"] == []
    # Nor when the batch before it, which is looked up faster, was sound.
    before = losses.update(**one()).state()
    with pytest.raises(DataError, match=named):
        losses.update(**one(**changed))
    assert losses.state() == before


def test_update_empty_batch_adds_nothing():
    empty = {"dataset_index": [], "dataset": [], "control_mode": [], "losses": {"MSE": ([], [])}}
    assert GroupedLosses().update(**empty).result()["metrics"] == {}


def test_state_size_depends_on_groups_alone():
    small, large = feed(GroupedLosses(), samples(200)), GroupedLosses()
    for seed in range(20):
        feed(large, samples(200, seed))
    assert len(json.dumps(large.state())) < 1.2 * len(json.dumps(small.state()))


def test_state_survives_json_and_pickle():
    losses = feed(GroupedLosses(), samples(50))
    reread = GroupedLosses.from_state(json.loads(json.dumps(losses.state(), allow_nan=False)))
    assert reread.result() == losses.result()
    assert pickle.loads(pickle.dumps(losses)).result() == losses.result()


def test_merge_leaves_the_other_untouched_and_works_on_itself():
    losses = GroupedLosses().update(**one())
    other = GroupedLosses().update(**one(dataset=["b", "b"]))
    before = other.state()
    losses.merge(other).merge(losses)
    assert other.state() == before
    assert [g["samples"] for g in losses.result()["groups"]] == [4, 4]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"schema_version": 2, "cells": []},
        {"schema_version": 1, "cells": [{"dataset": "a"}]},
        {"schema_version": 1, "cells": 3},
        {"schema_version": 1, "cells": [], "batch_means": {"MSE": 3}},
        {"schema_version": 1, "cells": [{"dataset": "a", "dataset_index": "0", "control_mode": None,
                                         "losses": {}}]},
        {"schema_version": 1, "cells": [{"dataset": "a", "dataset_index": 0, "control_mode": None,
                                         "losses": {"MSE": {"samples": 1, "non_finite": 2,
                                                            "sum": "0p0", "count": "0p0"}}}]},
    ],
)  # fmt: skip
def test_merge_malformed_state_is_data_error(broken):
    with pytest.raises(DataError, match="state"):
        GroupedLosses().merge(broken)


def test_docstring_example_holds():
    assert doctest.testmod(losses_module) == (0, 3)
