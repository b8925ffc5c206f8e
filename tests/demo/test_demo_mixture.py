"""The demo mixture holds what it promises, and appears whole or not at all."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_runner import run_cli

from opentau_prep.demo import target
from opentau_prep.demo.mixture import DEMO_DATASETS, write_demo
from opentau_prep.errors import ArtifactError, ConfigError


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo; tests only read it."""
    return write_demo(tmp_path_factory.mktemp("demo") / "demo").parent


def files_of(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def entries_of(demo: Path) -> list[dict[str, Any]]:
    """The mixture's entries with their parts put in by hand."""
    entries = []
    for entry in json.loads((demo / "mixture.json").read_text())["datasets"]:
        part = entry.pop("$ref", None)
        base = json.loads((demo / part).read_text()) if part else {}
        entries.append(base | entry)
    return entries


def info_of(demo: Path, entry: dict[str, Any]) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((demo / entry["root"] / "meta/info.json").read_text())
    return info


def tags(demo: Path) -> list[tuple[Any, Any]]:
    out = []
    for entry in entries_of(demo):
        info = info_of(demo, entry)
        mode = entry.get("control_mode", info.get("control_mode"))
        out.append((info.get("robot_type"), mode))
    return out


def test_write_demo_covers_formats_robots_and_heads(demo: Path) -> None:
    entries = entries_of(demo)
    infos = {entry["repo_id"]: info_of(demo, entry) for entry in entries}
    assert len(infos) >= 6
    assert {info["codebase_version"] for info in infos.values()} == {"v2.0", "v2.1", "v3.0"}
    assert len({info["robot_type"] for info in infos.values()} - {None}) >= 3
    assert len({info["fps"] for info in infos.values()}) == len(infos)
    widths = {shape_of(info, "action", "actions") for info in infos.values()}
    assert widths >= {6, 7, 8, 14, 26}
    heads = tags(demo)
    assert {("demo_arm6", "joint"), ("demo_arm6", "ee")} <= set(heads)
    assert heads.count(("demo_arm6", "joint")) == 2
    assert heads.count((None, None)) == 1
    assert all(robot and mode for robot, mode in heads if (robot, mode) != (None, None))
    twice = [entry for entry in entries if entry["repo_id"] == "demo/bimanual_fold"]
    assert len(twice) == 2
    assert len(json.loads((demo / "mixture.json").read_text())["weights"]) == len(entries)


def shape_of(info: dict[str, Any], *names: str) -> int:
    (feature,) = (info["features"][name] for name in names if name in info["features"])
    width: int = feature["shape"][0]
    return width


def test_write_demo_selections_exist(demo: Path) -> None:
    for entry in entries_of(demo):
        info = info_of(demo, entry)
        named = {*entry.get("episodes", ()), *entry.get("excluded_episodes", ())}
        assert named <= set(range(info["total_episodes"]))
        assert not {*entry.get("episodes", ())} & {*entry.get("excluded_episodes", ())}
        for feature, key in (("observation.state", "state_index"), ("action", "action_index")):
            assert all(column < shape_of(info, feature) for column in entry.get(key, ()))


def test_write_demo_tasks_have_few_and_many_lengths(demo: Path) -> None:
    distinct = {}
    for dataset in DEMO_DATASETS:
        root = demo / "datasets" / dataset.repo_id
        files = sorted((root / "data").rglob("*.parquet"))
        columns = ["episode_index", "task_index"]
        table = pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
        episodes = table.group_by(columns).aggregate([([], "count_all")]).to_pylist()
        for index, task in enumerate(dataset.tasks):
            lengths = [row["count_all"] for row in episodes if row["task_index"] == index]
            assert len(lengths) == task.n_episodes
            distinct[task.text] = len(set(lengths))
    assert sum(count >= 10 for count in distinct.values()) >= 3
    assert sum(count < 10 for count in distinct.values()) >= 2


def test_write_demo_values_are_finite_and_every_dim_moves(demo: Path) -> None:
    for dataset in DEMO_DATASETS:
        root = demo / "datasets" / dataset.repo_id
        for file in (root / "data").rglob("*.parquet"):
            table = pq.read_table(file)
            for name in (dataset.spec.state_feature, dataset.spec.action_feature):
                values = np.stack(table[name].to_pylist())
                assert np.isfinite(values).all()
                assert (values.std(axis=0) > 1e-3).all()


def test_write_demo_twice_gives_the_same_bytes_and_is_small(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "again")
    content = files_of(demo)
    assert files_of(tmp_path / "again") == content
    assert sum(len(data) for data in content.values()) < 3_000_000


def test_write_demo_over_itself_leaves_it_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = write_demo(out)
    added = out / "datasets/demo/arm6_pick/meta/speed_percentiles.jsonl"
    added.write_text("written since")
    before = files_of(out)
    assert write_demo(out) == first == out / "mixture.json"
    assert files_of(out) == before


def test_write_demo_takes_an_empty_folder(tmp_path: Path) -> None:
    assert write_demo(tmp_path).exists()


@pytest.mark.parametrize("kind", ["foreign", "file", "variant", "incomplete", "other json"])
def test_write_demo_over_something_else_refuses(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "variant":
        write_demo(out, variant="audit")
    else:
        out.mkdir()
        name = {"foreign": "notes.txt", "incomplete": target.MARKER, "other json": target.MARKER}
        content = {"foreign": "mine", "incomplete": '{"made_by": "x"}', "other json": "[1"}
        (out / name[kind]).write_text(content[kind])
    before = files_of(tmp_path)
    with pytest.raises(ArtifactError, match="Choose another folder"):
        write_demo(out)
    assert files_of(tmp_path) == before


def test_write_demo_unknown_variant_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'big'"):
        write_demo(tmp_path / "out", variant="big")  # type: ignore[arg-type]


def test_write_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(ArtifactError, match="No space left"):
        target.write_folder(tmp_path / "out", write, made_as="x")
    assert list(tmp_path.iterdir()) == []


def test_write_demo_where_the_parent_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="cannot write the demo"):
        write_demo(tmp_path / "file" / "demo")


SCRIPT = "import sys; from pathlib import Path; from opentau_prep.demo.mixture import write_demo; "
WRITE = SCRIPT + "write_demo(Path(sys.argv[1]))"
HANG = (
    SCRIPT
    + "import os; from opentau_prep.demo.target import write_folder; "
    + "import time; write_folder(Path(sys.argv[1]), lambda f: ((f / 'half').write_text('x'), "
    + "print('ready', flush=True), time.sleep(60)), made_as='standard')"
)


def python(code: str, out: Path) -> subprocess.Popen[str]:
    root = str(Path(target.__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", code, str(out)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_write_demo_killed_half_way_is_cleared_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    process = python(HANG, out)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    assert not out.exists()
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    time.sleep(0.1)
    assert write_demo(out).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_write_demo_by_several_processes_makes_one(tmp_path: Path, demo: Path) -> None:
    out = tmp_path / "demo"
    processes = [python(WRITE, out) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert files_of(out) == files_of(demo)


def test_demo_command_to_paste_works_for_any_folder(tmp_path):
    out = tmp_path / "it's a\u202e demo"
    ran = run_cli("demo", "--out", out)
    assert ran.code == 0, ran.err
    assert "\u202e" not in ran.out
    command = shlex.split(ran.out.splitlines()[-1])
    assert command[:3] == ["opentau-prep", "run", "--mixture-json"]
    assert command[3] == str(out / "mixture.json").replace("\u202e", "\\u202e")
