"""The example loops, run as users run them: real processes, ragged last batches, one result."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


def start(script, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    try:
        for process in processes:
            said, _ = process.communicate(timeout=120)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


@pytest.mark.slow
def test_accelerate_loop_two_processes_equal_one(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    alone, together = tmp_path / "one.json", tmp_path / "two.json"
    finish(start("validation_loop_accelerate.py", "--batch-size", 5, "--out", alone))
    port = free_port()
    ranks = [
        start(
            "validation_loop_accelerate.py", "--batch-size", 3, "--out", together,
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(2)
    ]  # fmt: skip
    finish(*ranks)
    one = json.loads(alone.read_text())
    # 32 samples: 16 a rank in batches of 3, the last of one sample.
    assert [g["samples"] for g in one["result"]["groups"]] == [4, 1, 20, 7]
    assert json.loads(together.read_text()) == one
    assert "Validation/by_dataset/lab/arm-2/MSE Loss" in one["result"]["metrics"]


@pytest.mark.slow
def test_sharded_model_no_total_leaves_a_rank_waiting():
    pytest.importorskip("torch")
    finish(start("check_lockstep.py", "--most", 20))


@pytest.mark.parametrize(("world_size", "batch_size"), [(3, 5)])
def test_numpy_loop_several_processes_equal_one(tmp_path, world_size, batch_size):
    alone, together = tmp_path / "one.json", tmp_path / "many.json"
    script = "validation_loop_numpy.py"
    finish(
        start(script, "--world-size", 1, "--batch-size", 32, "--out", alone),
        start(script, "--world-size", world_size, "--batch-size", batch_size, "--out", together),
    )
    assert together.read_text() == alone.read_text()
