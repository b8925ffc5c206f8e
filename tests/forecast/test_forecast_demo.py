"""`forecast` on the whole demo mixture: every fault in every dataset, under stats of any origin."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import copy_real
from stats_files import (
    lerobot_checkpoint,
    lerobot_stats,
    openpi_stats,
    rlds_statistics,
    write_json,
)
from typer.testing import CliRunner

from opentau_prep.cli.app import app
from opentau_prep.config.load import load_mixture
from opentau_prep.context import RunContext
from opentau_prep.demo.mixture import DEMO_DATASETS, mixture_json, write_demo, write_demo_dataset
from opentau_prep.demo.spec import EpisodeData, demo_episodes
from opentau_prep.forecast import ForecastOptions, load_stats_source, make_forecast
from opentau_prep.forecast.members import read_members
from opentau_prep.forecast.prepare import forecast_members
from opentau_prep.metadata.resolve import resolve_mixture

CODES = {
    "degrees": "P005",
    "offset": "P006",
    "flipped_sign": "P007",
    "dim_order": "P008",
    "inverted": "P009",
    "padding": "P010",
    "collapsed": "P002",
}
FAULTS = ("right", *CODES)
FEATURES = ("state", "actions")
WRITERS = {
    "LeRobot stats": lambda folder, columns: lerobot_stats(folder / "stats.json", columns),
    "openpi norm stats": lambda folder, columns: openpi_stats(folder / "norm_stats.json", columns),
    "RLDS statistics": lambda folder, columns: rlds_statistics(
        folder / "dataset_statistics.json", {"only": columns}
    ),
    "LeRobot checkpoint": lambda folder, columns: lerobot_checkpoint(folder, columns),
}


def columns_of(episodes):
    return {
        "state": np.concatenate([e.state for e in episodes]),
        "actions": np.concatenate([e.actions for e in episodes]),
    }


def plant(fault, robot, episodes):
    """Return the episodes with a fault, and its dims.

    Dims are those that a person would see it in: the second joint of an arm has its home away from
    zero, but the second of a pose is even about zero, and looks the same negated.
    """
    arm = robot.names.index("joint_1") if "base_vx" in robot.names else 0
    gripper = robot.grippers[-1]
    joint = 4 if robot.names[0] == "x" else arm + 1
    whole = np.concatenate([e.state for e in episodes])
    ends = whole[:, gripper].min() + whole[:, gripper].max()
    angles = [
        d
        for d, name in enumerate(robot.names)
        if d not in robot.grippers and name not in ("x", "y", "z") and not name.startswith("base_")
    ]

    def change(values):
        out = values.astype(np.float64)
        if fault == "degrees":
            out[:, angles] *= 180 / np.pi
        elif fault == "offset":
            out[:, joint] += 1.5
        elif fault == "flipped_sign":
            out[:, joint] *= -1
        elif fault == "dim_order":
            out[:, [arm, arm + 1]] = out[:, [arm + 1, arm]]
        elif fault == "inverted":
            out[:, gripper] = ends - out[:, gripper]
        elif fault == "padding":
            out[:, arm + 2] = 0
        return out.astype(np.float32)

    dims = {
        "right": (),
        "degrees": tuple(angles),
        "dim_order": (arm, arm + 1),
        "inverted": (gripper,),
        "padding": (arm + 2,),
    }.get(fault, (joint,))
    changed = [EpisodeData(change(e.state), change(e.actions), e.task_index) for e in episodes]
    if fault == "collapsed":  # in the stats too: q01 = q99 = 0, and a rare 1 or -1
        for episode in changed:
            episode.state[:, joint] = episode.actions[:, joint] = 0
        for episode in (changed[0], changed[-1]):
            episode.state[3, joint] = episode.actions[3, joint] = 1
            episode.state[5, joint] = episode.actions[5, joint] = -1
    return changed, dims


def entries_of(dataset, **fields):
    """Return the demo's entries of a dataset."""
    found = []
    for entry in mixture_json()["datasets"]:
        if entry["root"].endswith(dataset.repo_id):
            entry.pop("$ref", None)
            found.append({"repo_id": dataset.repo_id, **entry, **fields})
    return found


def selected(entry, dims):
    """Return the places of a robot's dims in what the mixture selects of them."""
    index = entry.get("state_index")
    return dims if index is None else tuple(index.index(d) for d in dims)


def judge(mixture: Path, stats: Path | None, **options):
    resolved = resolve_mixture(load_mixture(mixture))
    return make_forecast(resolved, RunContext(workers=1), ForecastOptions(stats, **options))


def named(member):
    return {(f.code, f.kind, f.feature, f.dims) for f in member.findings}


def wanted(fault, entry, dims):
    if fault == "right":
        return set()
    return {(CODES[fault], fault, feature, selected(entry, dims)) for feature in FEATURES}


