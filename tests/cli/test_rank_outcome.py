"""Ranks of one machine: the main one works, the others pass on its outcome and open no dataset."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from builders import tiny_dataset
from cli_runner import command, environment

from opentau_prep.artifacts.outcome import Relay
from opentau_prep.artifacts.rank import Rank
from opentau_prep.errors import ArtifactError


def start(
    args: list[str], rank: int, tmp_path: Path, *, opens_datasets: bool = True
) -> subprocess.Popen[str]:
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "3",
        "LOCAL_WORLD_SIZE": "3",
        "TMPDIR": str(tmp_path / "tmp"),
    }
    env = environment(variables)
    if not opens_datasets:
        blocked = tmp_path / "blocked"
        blocked.mkdir(exist_ok=True)
        line = "import sys; sys.modules['opentau_prep.metadata.dataset'] = None\n"
        (blocked / "sitecustomize.py").write_text(line)
        env["PYTHONPATH"] = os.pathsep.join([str(blocked), env.get("PYTHONPATH", "")])
    pipe = subprocess.PIPE
    return subprocess.Popen(args, env=env, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path)


def test_others_pass_on_what_the_main_rank_has_found(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    root = tiny_dataset(tmp_path, "v2.1")
    args = command("stats", root, "--json")
    processes = [start(args, rank, tmp_path, opens_datasets=rank == 0) for rank in (2, 1, 0)]
    ended = [(*each.communicate(timeout=90), each.returncode) for each in processes]
    assert [code for *_, code in ended] == [0, 0, 0], [err for _, err, _ in ended]
    two, one, main = (json.loads(out) for out, *_ in ended)
    assert main["datasets"][0]["status"] == "written"
    assert two == one == {**main, "warnings": []}


def test_others_end_as_the_main_rank_did(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    root = tiny_dataset(tmp_path, "v2.1")
    shutil.rmtree(root / "data")
    args = command("stats", root)
    processes = [start(args, rank, tmp_path, opens_datasets=rank == 0) for rank in (1, 0)]
    (_, err, code), (_, main_err, main_code) = (
        (*each.communicate(timeout=90), each.returncode) for each in processes
    )
    assert code == main_code != 0
    assert err.removeprefix("Main rank: ").strip() in main_err


def test_scripts_around_each_rank_do_not_part_them(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    root = tiny_dataset(tmp_path, "v2.1")
    # Not `exec`: the shell stays, as the parent of its rank alone.
    args = ["sh", "-c", shlex.join(command("stats", root, "--json")) + "; exit $?"]
    processes = [start(args, rank, tmp_path, opens_datasets=rank == 0) for rank in (1, 0)]
    ended = [(*each.communicate(timeout=90), each.returncode) for each in processes]
    assert [code for *_, code in ended] == [0, 0], [err for _, err, _ in ended]


def relay(environ: dict[str, str]) -> Relay | None:
    return Relay.of(Rank(1, 2, 1, False, "torchrun"), ["run"], environ)


def test_no_relay_where_ranks_may_be_on_several_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert relay({}) is None
    assert relay({"LOCAL_WORLD_SIZE": "1"}) is None
    found = relay({"LOCAL_WORLD_SIZE": "2"})
    assert found is not None
    assert found == relay({"LOCAL_WORLD_SIZE": "2"})
    assert found != relay({"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "1"})
    found.path.parent.chmod(0o755)  # others could leave an outcome there
    assert relay({"LOCAL_WORLD_SIZE": "2"}) is None


def test_stale_missing_and_orphaned_outcomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opentau_prep.artifacts.outcome._BEGIN_S", 0.2)
    found = Relay(tmp_path / "x.json")
    assert found.wait() is None
    found.path.write_text(json.dumps({"begun": 1.0, "pid": 1, "outcome": {"exit_code": 0}}))
    assert found.wait() is None
    found.end({"exit_code": 3})
    assert found.wait() == {"exit_code": 3}
    gone = subprocess.Popen(["true"])
    gone.wait()
    monkeypatch.setattr("os.getpid", lambda: gone.pid)
    found.begin()
    with pytest.raises(ArtifactError, match="ended without an outcome"):
        found.wait()
