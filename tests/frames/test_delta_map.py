"""The delta maps of a mixture's robot datasets must be one: a policy undoes one."""

from __future__ import annotations

import pytest

from opentau_prep.config.schema import DatasetEntry
from opentau_prep.errors import ConfigError
from opentau_prep.frames.delta import mixture_delta_map


def entries(*fields):
    return [
        (f"d{i}", DatasetEntry.parse({"repo_id": f"d{i}", **each})) for i, each in enumerate(fields)
    ]


def delta(pairs, **fields):
    return {"use_delta_joint_actions": True, "delta_action_state_map": pairs, **fields}


def test_mixture_delta_map_absolute_everywhere_is_none():
    assert mixture_delta_map(entries({}, {"action_index": (1, 0)})) is None


def test_mixture_delta_map_layouts_that_select_to_one_map_agree():
    # Two layouts on disk: joints first and gripper first.
    same = entries(
        delta({"0": 0, "1": 1}),
        delta({"1": 2, "2": 3}, action_index=(1, 2, 0), state_index=(2, 3, 0, 1)),
    )
    assert mixture_delta_map([*same, ("clevr", DatasetEntry(vqa="clevr"))]) == {0: 0, 1: 1}


def test_mixture_delta_map_some_absolute_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"1 datasets use delta actions \(d1\) and 2 do not") as e:
        mixture_delta_map(entries({}, delta({"0": 0}), {}))
    assert "d0, d2" in str(e.value)


def test_mixture_delta_map_that_differs_after_selection_is_refused():
    pairs = {"0": 0, "1": 1}
    with pytest.raises(ConfigError, match=r"expected \{0: 0, 1: 1\}, as d0 has, found d1 \{1: 0"):
        mixture_delta_map(entries(delta(pairs), delta(pairs, action_index=(1, 0))))


@pytest.mark.parametrize("field", [{"state_index": (0,)}, {"action_index": (0,)}, delta({"0": 0})])
def test_vqa_entry_has_no_columns(field):
    with pytest.raises(ValueError, match="robot datasets only"):
        DatasetEntry.parse({"vqa": "clevr", **field})


def test_num_samples_is_of_vqa_entries():
    assert DatasetEntry.parse({"vqa": "clevr", "num_samples": 9}).num_samples == 9
    with pytest.raises(ValueError, match="vqa entries only"):
        DatasetEntry.parse({"repo_id": "a", "num_samples": 9})
