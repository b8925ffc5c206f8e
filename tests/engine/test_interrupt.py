"""Real signals to a real program whose workers are in the middle of writing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("engine_driver.py")


def launch(folder: Path, *more_paths: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [REPO, *more_paths]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the program in its own process group and wait until both workers write."""
    program = launch(folder)
    deadline = time.monotonic() + 30
    while len(os.listdir(folder)) < 2:
        assert time.monotonic() < deadline
        assert program.poll() is None, program.communicate()
        time.sleep(0.02)
    return program


def group_is_empty(group: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm to the program", "sigterm to the group"])
def test_map_ordered_interrupted_stops_at_once_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    program = start(tmp_path)
    if how == "sigterm to the program":
        os.kill(program.pid, signal.SIGTERM)
    else:
        os.killpg(program.pid, signal.SIGINT if how == "ctrl-c" else signal.SIGTERM)
    sent = time.monotonic()
    out, err = program.communicate(timeout=20)
    assert time.monotonic() - sent < 5
    assert (program.returncode, out, err) == (130, "interrupted\n", "")
    assert os.listdir(tmp_path) == []
    assert group_is_empty(program.pid)


def test_map_ordered_ctrl_c_while_workers_start_is_for_the_program_alone(tmp_path: Path) -> None:
    # Every interpreter imports this first: workers say that they are there, and take their time.
    site, folder, started = (tmp_path / name for name in ("site", "out", "started"))
    for each in (site, folder, started):
        each.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if any('loky_posix' in word for word in sys.orig_argv):\n"
        f"    open({str(started)!r} + f'/{{os.getpid()}}', 'w').close()\n"
        "    time.sleep(1)\n"
    )
    program = launch(folder, site)
    while len(os.listdir(started)) < 2:
        assert program.poll() is None, program.communicate()
        time.sleep(0.01)
    for worker in os.listdir(started):
        os.kill(int(worker), signal.SIGINT)
    time.sleep(0.2)  # long enough for a traceback, had they taken it
    os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=20)
    assert (program.returncode, out, err) == (130, "interrupted\n", "")
    assert os.listdir(folder) == []
    assert group_is_empty(program.pid)


def test_map_ordered_program_killed_workers_end_themselves(tmp_path: Path) -> None:
    program = start(tmp_path)
    program.kill()
    program.communicate(timeout=20)
    assert group_is_empty(program.pid)
    assert os.listdir(tmp_path) == []
