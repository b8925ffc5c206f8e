"""Places that cannot be written: read-only roots and full disks, with privileges dropped."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys

import pytest
from builders import tiny_dataset
from cli_runner import command, environment, run_cli

NAME = "meta/speed_percentiles.jsonl"
PR_CAPBSET_DROP = 24  # linux/prctl.h
CAP_DAC_OVERRIDE = 1  # linux/capability.h


def _run(args, prepare, env=None):
    return subprocess.run(
        args,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=90,
        preexec_fn=prepare,
        check=False,
    )


def _obey_permission_bits():
    """Give up the right of root to write where the permission bits forbid it; others have none."""
    if os.getuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot drop CAP_DAC_OVERRIDE")


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_read_only_root_result_is_shown_with_one_warning(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=12)
    before = sorted(root.rglob("*"))
    for folder in (root / "meta", root):
        folder.chmod(0o555)
    done = _run(command("speed-percentiles", root), _obey_permission_bits)
    assert done.returncode == 4, done.stderr
    assert "not persisted" in done.stdout
    assert done.stderr.count("Warning: ") == 1
    assert "--artifact-root" in done.stderr
    assert sorted(root.rglob("*")) == before
    shown = _run(command("speed-percentiles", root, "--no-persist"), _obey_permission_bits)
    assert shown.returncode == 0, shown.stderr
    done = _run(
        command("speed-percentiles", root, "--artifact-root", tmp_path / "art"),
        _obey_permission_bits,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "art" / root.name / NAME).exists()


def test_full_disk_exit_4_and_the_old_file_is_intact(tmp_path):
    tasks = tuple(f"task {i} {'x' * 80}" for i in range(40))
    root = tiny_dataset(tmp_path, lengths=[5] * 40, task_indices=list(range(40)), tasks=tasks)
    old = '{"task_index": 99, "task": "old", "n_episodes": 1, "percentiles": null}\n'
    (root / NAME).write_text(old)
    done = _run(
        command("speed-percentiles", root, "--force"),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
        {"OPENTAU_PREP_CACHE_DIR": str(tmp_path / "cache")},
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert (root / NAME).read_text() == old
    assert not list((root / "meta").glob(".*"))


@pytest.mark.parametrize(
    "args",
    [("heads", "--out"), ("val-plan", "--world-size", 2, "--batch-size", 2, "--out")],
)
@pytest.mark.parametrize("out", [".", "..", "folder"])
def test_out_that_is_a_folder_exits_2(tmp_path, args, out):
    root = tiny_dataset(tmp_path, "v2.1", n_episodes=4)
    (tmp_path / "folder").mkdir()
    ran = run_cli(args[0], root, *args[1:], out, cwd=tmp_path)
    assert ran.code == 2, ran.err
    assert f"Error: {out}: is a folder. Name a file to write." in ran.err


def test_val_plan_more_ranks_than_any_cluster_exits_2(tmp_path):
    root = tiny_dataset(tmp_path)
    ran = run_cli("val-plan", root, "--world-size", 10**9, "--batch-size", 2)
    assert ran.code == 2
    assert "--world-size" in ran.err


def test_tokenizer_folder_that_is_the_working_directory_is_left_alone(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", n_episodes=4)
    (tmp_path / "mixture.json").write_text(
        json.dumps({"datasets": [{"repo_id": "o/d", "root": root.name}]})
    )
    before = sorted(tmp_path.rglob("*"))
    options = ("--chunk-size", 4, "--total-chunks", 20, "--max-token-length", 64)
    args = ("--mixture-json", "mixture.json", *options, "--out-dir", ".")
    ran = run_cli("fit-tokenizer", *args, cwd=tmp_path)
    assert ran.code == 4, ran.err
    assert "Internal error" not in ran.err
    assert sorted(tmp_path.rglob("*")) == before