def write_faulty(folder: Path, faults):
    """Write the demo mixture with a fault per dataset; return it, and what must be found."""
    expected, entries = {}, []
    right = {}
    for dataset, fault in zip(DEMO_DATASETS, faults, strict=True):
        episodes, dims = plant(fault, dataset.robot, demo_episodes(dataset))
        write_demo_dataset(folder, dataset, episodes)
        clean = episodes if fault == "collapsed" else demo_episodes(dataset)
        right[dataset.repo_id.rpartition("/")[2]] = columns_of(clean)
        found = entries_of(dataset)
        for number, entry in enumerate(found):
            name = dataset.repo_id + (f"#{number}" if len(found) > 1 else "")
            expected[name] = wanted(fault, entry, dims)
        entries += found
    mixture = write_json(folder / "mixture.json", {"datasets": entries, "weights": None})
    return mixture, expected, right


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The demo after `stats` and `heads`."""
    path = write_demo(tmp_path_factory.mktemp("clean") / "demo")
    for command in ("stats", "heads"):
        made = CliRunner().invoke(app, [command, "--mixture-json", str(path), "--workers", "1"])
        assert made.exit_code == 0, made.output
    return path


@pytest.mark.parametrize("deep", [False, True])
def test_clean_demo_raises_no_alarm_with_the_numbers_of_its_own_heads(clean, deep):
    heads = clean.with_suffix(".prep") / "norm_heads.json"
    for stats in (None, heads):
        made = judge(clean, stats, deep=deep)
        assert [f.message for f in made.findings] == []
        assert made.verdict == "reuse"


@pytest.mark.parametrize(
    "turn", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 8))]
)
def test_every_dataset_of_the_demo_has_another_fault_and_each_is_named(tmp_path, turn):
    faults = [FAULTS[(i + turn) % len(FAULTS)] for i in range(len(DEMO_DATASETS))]
    mixture, expected, right = write_faulty(tmp_path, faults)
    stats = rlds_statistics(tmp_path / "dataset_statistics.json", right)
    made = judge(mixture, stats, normalization="quantile", formula="openpi")
    assert {member.dataset: named(member) for member in made.members} == expected
    for member in made.members:
        assert (member.verdict == "reuse") is (not expected[member.dataset])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("origin", "sketches"),
    [
        ("LeRobot stats", False),
        ("openpi norm stats", False),
        ("openpi norm stats", True),
        ("RLDS statistics", True),
        ("LeRobot checkpoint", False),
        ("norm heads", True),
    ],
)
@pytest.mark.parametrize("dataset", DEMO_DATASETS, ids=lambda dataset: dataset.repo_id)
def test_every_fault_of_a_dataset_is_named_under_stats_of_any_origin(
    tmp_path, clean, dataset, sketches, origin
):
    right = columns_of(demo_episodes(dataset))
    for fault in FAULTS:
        if fault == "collapsed" and origin == "norm heads":
            continue  # the clean demo's ranges have not collapsed
        episodes, dims = plant(fault, dataset.robot, demo_episodes(dataset))
        columns = columns_of(episodes) if fault == "collapsed" else right
        folder = tmp_path / fault
        write_demo_dataset(folder, dataset, episodes)
        document = {"datasets": entries_of(dataset), "weights": None}
        mixture = write_json(folder / "mixture.json", document)
        if sketches:
            made = CliRunner().invoke(app, ["stats", "--mixture-json", str(mixture), "--force"])
            assert made.exit_code == 0, made.output
        if origin == "norm heads":
            stats, options = clean.with_suffix(".prep") / "norm_heads.json", {}
        else:
            stats = WRITERS[origin](folder / "stats", columns)
            options = {"normalization": "quantile"}
        if origin == "LeRobot checkpoint" and fault != "collapsed":
            options = {}
        for member, entry in zip(
            judge(mixture, stats, **options).members, document["datasets"], strict=True
        ):
            assert named(member) == wanted(fault, entry, dims), (fault, member.dataset)


def test_stats_of_every_other_robot_of_the_demo_are_of_the_wrong_one(tmp_path, clean):
    columns = {}
    for dataset in DEMO_DATASETS:
        (entry, *_) = entries_of(dataset)
        index = entry.get("state_index", slice(None))
        found = columns_of(demo_episodes(dataset))
        columns[dataset.repo_id] = {name: values[:, index] for name, values in found.items()}
    source = load_stats_source(rlds_statistics(tmp_path / "dataset_statistics.json", columns))
    members = read_members(resolve_mixture(load_mixture(clean)))
    robots = {dataset.repo_id: dataset.robot.names[-8:] for dataset in DEMO_DATASETS}
    for name in columns:
        for member in forecast_members(members, source, ForecastOptions(stats_key=name), ""):
            own = member.dataset.partition("#")[0]
            if robots[own] != robots[name]:
                assert member.verdict == "wrong robot", (own, name)
            elif own == name:
                assert member.verdict == "reuse"


def test_zeros_that_fill_a_dataset_up_to_a_model_s_width_are_padding(tmp_path):
    (dataset,) = (d for d in DEMO_DATASETS if d.repo_id == "demo/old_push")
    episodes = demo_episodes(dataset)
    stats = lerobot_stats(tmp_path / "stats.json", columns_of(episodes))
    wide = [
        EpisodeData(*(np.pad(v, ((0, 0), (0, 24))) for v in (e.state, e.actions)), e.task_index)
        for e in episodes
    ]
    robot = replace(dataset.robot, names=(*dataset.robot.names, *(f"d{i}" for i in range(24))))
    write_demo_dataset(tmp_path, replace(dataset, robot=robot), wide)
    mixture = write_json(tmp_path / "m.json", {"datasets": entries_of(dataset)})
    (member,) = judge(mixture, stats).members
    assert named(member) == {("P010", "padding", f, tuple(range(8, 32))) for f in FEATURES}


def test_stats_of_a_whole_column_are_selected_as_its_values_are(tmp_path):
    (dataset,) = (d for d in DEMO_DATASETS if d.repo_id == "demo/mobile_wipe")
    columns = columns_of(demo_episodes(dataset))
    write_demo_dataset(tmp_path, dataset)
    mixture = write_json(tmp_path / "m.json", {"datasets": entries_of(dataset)})
    for path in (
        lerobot_stats(tmp_path / "stats.json", columns),
        openpi_stats(tmp_path / "norm_stats.json", columns),
    ):
        made = judge(mixture, path)
        assert [f.message for f in made.findings] == []
        assert {len(mode.dims) for mode in made.members[0].modes} == {8}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["g1_pick_bottle", "so101_record_test"])
def test_published_datasets_with_what_our_own_commands_write_of_them(tmp_path, name):
    root = copy_real(name, tmp_path)
    mixture = write_json(tmp_path / "m.json", {"datasets": [{"repo_id": name, "root": str(root)}]})
    words = ["--mixture-json", str(mixture), "--workers", "1"]
    openpi = tmp_path / "openpi/norm_stats.json"
    for command in (
        ["stats", *words, "--published-stats", "replace"],
        ["heads", *words],
        ["stats", str(root), "--format", "openpi", "--action-dim", "32", "--out", str(openpi)],
    ):
        made = CliRunner().invoke(app, command)
        assert made.exit_code == 0, made.output
    for stats in (
        None,
        tmp_path / "m.prep/norm_heads.json",
        root / "meta/stats.json",
        root,
        openpi,
    ):
        for deep in (False, True):
            made = judge(mixture, stats, deep=deep)
            assert [f.message for f in made.findings] == [], stats
            assert made.verdict == "reuse"


def test_published_stats_as_they_come_raise_no_alarm(tmp_path):
    for name in ("g1_pick_bottle", "so101_record_test"):
        root = copy_real(name, tmp_path)
        resolved = resolve_mixture(
            load_mixture(
                write_json(
                    tmp_path / f"{name}.json", {"datasets": [{"repo_id": name, "root": str(root)}]}
                )
            )
        )
        for stats in (None, root):
            made = make_forecast(resolved, RunContext(), ForecastOptions(stats))
            assert [f.message for f in made.findings] == []


def test_own_heads_blame_the_dataset_that_the_audit_blames(tmp_path):
    # Two datasets of one arm, one in degrees: the pooled stats are nearer to the faulty one.
    pick, stack = DEMO_DATASETS[:2]
    episodes, dims = plant("degrees", stack.robot, demo_episodes(stack))
    write_demo_dataset(tmp_path, pick)
    write_demo_dataset(tmp_path, stack, episodes)
    entries = [*entries_of(pick), *entries_of(stack)]
    mixture = write_json(tmp_path / "m.json", {"datasets": entries, "weights": None})
    words = ["--mixture-json", str(mixture), "--workers", "1"]
    assert CliRunner().invoke(app, ["heads", *words]).exit_code == 0
    for stats in ([], ["--stats", str(tmp_path / "m.prep/norm_heads.json")]):
        made = CliRunner().invoke(app, ["forecast", *words, *stats, "--json"])
        assert made.exit_code == 1, made.output
        found = [f for d in json.loads(made.stdout)["datasets"] for f in d["findings"]]
        kinds = {(f["dataset"], f["kind"], f["feature"], tuple(f["dims"])) for f in found}
        blamed = {k for k in kinds if k[1] != "out of range" and k[1] != "unused range"}
        assert blamed == {("demo/arm6_stack", "degrees", f, dims) for f in FEATURES}
        # One warning of the head in `validate`, and no error that repeats it from the forecast.
        checked = CliRunner().invoke(app, ["validate", *words, "--select", "P,H", "--json"])
        codes = {f["code"] for f in json.loads(checked.stdout)["findings"]}
        assert "H007" in codes
        assert "P005" not in codes
