"""Datasets for benchmarks have the sizes that were asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from opentau_prep.demo.many import write_big, write_many
from opentau_prep.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def rows(root: Path) -> list[int]:
    files = sorted((root / "data").rglob("*.parquet"))
    return [pq.read_metadata(file).num_rows for file in files]


def test_write_big_v2_has_a_file_an_episode(tmp_path: Path) -> None:
    write_big(tmp_path / "d", n_frames=1_003, n_episodes=10)
    assert sorted(set(rows(tmp_path / "d"))) == [100, 101]
    assert sum(rows(tmp_path / "d")) == 1_003


def test_write_big_v3_has_as_many_files_as_asked(tmp_path: Path) -> None:
    write_big(tmp_path / "d", n_frames=1_000, n_episodes=16, version="v3.0", n_files=8)
    assert len(rows(tmp_path / "d")) == 8
    assert sum(rows(tmp_path / "d")) == 1_000
    info = json.loads((tmp_path / "d/meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"]) == (16, 1_000)


@pytest.mark.parametrize("data", [False, True])
def test_write_many_spreads_datasets_over_robots(tmp_path: Path, data: bool) -> None:
    mixture = write_many(tmp_path / "m", 20, n_robots=3, data=data)
    entries = json.loads(mixture.read_text())["datasets"]
    assert len({entry["repo_id"] for entry in entries}) == 20
    robots = set()
    for entry in entries:
        root = mixture.parent / entry["root"]
        info = json.loads((root / "meta/info.json").read_text())
        robots.add(info["robot_type"])
        assert (root / "data").is_dir() is data
        if data:
            assert sum(rows(root)) == info["total_frames"]
    assert len(robots) == 3
    assert sorted(path.name for path in mixture.parent.iterdir()) == ["datasets", "mixture.json"]


def test_write_many_and_big_refuse_what_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        write_many(tmp_path, 2)
    with pytest.raises(ConfigError, match="cannot make"):
        write_big(tmp_path / "d", n_frames=3, n_episodes=4)


def test_make_bench_datasets_script_writes_or_says_why_not(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/make_bench_datasets.py", "many", "--datasets", "2"]
    command += ["--out", str(tmp_path / "m")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )

    assert run().returncode == 0
    again = run()
    assert again.returncode == 2
    assert "not empty" in again.stderr
    assert "Traceback" not in again.stderr
