"""`--shard i/n`: any order, a part killed and rerun, and the bytes of a single run."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from builders import VERSIONS, tiny_dataset
from cli_runner import command, environment, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import ConfigError
from opentau_prep.shard import Shard


@settings(deadline=None)  # what is measured there is the machine
@given(st.lists(st.integers(0, 10_000), max_size=60), st.integers(1, 9))
def test_parts_are_disjoint_complete_in_order_and_balanced(sizes: list[int], count: int) -> None:
    items = list(range(len(sizes)))
    parts = [Shard(number, count).choose(items, sizes) for number in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == items
    assert all(part == sorted(part) for part in parts)
    loads = [sum(max(1, sizes[item]) for item in part) for part in parts]
    assert max(loads) - min(loads) <= max([1, *sizes])


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "-1/4", "1/4/2", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard"):
        Shard.parse(text)


# Findings name the dataset's folder in the command that settles them; the fit reports its seconds.
_VOLATILE = {"validation.json", "fit_report.json", "prep.json"}


def made(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in _VOLATILE
    }


def test_parts_in_any_order_then_the_whole_equal_a_single_run(tmp_path: Path) -> None:
    for side in ("single", "parts"):
        for i in range(4):
            version = VERSIONS[i % len(VERSIONS)]
            tiny_dataset(tmp_path / side, version, name=f"d{i}", lengths=[12 + 5 * i, 14], seed=i)
        entries = [{"repo_id": "lab/d", "root": f"d{i}"} for i in range(4)]
        (tmp_path / side / "mix.json").write_text(json.dumps({"datasets": entries}))

    def run(side: str, command: str = "run", *options: object):
        return run_cli(command, "--mixture-json", "mix.json", *options, cwd=tmp_path / side)

    assert run("single").code == 0
    for part in ("3/3", "1/3", "1/3", "2/3"):
        ran = run("parts", "run", "--shard", part, "--json")
        assert ran.code == 0, ran.err
        assert [step["step"] for step in ran.json["steps"]] == ["stats", "speed-percentiles"]
    whole = run("parts", "run", "--json")
    assert whole.code == 0, whole.err
    for step in whole.json["steps"]:
        if step["step"] in ("stats", "speed-percentiles"):
            assert {each["status"] for each in step["datasets"]} == {"up to date"}
    assert made(tmp_path / "parts") == made(tmp_path / "single")
    checked = [run("single", "validate", "--shard", f"{i}/2", "--json").json for i in (1, 2)]
    assert sum(len(each["datasets"]) for each in checked) == 4


@pytest.mark.slow
def test_parts_as_processes_one_of_them_killed_and_two_at_once_equal_a_single_run(
    tmp_path: Path,
) -> None:
    for side in ("single", "parts"):
        for i in range(8):
            tiny_dataset(tmp_path / side, "v3.0", name=f"d{i}", lengths=[40 + i, 14], seed=i)
        entries = [{"repo_id": f"lab/d{i}", "root": f"d{i}"} for i in range(8)]
        (tmp_path / side / "mix.json").write_text(json.dumps({"datasets": entries}))

    def start(side: str, *options: object) -> subprocess.Popen[bytes]:
        words = command("run", "--mixture-json", "mix.json", "--workers", 1, *options)
        quiet = subprocess.DEVNULL
        folder = tmp_path / side
        return subprocess.Popen(words, cwd=folder, env=environment(), stdout=quiet, stderr=quiet)

    single = start("single")
    killed = start("parts", "--shard", "3/4")
    while killed.poll() is None and not list((tmp_path / "parts").rglob("quantile_sketch.json")):
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    # Part 2 twice at the same time, and the killed one once more.
    parts = [start("parts", "--shard", part) for part in ("4/4", "2/4", "2/4", "3/4", "1/4")]
    assert [part.wait() for part in parts] == [0] * 5
    both = [start("parts"), start("parts")]
    assert [each.wait() for each in (*both, single)] == [0, 0, 0]
    assert made(tmp_path / "parts") == made(tmp_path / "single")


def test_shard_of_openpi_stats_is_refused(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1")
    ran = run_cli("stats", root, "--format", "kai0", "--shard", "1/2")
    assert (ran.code, "--shard would have no effect" in ran.err) == (2, True)
