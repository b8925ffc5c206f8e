"""Real signals to a real program whose cluster is in the middle of writing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import PACKAGES, need, running_cluster

REPO = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("engine_driver.py")

pytestmark = pytest.mark.slow


def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive_with(mark: str) -> list[str]:
    """Return the processes that inherited the mark, in whatever group or session they are."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            inherited = mark.encode() in entry.read_bytes()
            name = entry.with_name("cmdline").read_bytes()
        except OSError:
            continue
        # Ray's agents look for their parent once a minute, when it was killed.
        if inherited and b"Agent" not in name:
            found.append(entry.parent.name)
    return found


def start(folder: Path, mark: str, *engine: str) -> subprocess.Popen[str]:
    """Start the program in its own process group and wait until both workers write."""
    program = subprocess.Popen(
        [sys.executable, str(DRIVER), str(folder), *engine],
        env={**os.environ, "PYTHONPATH": str(REPO), "PREP_TEST_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert until(lambda: len(os.listdir(folder)) == 2 or program.poll() is not None, 40)
    assert program.poll() is None, program.communicate()
    return program


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", ["ctrl-c", "sigterm", "kill"])
@pytest.mark.parametrize("engine", list(PACKAGES))
def test_own_cluster_interrupted_leaves_no_process_and_no_file(
    tmp_path: Path, engine: str, how: str
) -> None:
    need(engine)
    mark = uuid.uuid4().hex
    program = start(tmp_path, mark, engine)
    assert len(alive_with(mark)) > 2
    if how == "ctrl-c":
        os.killpg(program.pid, signal.SIGINT)
    else:
        os.kill(program.pid, signal.SIGTERM if how == "sigterm" else signal.SIGKILL)
    out, err = program.communicate(timeout=20)
    assert until(lambda: not alive_with(mark), 15), alive_with(mark)
    if how != "kill":
        assert (program.returncode, out, err) == (130, "interrupted\n", "")
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("engine", list(PACKAGES))
def test_address_interrupted_ends_our_jobs_and_leaves_the_cluster_up(
    tmp_path: Path, engine: str
) -> None:
    with running_cluster(engine) as address:
        for _ in range(2):  # the second time: the workers are free again
            program = start(tmp_path, "x", engine, address)
            os.kill(program.pid, signal.SIGTERM)
            out, err = program.communicate(timeout=20)
            assert (program.returncode, out, err) == (130, "interrupted\n", "")
            assert until(lambda: os.listdir(tmp_path) == [], 5)
