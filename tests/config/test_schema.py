"""The schema: each rule from both sides, and what its faults say."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opentau_prep import ConfigError, load_mixture
from opentau_prep.config.schema import DatasetEntry, Mixture

Load = Callable[[Any], Mixture]
Refuse = Callable[[Any], str]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_content(content: Any) -> Mixture:
        (tmp_path / "m.json").write_text(json.dumps(content))
        return load_mixture(tmp_path / "m.json")

    return load_content


@pytest.fixture
def refuse(load: Load) -> Refuse:
    """Return the one fault of a mixture as `JSON path: message`."""

    def error_of(content: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            load(content)
        text = str(caught.value)
        assert "\n" not in text, text
        return text.split("m.json: ", 1)[1]

    return error_of


def entry(**fields: Any) -> dict[str, Any]:
    return {"datasets": [{"repo_id": "org/a", **fields}]}


def mixture(**fields: Any) -> dict[str, Any]:
    return {"datasets": [{"repo_id": "org/a"}, {"repo_id": "org/b"}], **fields}


def test_mixture_minimal_has_the_documented_defaults(load: Load) -> None:
    loaded = load({"datasets": [{"repo_id": "org/a"}]})
    assert loaded.weights is None
    assert loaded.action_freq is None
    assert loaded.vector_resample_strategy == loaded.image_resample_strategy == "nearest"
    assert loaded.val_split_ratio == 0.05
    assert loaded.tolerance_s == 1e-4
    assert loaded.delta_stats_max_rows is None
    assert not loaded.require_non_empty_robot_type
    assert not loaded.require_non_empty_control_mode
    assert not loaded.skip_timestamp_check
    assert loaded.ignored_fields == ()
    only = loaded.datasets[0]
    assert (only.id, only.repo_id, only.vqa, only.is_vqa) == ("org/a", "org/a", None, False)
    assert only.robot_type is only.control_mode is only.episodes is only.root is None
    assert only.use_delta_joint_actions is False


def test_dataset_entry_full_is_kept_as_given(load: Load) -> None:
    fields = {
        "root": "../data/a b",
        "revision": "refs/pr/1",
        "episodes": [5, 1, 3],
        "excluded_episodes": [3, 3],
        "data_features_name_mapping": {"camera12": "cam", "state": "s", "actions": "a"},
        "robot_type": "",
        "control_mode": " Joint ",
        "tolerance_s": 0,
        "skip_timestamp_check": True,
        "val_split_ratio": 0,
        "state_index": [3, 0, 1],
        "action_index": [0],
        "use_delta_joint_actions": True,
        "delta_action_state_map": {"0": 0, "10": 2},
        "stats": {"s": {"mean": [0.5, 1], "count": [3], "image": [[[1]], [[2]]]}},
    }
    got = load(entry(**fields)).datasets[0]
    assert got.episodes == (5, 1, 3)
    assert got.excluded_episodes == (3, 3)
    assert got.state_index == (3, 0, 1)
    assert got.action_index == (0,)
    assert got.delta_action_state_map == {0: 0, 10: 2}
    assert (got.robot_type, got.control_mode) == ("", " Joint ")
    assert got.tolerance_s == 0.0
    unchanged = set(fields) - {
        "episodes",
        "excluded_episodes",
        "state_index",
        "action_index",
        "delta_action_state_map",
    }
    for name in unchanged:
        assert getattr(got, name) == fields[name], name


BAD_ENTRIES: list[tuple[dict[str, Any], str]] = [
    ({"repo_id": None}, "datasets[0]: found neither of repo_id and vqa"),
    ({"vqa": "clevr"}, "datasets[0]: found both of repo_id and vqa"),
    ({"repo_id": 3}, "datasets[0].repo_id: found 3, expected a string"),
    ({"repo_id": ""}, "datasets[0].repo_id: must not be empty"),
    ({"repo_id": "../x"}, "would leave the cache folder"),
    ({"repo_id": "a/../../x"}, "would leave the cache folder"),
    ({"repo_id": ".."}, "would leave the cache folder"),
    ({"repo_id": "./x"}, "would leave the cache folder"),
    ({"repo_id": "/etc"}, "an absolute path"),
    ({"repo_id": "C:/data"}, "an absolute path"),
    ({"repo_id": "a\\..\\b"}, "backslash"),
    ({"repo_id": "a//b"}, "an empty part"),
    ({"repo_id": "a/b/"}, "an empty part"),
    ({"repo_id": "a\nb"}, "control character"),
    ({"repo_id": "a\u0000"}, "control character"),
    ({"repo_id": "a\u2028b"}, "line break"),
    ({"repo_id": "a\u009bb"}, "control character"),
    ({"repo_id": "x" * 300}, "longer than a folder name"),
    ({"revision": "../main"}, "datasets[0].revision: found"),
    ({"root": ""}, "datasets[0].root: must not be empty"),
    ({"root": "a\u0000"}, "datasets[0].root: found"),
    ({"root": ["a"]}, 'datasets[0].root: found ["a"], expected a string'),
    ({"episodes": [0, "1"]}, 'datasets[0].episodes[1]: found "1", expected a whole number'),
    ({"episodes": [True]}, "datasets[0].episodes[0]: found true, expected a whole number"),
    ({"episodes": [1.0]}, "datasets[0].episodes[0]: found 1.0, expected a whole number"),
    ({"episodes": [-1]}, "datasets[0].episodes[0]: found -1, expected a number of at least 0"),
    ({"episodes": [2**31]}, "expected a number below 2147483648"),
    ({"episodes": [10**400]}, "expected a number below 2147483648"),
    ({"episodes": [4, 4]}, "datasets[0].episodes: found [4] more than once"),
    ({"episodes": []}, "datasets[0].episodes: found an empty list"),
    ({"episodes": "0"}, 'datasets[0].episodes: found "0", expected a list'),
    ({"episodes": {"0": 1}}, 'datasets[0].episodes: found {"0": 1}, expected a list'),
    ({"episodes": 3}, "datasets[0].episodes: found 3, expected a list"),
    ({"excluded_episodes": [None]}, "excluded_episodes[0]: found null, expected a whole number"),
    ({"state_index": [1, 2, 1]}, "datasets[0].state_index: found [1] more than once"),
    ({"action_index": [-1]}, "datasets[0].action_index[0]: found -1"),
    ({"tolerance_s": -1e-9}, "datasets[0].tolerance_s: found -1e-09, expected a number of at"),
    ({"tolerance_s": float("nan")}, "found NaN, expected a finite number"),
    ({"tolerance_s": float("inf")}, "found Infinity, expected a finite number"),
    ({"tolerance_s": True}, "found true, expected a number"),
    ({"tolerance_s": 10**400}, "datasets[0].tolerance_s: found 1000"),
    ({"skip_timestamp_check": 1}, "found 1, expected true or false"),
    ({"val_split_ratio": 1}, "datasets[0].val_split_ratio: found 1, expected a number below 1"),
    ({"val_split_ratio": -0.1}, "expected a number of at least 0"),
    ({"robot_type": 7}, "datasets[0].robot_type: found 7, expected a string"),
    ({"use_delta_joint_actions": "yes"}, 'found "yes", expected true or false'),
    ({"use_delta_joint_actions": True}, "delta_action_state_map: missing"),
    (
        {"use_delta_joint_actions": True, "delta_action_state_map": {}},
        "datasets[0].delta_action_state_map: missing",
    ),
    (
        {"delta_action_state_map": {"0": 0}},
        "datasets[0].delta_action_state_map: has no effect unless use_delta_joint_actions",
    ),
    *(
        (
            {"use_delta_joint_actions": True, "delta_action_state_map": {key: 0}},
            "expected an action dim",
        )
        for key in ["a", "", "-1", " 1", "01", "1.0", "1_0", "\u0661", "9" * 30]
    ),
    (
        {"use_delta_joint_actions": True, "delta_action_state_map": {"0": -1}},
        'datasets[0].delta_action_state_map["0"]: found -1',
    ),
    ({"use_delta_joint_actions": True, "delta_action_state_map": [0]}, "expected an object"),
    ({"stats": {"s": [1]}}, "datasets[0].stats.s: found [1], expected an object"),
    ({"stats": {"s": {"mean": "1"}}}, 'datasets[0].stats.s.mean: found "1", expected a number'),
    ({"stats": {"s": {"mean": [10**400]}}}, "a number that no array holds"),
    ({"stats": {"s": {"mean": [1, True]}}}, "found true, expected a number"),
    ({"stats": {"s": {"mean": [[1], [1, 2]]}}}, "lists of different lengths"),
    ({"stats": {"s": {"mean": [1, [1]]}}}, "lists of different lengths"),
]


@pytest.mark.parametrize(("fields", "words"), BAD_ENTRIES, ids=lambda value: str(value)[:60])
def test_dataset_entry_bad_value_is_one_fault(
    refuse: Refuse, fields: dict[str, Any], words: str
) -> None:
    assert words in refuse(entry(**fields))


BAD_MIXTURES: list[tuple[dict[str, Any], str]] = [
    ({"datasets": []}, "datasets: found an empty list, expected at least one dataset"),
    ({"datasets": {}}, "datasets: found {}, expected a list"),
    ({"datasets": None}, "datasets: found null, expected a list"),
    ({"datasets": ["org/a"]}, 'datasets[0]: found "org/a", expected an object'),
    (mixture(weights=[1]), "weights: found 1 weights for 2 datasets"),
    (mixture(weights=[]), "weights: found 0 weights for 2 datasets"),
    (mixture(weights=[0, 0.0]), "weights: found only zeros"),
    (mixture(weights=[1, -1]), "weights[1]: found -1, expected a number of at least 0"),
    (mixture(weights=[1, float("inf")]), "weights[1]: found Infinity, expected a finite"),
    (mixture(weights=[1e308, 1e308]), "weights: found weights whose sum is not finite"),
    (mixture(weights=["1", 1]), 'weights[0]: found "1", expected a number'),
    (mixture(weights=[True, 1]), "weights[0]: found true, expected a number"),
    (mixture(weights=1), "weights: found 1, expected a list"),
    (mixture(action_freq=0), "action_freq: found 0, expected a number above 0"),
    (mixture(action_freq="30"), 'action_freq: found "30", expected a number'),
    (mixture(vector_resample_strategy="cubic"), 'found "cubic", expected "nearest" or "linear"'),
    (mixture(image_resample_strategy=None), 'found null, expected "nearest" or "linear"'),
    (mixture(image_resample_strategy=["nearest"]), 'expected "nearest" or "linear"'),
    (mixture(val_split_ratio=1.5), "val_split_ratio: found 1.5, expected a number below 1"),
    (mixture(tolerance_s=-1), "tolerance_s: found -1"),
    (mixture(require_non_empty_robot_type="no"), "expected true or false"),
    (mixture(delta_stats_max_rows=0), "delta_stats_max_rows: found 0, expected a number above 0"),
]


@pytest.mark.parametrize(("content", "words"), BAD_MIXTURES, ids=lambda value: str(value)[:60])
def test_mixture_bad_value_is_one_fault(
    refuse: Refuse, content: dict[str, Any], words: str
) -> None:
    assert words in refuse(content)


@pytest.mark.parametrize(
    ("name", "tip"),
    [
        ("repo", 'the nearest known field is "repo_id"'),
        ("Robot_Type", 'the nearest known field is "robot_type"'),
        ("excluded_episode", 'the nearest known field is "excluded_episodes"'),
        ("stateindex", 'the nearest known field is "state_index"'),
        ("action_freq", '"action_freq" is a field of the mixture'),
        ("zzz", "known are repo_id, vqa, root"),
        ("", "known are repo_id"),
        ("[key]", "known are repo_id"),
        ("x" * 10_000, "known are repo_id"),
        ("\u001b[31m", "known are repo_id"),
    ],
)
def test_dataset_entry_unknown_field_names_the_nearest(refuse: Refuse, name: str, tip: str) -> None:
    text = refuse(entry(**{name: 1}))
    assert "unknown field" in text
    assert tip in text
    assert text.isprintable()


@pytest.mark.parametrize(
    ("name", "tip"),
    [
        ("weight", 'the nearest known field is "weights"'),
        ("val_split", 'the nearest known field is "val_split_ratio"'),
        ("repo_id", '"repo_id" is a field of the entries of datasets'),
        ("[key]", "known are datasets, weights"),
    ],
)
def test_mixture_unknown_field_names_the_nearest(refuse: Refuse, name: str, tip: str) -> None:
    assert tip in refuse(mixture(**{name: 1}))


@pytest.mark.parametrize(
    ("name", "tip"),
    [
        ("camera_0", 'the nearest is "camera0"'),
        ("camera00", 'the nearest is "camera0"'),
        ("action", 'the nearest is "actions"'),
        ("State", 'the nearest is "state"'),
        ("camera\u0661", 'the nearest is "camera'),
        ("observation.images.top", "known are camera0"),
    ],
)
def test_name_mapping_unknown_standard_name_names_the_nearest(
    refuse: Refuse, name: str, tip: str
) -> None:
    text = refuse(entry(data_features_name_mapping={name: "column"}))
    assert text.startswith("datasets[0].data_features_name_mapping")
    assert tip in text


def test_mixture_many_faults_are_all_told_count_first(load: Load, tmp_path: Path) -> None:
    content = {
        "datasets": [{"repo_id": 1}, {"repo": "x"}, {"repo_id": "a", "state_index": [0, -1, "x"]}],
        "weights": [1, 2],
        "nope": 1,
    }
    with pytest.raises(ConfigError) as caught:
        load(content)
    lines = str(caught.value).splitlines()
    file = str(tmp_path / "m.json")
    assert lines[0] == f"{file}: 7 faults"
    places = [line.removeprefix(f"{file}: ").split(": ")[0] for line in lines[1:]]
    assert sorted(places) == [
        "datasets[0].repo_id",
        "datasets[1]",
        "datasets[1].repo",
        "datasets[2].state_index[1]",
        "datasets[2].state_index[2]",
        "nope",
        "weights",
    ]


def test_mixture_hundreds_of_faults_are_cut_short(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"300 faults") as caught:
        load({"datasets": [{"repo_id": 1}] * 300})
    lines = str(caught.value).splitlines()
    assert len(lines) == 52
    assert lines[-1] == "and 250 more"


def test_mixture_fields_without_effect_are_taken_and_listed(load: Load) -> None:
    loaded = load(
        {
            "datasets": [
                {"repo_id": "a", "video_backend": 3},
                {"repo_id": "b", "video_backend": None, "image_transforms": {"any": [1]}},
            ],
            "emit_fps": "whatever",
            "n_obs_history": [None],
        }
    )
    assert loaded.ignored_fields == (
        "emit_fps",
        "n_obs_history",
        "datasets[].image_transforms",
        "datasets[].video_backend",
    )


def test_mixture_every_field_of_the_format_is_known() -> None:
    # Written out from the format's description, so that none can go missing unseen.
    mixture_fields = (
        "datasets weights action_freq vector_resample_strategy image_resample_strategy "
        "val_split_ratio require_non_empty_robot_type require_non_empty_control_mode tolerance_s "
        "skip_timestamp_check delta_stats_max_rows n_obs_history history_state_drop_prob "
        "subgoal_drop_prob subgoal_end_of_segment_prob response_drop_prob metadata_drop_all_prob "
        "metadata_drop_each_prob val_enable_optional_key_dropout val_enable_prompt_substitution "
        "emit_fps"
    )
    entry_fields = (
        "repo_id vqa root revision episodes excluded_episodes data_features_name_mapping "
        "robot_type control_mode tolerance_s skip_timestamp_check val_split_ratio state_index "
        "action_index use_delta_joint_actions delta_action_state_map stats use_imagenet_stats "
        "num_samples image_transforms video_backend prompt_substitutions"
    )
    assert set(Mixture.names()) == set(mixture_fields.split())
    assert set(DatasetEntry.names()) == set(entry_fields.split())
    assert Mixture.without_effect() == set(mixture_fields.split()[11:])
    assert DatasetEntry.without_effect() == set(entry_fields.split()[19:])


def test_mixture_is_frozen(load: Load) -> None:
    loaded = load(mixture())
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.weights = (1.0, 1.0)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.datasets[0].repo_id = "x"  # type: ignore[misc]


def test_mixture_survives_pickling_with_its_places(load: Load) -> None:
    loaded = load(mixture(weights=[1, 2]))
    copy = pickle.loads(pickle.dumps(loaded))
    assert copy == loaded
    assert copy.mixture_id == loaded.mixture_id
    assert copy.datasets[1].where("root") == loaded.datasets[1].where("root")


def test_mixture_vqa_entry_is_told_apart(load: Load) -> None:
    loaded = load({"datasets": [{"vqa": "clevr"}, {"repo_id": "a"}, {"vqa": "clevr"}]})
    assert [one.is_vqa for one in loaded.datasets] == [True, False, True]
    assert loaded.dataset_names == ("clevr#0", "a", "clevr#1")
