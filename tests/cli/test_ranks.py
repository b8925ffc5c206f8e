"""A command under a launcher: real processes with torchrun's variables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from builders import tiny_dataset
from cli_runner import command, environment

NAME = "meta/speed_percentiles.jsonl"


def _start(args, rank, world_size=4, **env):
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), **env}
    return subprocess.Popen(
        args,
        env=environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process, timeout=90):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def test_four_ranks_one_writes_all_return_the_same(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=14)
    # A stale file gives something to warn about: one warning in all, not four.
    (root / NAME).write_text(
        '{"task_index": 7, "task": "x", "n_episodes": 1, "percentiles": null}\n'
    )
    args = command("speed-percentiles", root, "--json")
    # The main rank comes last: the others really have to wait.
    processes = [_start(args, rank) for rank in (3, 2, 1)]
    time.sleep(1.0)
    processes.append(_start(args, 0))
    ended = [_finish(process) for process in processes]
    assert [code for code, _, _ in ended] == [0] * 4, [err for *_, err in ended]
    documents = [json.loads(out) for _, out, _ in ended]
    assert [len(d["warnings"]) for d in documents] == [0, 0, 0, 1]
    assert sum(err.count("Warning: ") for *_, err in ended) == 1
    tasks = [d["datasets"][0]["tasks"] for d in documents]
    assert tasks == [tasks[0]] * 4
    assert [row["task_index"] for row in tasks[0]] == [7, 0]
    statuses = [d["datasets"][0]["status"] for d in documents]
    assert statuses[3] == "appended"
    assert "appended" not in statuses[:3]


def test_four_ranks_tables_come_from_the_main_rank_only(tmp_path):
    root = tiny_dataset(tmp_path)
    processes = [_start(command("speed-percentiles", root), rank) for rank in range(4)]
    ended = [_finish(process) for process in processes]
    assert [code for code, _, _ in ended] == [0] * 4
    assert "written" in ended[0][1]
    assert [out for _, out, _ in ended[1:]] == [""] * 3


def test_main_rank_killed_others_end_with_a_message(tmp_path):
    root = tiny_dataset(tmp_path)
    args = command("speed-percentiles", root)
    main = _start(["sleep", "60"], 0)
    os.kill(main.pid, signal.SIGKILL)
    main.communicate(timeout=10)
    begun = time.monotonic()
    others = [_start(args, rank, OPENTAU_PREP_WAIT_TIMEOUT_S="3") for rank in (1, 2)]
    for process in others:
        code, _, err = _finish(process)
        assert code == 4
        assert "main rank" in err
        assert "Traceback" not in err
        assert str(root / NAME) in err
    assert time.monotonic() - begun < 60
    assert not (root / NAME).exists()


def test_forced_stats_other_ranks_do_not_report_what_is_being_replaced(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1")
    file = root / "meta/episodes_stats.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["stats"]["action"]["mean"][0] += 1.0
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = command("stats", root, "--json")
    assert _finish(_start(args, 0, 1))[0] == 1
    # The main rank comes last: the file that differs is still there when the other looks.
    processes = [_start([*args, "--force"], 1, 2)]
    time.sleep(2.0)
    processes.append(_start([*args, "--force"], 0, 2))
    ended = [_finish(process) for process in processes]
    assert [code for code, _, _ in ended] == [0, 0], [err for *_, err in ended]
    assert "differs" not in ended[0][1]


LIBRARY = """
import json, sys
from opentau_prep import load_or_compute_speed_percentiles
lengths = {e: 10 + e for e in range(12)}
found = load_or_compute_speed_percentiles(sys.argv[1], lengths, dict.fromkeys(lengths, 0), {"a": 0})
print(json.dumps(found))
"""


@pytest.mark.parametrize("readonly", [False, True])
def test_library_call_on_four_ranks_one_warning_same_values(tmp_path, readonly):
    root = tmp_path / "root"
    (root / "meta").mkdir(parents=True)
    if readonly:
        root = tmp_path / "file"
        root.write_text("a file where a folder should be cannot be written by root either")
    else:
        (root / NAME).write_text(
            '{"task_index": 0, "task": "a", "n_episodes": 3, "percentiles": null}\n'
        )
    args = [sys.executable, "-c", LIBRARY, str(root)]
    ended = [_finish(process) for process in [_start(args, rank) for rank in range(4)]]
    assert [code for code, _, _ in ended] == [0] * 4, [err for *_, err in ended]
    assert len({out for _, out, _ in ended}) == 1
    assert sum(bool(err.strip()) for *_, err in ended) == 1
    assert ended[0][2].strip()
