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
from opentau_prep.val_loss import accumulate

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


def feed(losses, batch):
    return losses.update(
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
    assert found["Validation/a/joint/MSE"] == 0.5
    assert found["Validation/b/joint/MSE"] == 1.0
    assert found["Validation/c/ee/MSE"] == 2.5
    assert found["ValidationHead/0/MSE"] == 10 / 13
    assert found["ValidationHead/1/MSE"] == 2.5
    assert found["Validation/c/ee/CE"] == 3.0
    assert "Validation/a/joint/CE" not in found  # nothing was counted: absent, not zero
    groups = {(g["dataset"], g["control_mode"]): g for g in losses.result()["groups"]}
    assert set(groups) == {("a", "joint"), ("b", "joint"), ("c", "ee")}
    assert groups["a", "joint"]["losses"]["MSE"] == {
        "loss": 0.5, "count": 6, "samples": 2, "non_finite": 0
    }  # fmt: skip
    assert groups["a", "joint"]["losses"]["CE"]["loss"] is None


def test_result_adversarial_values_equal_rational_arithmetic():
    chosen = samples(500)
    found = metrics(feed(GroupedLosses(), chosen))
    modes = {"org/a": "joint", "org/b": "joint", "c#0": "ee", "c#1": "ee"}
    for name in ("MSE", "CE"):
        for dataset, mode in modes.items():
            expected = true_loss([s for s in chosen if s["dataset"] == dataset], name)
            assert found[f"Validation/{dataset}/{mode}/{name}"] == expected
        for row in (0, 1):
            expected = true_loss([s for s in chosen if s["row"] == row], name)
            assert found[f"ValidationHead/{row}/{name}"] == expected


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
        for batch in plan.batches(rank):
            feed(mine, [chosen[i] for i in batch])
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
    assert merged.result()["metrics"]["Validation/d/m/MSE"] == float(exact)


def test_result_one_small_value_between_cancelling_ones_survives():
    losses = GroupedLosses()
    for value in (1e16, 1.0, -1e16):
        losses.update(**one(losses={"MSE": ([value, 0.0], [0.5, 0.5])}))
    assert metrics(losses)["Validation/a/joint/MSE"] == 1 / 3


def test_result_sum_beyond_largest_float_still_has_its_mean():
    largest = 1.7976931348623157e308
    losses = GroupedLosses().update(**one(losses={"MSE": ([largest, largest], [1, 1])}))
    assert metrics(losses)["Validation/a/joint/MSE"] == largest


def test_result_mean_beyond_largest_float_is_told_in_text():
    losses = GroupedLosses().update(**one(losses={"MSE": ([1e308, 1e308], [0.25, 0.25])}))
    result = losses.result()
    assert result["groups"][0]["losses"]["MSE"]["loss"] == "Infinity"
    assert "Validation/a/joint/MSE" not in result["metrics"]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_update_non_finite_sample_is_left_out_and_reported(broken):
    losses = GroupedLosses()
    losses.update(**one(losses={"MSE": ([broken, 3.0], [1, 2]), "CE": ([4.0, 5.0], [broken, 1])}))
    losses.update(**one(dataset=["b", "b"], losses={"MSE": ([1.0, 1.0], [1, 1])}))
    with collect_notices() as said:
        result = losses.result()
    assert result["metrics"]["Validation/a/joint/MSE"] == 1.5
    assert result["metrics"]["Validation/a/joint/CE"] == 5.0
    assert result["metrics"]["Validation/b/joint/MSE"] == 1.0
    assert result["metrics"]["Validation/MSE"] == 5 / 4
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
def test_update_unreadable_tensor_is_data_error_with_hint(kind):
    torch = pytest.importorskip("torch")
    bad = torch.ones(2, requires_grad=True) if kind == "grad" else torch.ones(2).bfloat16()
    with pytest.raises(DataError, match=r"detach\(\)"):
        GroupedLosses().update(**one(losses={"MSE": (bad, [1, 1])}))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"dataset": ["a"]}, "dataset"),
        ({"dataset": "ab"}, "dataset"),
        ({"dataset": ["a", ""]}, "dataset"),
        ({"dataset": ["a", 3]}, "dataset"),
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
        ({"losses": {"ok": ([1.0, 2.0], [1, 1]), "MSE": ([1.0], [1])}}, "MSE"),
    ],
)
def test_update_malformed_value_is_data_error_and_adds_nothing(changed, named):
    losses = GroupedLosses()
    with pytest.raises(DataError, match=named):
        losses.update(**one(**changed))
    assert losses.state()["cells"] == []


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
    assert doctest.testmod(accumulate) == (0, 3)
