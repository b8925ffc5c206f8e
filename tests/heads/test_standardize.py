from __future__ import annotations

import copy

import numpy as np
import pytest
from golden_io import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.heads.standardize import is_camera_placeholder, raw_dims, standardize_stats
from opentau_prep.notices import collect_notices

NAME_MAP = {"state": "observation.state", "actions": "action", "prompt": "task"}
STATS = ("min", "max", "mean", "std", "q01")


def vector(n_dims, dtype=np.float64, **changes):
    entry = {s: (np.arange(n_dims) + 10 * i).astype(dtype) for i, s in enumerate(STATS)}
    return {**entry, "count": np.array([7]), **changes}


def dataset(n_state=4, n_actions=3, **more):
    return {"observation.state": vector(n_state), "action": vector(n_actions), **more}


def standardize(stats, **options):
    defaults = {"name_map": NAME_MAP, "max_state_dim": 6, "max_action_dim": 5, "repo_id": "org/d"}
    return standardize_stats(stats, **{**defaults, **options})


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_standardize_stats_selects_then_pads_every_stat(data):
    width = data.draw(st.integers(1, 6))
    columns = st.lists(st.integers(0, width - 1), unique=True, min_size=1)
    index = data.draw(st.none() | columns)
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.int64]))
    stats = dataset() | {"observation.state": vector(width, dtype)}
    result = standardize(stats, state_index=index)["state"]
    kept = list(range(width)) if index is None else index
    for stat in STATS:
        source = stats["observation.state"][stat]
        expected = [source[i] for i in kept] + [0] * (6 - len(kept))
        assert_same_bits(result[stat], np.array(expected, dtype=dtype))
    assert_same_bits(result["count"], np.array([7]))
    dims = raw_dims(stats, name_map=NAME_MAP, state_index=index)
    assert dims == (len(kept), 3)


def test_standardize_stats_keeps_only_cameras_below_num_cams():
    camera = {s: np.ones((3, 1, 1)) for s in STATS}
    names = {**NAME_MAP, "camera0": "cam0", "camera1": "cam1", "camera2": "gone"}
    result = standardize(dataset(cam0=camera, cam1=camera), name_map=names, num_cams=2)
    assert list(result) == ["state", "actions", "camera0", "camera1"]
    assert_same_bits(result["camera0"], camera)
    assert not is_camera_placeholder(result["camera0"])


def test_standardize_stats_missing_camera_gets_placeholder_with_count_of_state():
    stats = dataset()
    stats["action"]["count"] = np.array([99])
    camera = standardize(stats, num_cams=1)["camera0"]
    assert is_camera_placeholder(camera)
    values = {"min": 0, "max": 1, "mean": 0, "std": 0}
    expected = {s: np.full((3, 1, 1), v, np.float32) for s, v in values.items()}
    assert_same_bits(camera, {**expected, "count": np.array([7])})


def test_standardize_stats_never_changes_or_shares_padded_arguments():
    stats = dataset()
    before = copy.deepcopy(stats)
    standardize(stats, state_index=[2, 0])["state"]["mean"][:] = 5
    assert_same_bits(stats, before)


def test_standardize_stats_non_finite_is_told_and_kept():
    stats = dataset()
    stats["action"]["q01"] = np.array([1.0, np.nan, -np.inf])
    with collect_notices() as notices:
        result = standardize(stats)
    (notice,) = notices
    assert (notice.kind, notice.dataset, notice.feature) == ("non_finite", "org/d", "actions")
    assert (notice.details["stat"], notice.dims) == ("q01", (1, 2))
    assert_same_bits(result["actions"]["q01"], np.array([1.0, np.nan, -np.inf, 0, 0]))


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ([0, 4, 1, 9], r"\[4, 9\].* 4 \(0 to 3\)"),
        ([-1, 0], r"\[-1\]"),
        ([1, 2, 1, 2], r"\[1, 2\] more than once"),
        ([True], r"\[True\]"),
        ([1.0], r"\[1.0\]"),
        ([], "no column"),
    ],
)
def test_standardize_stats_unusable_index_names_columns_and_dataset(index, told):
    with pytest.raises(ConfigError, match=f"org/d: state_index.*{told}"):
        standardize(dataset(), state_index=index)
    with pytest.raises(ConfigError, match="action_index"):
        standardize(dataset(4, 4), action_index=index)


