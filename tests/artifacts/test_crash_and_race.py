"""Real processes and signals: writers that race, are killed, or find the disk full or read-only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("crash_driver.py")
FOLDERS = Path(__file__).with_name("folder_driver.py")


@pytest.fixture
def root() -> Iterator[Path]:
    """A dataset root that other users may enter, which pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="prep-crash-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def drive(
    scenario: str, root: Path, *args: object, driver: Path = DRIVER
) -> tuple[list[dict[str, Any]], str]:
    """Run a scenario; returns the JSON lines it printed and its stderr."""
    done = subprocess.run(
        [sys.executable, str(driver), scenario, str(root), *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_write_atomic_16_racing_processes_every_read_is_whole(root: Path) -> None:
    (found,), _ = drive("race", root)
    assert found == {"codes": [0] * 18, "whole": True, "leftovers": []}


def test_ensure_16_racing_processes_artifact_and_provenance_agree(root: Path) -> None:
    (found,), _ = drive("publish_race", root)
    assert found["codes"] == [0] * 16
    assert (found["fresh"], found["odd"]) == (1, 0)
    assert found["files"] == ["prep", "validation.json"]
    assert found["leftovers"] == []


@pytest.mark.slow
def test_publish_100_runs_killed_at_random_nothing_torn_lost_or_left(root: Path) -> None:
    (found,), _ = drive("killed_at_random", root, 100)
    assert found["killed"] >= 10
    assert found["left"] > 0, "no run was killed while it wrote: the test has lost its teeth"
    assert found["torn"] == 0
    assert (found["status"], found["state"]) == ("written", "FRESH")
    assert found["leftovers"] == []
    assert found["files"] == ["prep", "validation.json"]


def test_publish_killed_at_every_step_next_run_heals(root: Path) -> None:
    (found,), _ = drive("killed_at_every_step", root)
    assert found["steps"] > 30
    assert found["problems"] == []


def test_publish_interrupted_at_every_step_leaves_nothing_behind(root: Path) -> None:
    (found,), _ = drive("interrupted_at_every_step", root)
    assert found["steps"] > 15
    assert found["problems"] == []


@pytest.mark.parametrize("exchange", ["exchange", "none"])
@pytest.mark.parametrize("how", ["kill", "ctrl-c", "eio"])
def test_folder_replaced_by_force_old_one_is_never_lost(
    root: Path, how: str, exchange: str
) -> None:
    (found,), _ = drive("every_call", root / "run", how, exchange, driver=FOLDERS)
    assert found["steps"] >= 30
    assert found["problems"] == []


def test_publish_on_full_disk_fails_and_keeps_old_file(root: Path) -> None:
    (found,), stderr = drive("full_disk", root)
    assert found == {"code": 4, "intact": True, "state": "FRESH", "leftovers": []}
    assert "validation.json" in stderr
    assert "Traceback" not in stderr


def test_ensure_in_read_only_dataset_returns_value_with_one_warning(root: Path) -> None:
    (made, found), stderr = drive("read_only", root)
    assert made == {"content": "x", "status": "not persisted"}
    assert found["files"] == []
    assert stderr.count("not persisted") == 1
    # A place that the user named is another matter.
    assert found["code"] == 4
    assert "NotWritableError" in stderr
