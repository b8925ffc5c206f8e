from __future__ import annotations

import pytest
from golden_io import golden_cases

from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.heads.keys import check_required_tags, compute_norm_key, group_by_key
from opentau_prep.notices import collect_notices


def info(robot_type="franka", control_mode="joint"):
    return {"robot_type": robot_type, "control_mode": control_mode}


@pytest.mark.parametrize("case", golden_cases("norm_key", section=None))
def test_compute_norm_key_golden_case_is_equal(case):
    key, fallback = compute_norm_key(
        case["robot_type"], case["control_mode"], case["fallback_name"]
    )
    assert {"key": key, "fallback": fallback} == case["expect"]


@pytest.mark.parametrize("tag", [5, ["franka"], True, {"a": 1}])
def test_compute_norm_key_tag_that_is_no_string_names_dataset(tag):
    with pytest.raises(MetadataError, match=r"^org/d: robot_type"):
        compute_norm_key(tag, "joint", "org/d")


def test_group_by_key_orders_by_first_appearance():
    groups = group_by_key(
        ["d0", "d1", "d2", "d3"], [info("z"), info("a"), info(None), info(" z", "joint\n")]
    )
    assert list(groups.members.items()) == [
        ("z::joint", ("d0", "d3")),
        ("a::joint", ("d1",)),
        ("d2", ("d2",)),
    ]
    assert groups.fallbacks == ("d2",)


def test_group_by_key_reports_fallbacks_once_with_ten_names():
    names = [f"org/d{i}" for i in range(14)]
    with collect_notices() as notices:
        group_by_key(names, [info("unknown")] * 13 + [None])
    (notice,) = notices
    assert notice.kind == "fallback_heads"
    assert notice.details["n"] == 14
    assert notice.details["shown"] == names[:10]
    assert notice.message.endswith("org/d9 and 4 more)")


def test_group_by_key_without_fallback_says_nothing():
    with collect_notices() as notices:
        group_by_key(["a", "b"], [info(), info()])
    assert notices == []


def test_group_by_key_colliding_names_are_all_named():
    # What "#N" suffixes make of the repo ids A, A, A#0.
    with pytest.raises(ConfigError, match="'A#0'") as error:
        group_by_key(["A#0", "A#1", "A#0", "B", "B"], [info()] * 5)
    assert "'B'" in str(error.value)
    assert "A#1" not in str(error.value)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_group_by_key_fallback_name_that_is_a_key_is_refused(order):
    datasets = [("franka::joint", info(None)), ("org/d1", info())]
    names, infos = zip(*(datasets[i] for i in order), strict=True)
    with pytest.raises(ConfigError, match="org/d1") as error:
        group_by_key(names, infos)
    assert error.value.where == "franka::joint"


def test_group_by_key_dataset_named_like_its_own_key_is_fine():
    groups = group_by_key(["franka::joint", "d1"], [info(), info()])
    assert groups.members == {"franka::joint": ("franka::joint", "d1")}


def test_group_by_key_one_key_for_different_tags_is_told():
    with collect_notices() as notices:
        groups = group_by_key(["d0", "d1", "d2"], [info("a::b", "c"), info("a", "b::c"), info()])
    assert groups.members["a::b::c"] == ("d0", "d1")
    (notice,) = notices
    assert notice.kind == "ambiguous_norm_key"
    assert notice.details["tags"] == [["a::b", "c"], ["a", "b::c"]]


def test_check_required_tags_lists_every_offender():
    infos = [info(), info(robot_type=" "), info(control_mode=None), info("", ""), None]
    names = ["ok", "blank", "no-mode", "neither", "nothing"]
    with pytest.raises(ConfigError) as error:
        check_required_tags(
            names,
            infos,
            require_non_empty_robot_type=True,
            require_non_empty_control_mode=True,
        )
    text = str(error.value)
    assert "blank (robot_type); no-mode (control_mode); neither (robot_type, control_mode)" in text
    assert "nothing (robot_type, control_mode)" in text
    assert "ok (" not in text


@pytest.mark.parametrize(
    ("required", "accepted"),
    [({}, True), ({"require_non_empty_robot_type": True}, True),
     ({"require_non_empty_control_mode": True}, False)],
)  # fmt: skip
def test_check_required_tags_asks_only_for_what_is_required(required, accepted):
    infos = [info(control_mode=None)]
    if accepted:
        check_required_tags(["d"], infos, **required)
        return
    with pytest.raises(ConfigError, match="require_non_empty_control_mode"):
        check_required_tags(["d"], infos, **required)


def test_check_required_tags_without_a_requirement_accepts_anything():
    check_required_tags(["d"], [None])


def test_check_required_tags_unknown_is_a_value():
    check_required_tags(["d"], [info("unknown")], require_non_empty_robot_type=True)
