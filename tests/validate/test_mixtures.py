"""Rules on mixtures: each on a mixture of three clean datasets that is broken in one respect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from breaking import check_mixture, codes_of, mutation, write_broken, written

Entries = list[dict[str, Any]]
NAMES = ("a", "b", "c")
VERSIONS = ("v2.1", "v3.0", "v2.0")


def mixture_of(folder: Path, edit: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    entries = [{"repo_id": f"lab/{name}", "root": str(folder / name)} for name in NAMES]
    content: dict[str, Any] = {"datasets": entries, "weights": [1.0, 2.0, 3.0]}
    if edit is not None:
        edit(content)
    return content


def entry(number: int, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content["datasets"][number].update(values)


def top(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content.update(values)


def twice(content: dict[str, Any], **values: Any) -> None:
    content["datasets"].append({**content["datasets"][0], **values})
    content["weights"] = None


def twice_untagged(content: dict[str, Any]) -> None:
    content["datasets"][0].update(robot_type="", control_mode="", episodes=[0, 1, 2])
    twice(content, episodes=[3, 4, 5])


MIXTURES = [
    ("clean", "", None),
    ("unknown field", "M001", entry(1, robot="x")),
    ("both ids", "M001", entry(1, vqa="x")),
    ("flag without map", "M001", entry(0, use_delta_joint_actions=True)),
    ("too few weights", "M002", top(weights=[1.0, 2.0])),
    ("a negative weight", "M002", top(weights=[1.0, 2.0, -3.0])),
    ("weights of zero", "M002", top(weights=[0.0, 0.0, 0.0])),
    ("weights of text", "M002", top(weights=["1", "2", "3"])),
    ("one weight of zero", "M014", top(weights=[1.0, 0.0, 1.0])),
    ("a dataset that is nowhere", "M003", entry(1, root="/nowhere/at/all")),
    ("listed twice without tags", "H001 M004", twice_untagged),
    ("listed twice", "M009", twice),
    ("episode 99", "M005", entry(0, episodes=[1, 99])),
    ("nothing left", "M006 M007", entry(0, episodes=[1], excluded_episodes=[1])),
    ("overlap", "M007", entry(0, episodes=[1, 2], excluded_episodes=[2])),
    ("excludes episode 99", "M008", entry(0, excluded_episodes=[99])),
    (
        "camera that is none",
        "M010",
        entry(
            0,
            data_features_name_mapping={
                "state": "observation.state",
                "actions": "action",
                "camera0": "cam",
            },
        ),
    ),
    (
        "state that is none",
        "C002",
        entry(0, data_features_name_mapping={"state": "joints", "actions": "action"}),
    ),
    ("state dim 9", "M011", entry(0, state_index=[0, 9])),
    ("action dim 6", "M011", entry(2, action_index=[6])),
    (
        "delta of dim 8",
        "M012 M016",
        entry(0, use_delta_joint_actions=True, delta_action_state_map={"8": 0}),
    ),
    ("50 Hz of 10", "M013", top(action_freq=50.0)),
    (
        "one of three is relative",
        "M016",
        entry(0, use_delta_joint_actions=True, delta_action_state_map={"0": 0}),
    ),
    (
        "tag required",
        "H001 M015",
        lambda c: c.update(require_non_empty_control_mode=True) or entry(1, control_mode="")(c),
    ),
    ("widths differ in a head", "H003", entry(0, state_index=[0, 1])),
    ("a name like a key", "H001 H004", entry(0, repo_id="demo_arm6::joint", control_mode="")),
    (
        "names that collide",
        "H004",
        lambda c: [
            e.update(repo_id=n) for e, n in zip(c["datasets"], ("A", "A", "A#0"), strict=True)
        ],
    ),
    ("one tag taken off", "H001", entry(1, control_mode="unknown")),
    ("both tags taken off", "H001", entry(1, control_mode="", robot_type=" ")),
]


@pytest.mark.parametrize(("codes", "edit"), [m[1:] for m in MIXTURES], ids=[m[0] for m in MIXTURES])
def test_validate_broken_mixture_fires_its_rules_only(
    tmp_path: Path, datasets: Path, codes: str, edit: Any
) -> None:
    file = tmp_path / "mixture.json"
    file.write_text(json.dumps(mixture_of(datasets, edit)))

    report = check_mixture(file)

    told = [f"{f.code} {f.dataset} {f.place}: {f.message}" for f in report.findings]
    assert codes_of(report) == set(codes.split()), "\n".join(told)


def test_validate_faulty_mixture_still_checks_sound_entries(tmp_path: Path, datasets: Path) -> None:
    write_broken(tmp_path / "d", mutation("torn", "", files=written("meta/info.json", b"{")))
    content = mixture_of(datasets, top(weights=[1.0]))
    content["datasets"][0]["robot"] = "x"
    content["datasets"].append({"repo_id": "lab/d", "root": "d"})  # relative to the JSON file
    file = tmp_path / "mixture.json"
    file.write_text(json.dumps({"dataset_mixture": content}))

    report = check_mixture(file)

    assert [d.repo_id for d in report.datasets] == ["lab/b", "lab/c", "lab/d"]
    assert codes_of(report) == {"F001", "M001", "M002"}
    assert any("datasets[0].robot" in str(f.place) for f in report.findings)


def test_validate_wide_dataset_is_named(tmp_path: Path) -> None:
    import numpy as np
    from breaking import episode

    wide = episode(-1, state=lambda v: np.hstack([v * (1 + i / 9) for i in range(6)]))
    names = tuple(f"s{i}" for i in range(36))
    root = tmp_path / "wide"
    write_broken(root, mutation("wide", "", frames=wide, state_names=names))
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"datasets": [{"repo_id": "lab/wide", "root": str(root)}]}))

    assert codes_of(check_mixture(file)) == {"C012", "H005"}


def test_validate_audit_demo_names_the_planted_faults(tmp_path: Path) -> None:
    from opentau_prep.demo.mixture import write_demo

    report = check_mixture(write_demo(tmp_path / "demo", variant="audit"))

    misfits = [f.message for f in report.findings if f.code == "H007"]
    assert len(misfits) == 2
    assert "demo/audit_03" in misfits[0]
    assert "demo/audit_07" in misfits[1]


PLAN = {"world_size": 2, "batch_size": 4, "seed": 3}


@pytest.mark.parametrize(
    ("options", "seed", "message"),
    [
        ({}, 3, ""),
        ({"split": "episodes"}, 3, "whole episodes"),
        ({}, 4, "seed 3, the training config's seed is 4"),
        ({}, None, "seed 3, the training config's seed is 8675309"),
        ({"ratio": 0.3}, 3, "lab/a (0.3, now 0.05)"),
    ],
)
def test_validate_plan_of_other_rows_is_one_warning(
    tmp_path: Path, datasets: Path, options: dict[str, Any], seed: int | None, message: str
) -> None:
    from opentau_prep import load_mixture
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import resolve_mixture
    from opentau_prep.val_loss.prepare_plan import prepare_plan

    file = tmp_path / "mixture.json"
    file.write_text(json.dumps({"seed": seed, "dataset_mixture": mixture_of(datasets)}))
    resolved = resolve_mixture(load_mixture(file))
    out = tmp_path / "mixture.prep/val_plan.json"
    prepare_plan(resolved, RunContext(), out=out, **{**PLAN, **options})
    found = [f for f in check_mixture(file).findings if f.code == "M018"]
    assert len(found) == (1 if message else 0)
    assert all(message in f.message for f in found)
    moved = out.parent.rename(tmp_path / "moved")
    found = [f for f in check_mixture(file, prep_dir=moved).findings if f.code == "M018"]
    assert [message in f.message for f in found] == ([True] if message else [])
    assert all(f"--prep-dir {moved}" in str(f.command) for f in found)
    moved.rename(out.parent)
    out.write_text("{}")
    found = [f for f in check_mixture(file).findings if f.code == "M018"]
    assert ["not a validation plan" in f.message for f in found] == [True]