@pytest.mark.parametrize(("limit", "flag"), [("max_state_dim", "--max-state-dim"),
                                             ("max_action_dim", "--max-action-dim")])  # fmt: skip
def test_standardize_stats_wider_than_maximum_is_refused(limit, flag):
    with pytest.raises(ConfigError, match=r"has [34] dims, but the maximum is 2") as error:
        standardize(dataset(), **{limit: 2})
    assert error.value.where == "org/d"
    assert flag in str(error.value)


@pytest.mark.parametrize("column", ["observation.state", "action", "cam0"])
def test_standardize_stats_mapped_column_without_stats_is_named(column):
    stats = dataset(cam0={s: np.ones((3, 1, 1)) for s in STATS})
    del stats[column]
    with pytest.raises(MetadataError, match=f"org/d: .*'{column}'"):
        standardize(stats, name_map={**NAME_MAP, "camera0": "cam0"}, num_cams=1)


@pytest.mark.parametrize("feature", ["state", "actions"])
def test_standardize_stats_unmapped_vector_is_config_error(feature):
    names = {k: v for k, v in NAME_MAP.items() if k != feature}
    with pytest.raises(ConfigError, match=feature):
        standardize(dataset(), name_map=names)


@pytest.mark.parametrize(
    "changes",
    [
        {"max": np.zeros(5)},
        {"mean": np.zeros((2, 4))},
        {stat: np.float64(1.0) for stat in STATS},
        {"q01": np.array(["a"] * 4)},
        {"mean": [[1.0], [1.0, 2.0]]},
    ],
    ids=["widths differ", "axes differ", "no axis", "text", "ragged"],
)
def test_standardize_stats_stats_that_are_no_vectors_are_refused(changes):
    stats = dataset() | {"observation.state": vector(4, **changes)}
    with pytest.raises(MetadataError, match=r"org/d: .*'observation.state'"):
        standardize(stats)


def test_standardize_stats_per_step_pass_through_selected_and_padded():
    stats = dataset()
    rng = np.random.default_rng(0)
    stats["action"] = {stat: rng.random((5, 3)) for stat in STATS} | {"count": np.array([7])}
    actions = standardize(stats, action_index=[2, 0])["actions"]
    for stat in STATS:
        assert actions[stat].shape == (5, 5)
        assert_same_bits(actions[stat][:, :2], stats["action"][stat][:, [2, 0]])
        assert not actions[stat][:, 2:].any()
    assert raw_dims(stats, name_map=NAME_MAP) == (4, 3)


def test_standardize_stats_delta_stats_replace_own_without_selection():
    delta = {"actions": {s: np.array([1.0, 2.0]) for s in STATS} | {"count": np.array([70])}}
    result = standardize(dataset(), action_index=[2, 0], delta_stats=delta)
    assert_same_bits(result["actions"]["mean"], np.array([1.0, 2.0, 0.0, 0.0, 0.0]))
    assert_same_bits(result["actions"]["count"], np.array([70]))
    assert_same_bits(result["state"], standardize(dataset())["state"])


def test_standardize_stats_imagenet_replaces_four_stats_and_keeps_the_others():
    own = {s: np.full((3, 1, 1), 0.25) for s in (*STATS, "q01")} | {"count": np.array([9])}
    names = {**NAME_MAP, "camera0": "cam0", "camera1": "cam1"}
    stats = dataset(cam0=own)
    with pytest.raises(MetadataError, match="cam1"):
        standardize(stats, name_map=names, num_cams=2)
    found = standardize(stats, name_map=names, num_cams=3, use_imagenet_stats=True)
    values = {
        "min": [0, 0, 0],
        "max": [1, 1, 1],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    four = {s: np.array(v, dtype=np.float32).reshape(3, 1, 1) for s, v in values.items()}
    assert_same_bits(found["camera0"], {**own, **four})
    assert_same_bits(found["camera1"], four)
    assert is_camera_placeholder(found["camera2"])
