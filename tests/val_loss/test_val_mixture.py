"""The validation pass of a mixture: the ranks' rows together are each dataset's subset."""

import json

import numpy as np
import pytest

from opentau_prep import ConfigError, DataError, train_val_split
from opentau_prep.notices import collect_notices
from opentau_prep.val_loss.mixture import ValidationSet, plan_mixture_validation

SETS = [ValidationSet("a", 100, 0.05), ValidationSet("b", 1000, 0.02), ValidationSet("c", 37, 0.5)]


@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_rows_of_all_ranks_are_each_datasets_subset(world_size):
    pass_ = plan_mixture_validation(SETS, world_size=world_size, batch_size=4, seed=5)
    found = {part.name: [] for part in SETS}
    for rank in range(world_size):
        mine = pass_.rows(rank)
        positions = np.array(pass_.batches(rank))[pass_.weights(rank) == 1]
        np.testing.assert_array_equal(positions, pass_.plan.indices(rank))
        assert sum(len(rows) for _, rows in mine) == len(pass_.plan.indices(rank))
        for name, rows in mine:
            found[name].append(rows)
    for part in SETS:
        expected = train_val_split(part.n_frames, part.val_split_ratio, 5)[1]
        np.testing.assert_array_equal(np.concatenate(found[part.name]), expected)


def test_plan_mixture_validation_rows_do_not_depend_on_other_datasets():
    alone = plan_mixture_validation(SETS[1:2], world_size=1, batch_size=4)
    together = plan_mixture_validation(SETS[::-1], world_size=1, batch_size=4)
    np.testing.assert_array_equal(alone.rows(0)[0][1], dict(together.rows(0))["b"])


def test_plan_mixture_validation_tiny_datasets_are_warned_of_once():
    tiny = [ValidationSet(f"tiny-{i}", 19, 0.05) for i in range(12)]
    with collect_notices() as said:
        pass_ = plan_mixture_validation([*tiny, *SETS], world_size=2, batch_size=4)
    assert [n.kind for n in said] == ["empty_validation_set"]
    assert "tiny-9 (19 frames) and 2 more" in said[0].message
    assert pass_.plan.total == 5 + 20 + 18


def test_as_json_names_datasets_with_offsets():
    document = plan_mixture_validation(SETS, world_size=2, batch_size=4, seed=3).as_json()
    assert json.loads(json.dumps(document)) == document
    assert document["seed"] == 3
    assert [(d["name"], d["samples"], d["offset"]) for d in document["datasets"]] == [
        ("a", 5, 0),
        ("b", 20, 5),
        ("c", 18, 25),
    ]
    assert document["total_samples"] == 43


def test_plan_mixture_validation_no_frames_at_all_is_data_error():
    with pytest.raises(DataError, match="val_split_ratio"):
        plan_mixture_validation([ValidationSet("a", 5, 0.1)], world_size=1, batch_size=1)


@pytest.mark.parametrize("bad", [ValidationSet("a", 5, 1.2), ValidationSet("a", -1, 0.2)])
def test_plan_mixture_validation_bad_set_is_config_error(bad):
    with pytest.raises(ConfigError, match="a"):
        plan_mixture_validation([bad], world_size=1, batch_size=1)


def test_plan_mixture_validation_shared_name_is_config_error():
    with pytest.raises(ConfigError, match="twice"):
        plan_mixture_validation([SETS[0], SETS[0]], world_size=1, batch_size=1)
