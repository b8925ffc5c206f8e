"""The command that a finding prints settles it, in a shell, from another folder."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from breaking import Mutation, check, write_broken, written
from mutations import LFS, MUTATIONS

from opentau_prep.validate.findings import Finding, Place, fold, hit
from opentau_prep.validate.rule import RUN_STATS_AGAIN, Settle

# One of each rule that has a command; the whole list runs with `make test-all`.
QUICK = ("105 episodes promised", "no stats.json", "min above max")


def in_a_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a printed command as a user would paste it, with this environment's interpreter."""
    program = f"{shlex.quote(sys.executable)} -m opentau_prep"
    line = command.replace("opentau-prep", program, 1)
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def settles(change: Mutation, tmp_path: Path) -> list[Finding]:
    """Run each command that a broken dataset's findings print; return what is found again."""
    root, elsewhere = tmp_path / "a data set", tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_broken(root, change)
    printed = [f for f in check(root).findings if f.command and f.command.startswith("opentau")]
    for command in dict.fromkeys(str(finding.command) for finding in printed):
        done = in_a_shell(command, elsewhere)
        assert done.returncode == 0 or "validate" in command, (command, done.stderr, done.stdout)
    left = {finding.fingerprint for finding in check(root).findings}
    return [finding for finding in printed if finding.fingerprint in left]


@pytest.mark.parametrize("change", [m for m in MUTATIONS if m.name in QUICK], ids=lambda m: m.name)
def test_command_of_finding_settles_it(change: Mutation, tmp_path: Path) -> None:
    assert settles(change, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("change", MUTATIONS, ids=lambda m: m.name)
def test_command_of_every_finding_settles_it(change: Mutation, tmp_path: Path) -> None:
    assert settles(change, tmp_path) == []


def test_fill_quotes_paths_and_refuses_what_is_not_known() -> None:
    settle = Settle(
        "/data/my set", ("--mixture-json", "/m x.json"), ("--artifact-root", "/a"), "m1"
    )

    stats = settle.fill(RUN_STATS_AGAIN)
    heads = settle.fill(("opentau-prep", "heads", "{mixture m1}"))

    assert stats == "opentau-prep stats '/data/my set' --force --artifact-root /a"
    assert heads == "opentau-prep heads --mixture-json '/m x.json' --artifact-root /a"
    assert settle.fill(("opentau-prep", "heads", "{mixture other}")) is None
    assert Settle(None, ()).fill(RUN_STATS_AGAIN) is None
    assert settle.fill(()) is None


def test_validate_many_lfs_pointers_are_one_finding(tmp_path: Path) -> None:
    def all_pointers(root: Path) -> None:
        for file in (root / "data").rglob("*.parquet"):
            written(file.relative_to(root).as_posix(), LFS)(root)

    write_broken(tmp_path / "set", Mutation("pointers", frozenset(), files=all_pointers))

    found = [f for f in check(tmp_path / "set").findings if f.code == "F007"]

    assert [f.count for f in found] == [6]
    assert "6 files: data/chunk-000/episode_000000.parquet" in found[0].message
    assert found[0].command is None  # it lies in no git checkout


def test_fold_joins_columns_of_one_file_and_keeps_other_advice_apart() -> None:
    advice = "Do this."
    hits = [
        hit("is off", advice, file="stats.json", column="state", dims=[1]),
        hit("is far off", advice, file="stats.json", column="action"),
        hit("is odd", "Do that.", file="stats.json"),
    ]

    joined, apart = fold(hits)

    assert joined.place == Place("stats.json")
    assert joined.message == "state, dim 1: is off; action: is far off"
    assert [place.column for place in joined.places] == ["state", "action"]
    assert apart == hits[2]


def test_finding_with_places_and_command_is_read_back() -> None:
    places = (Place("a", (1, 2)), Place("b", column="c", dims=(0,)))
    finding = Finding("F007", "n", "error", "d", places[0], "m", "h", "git pull", places)

    assert Finding.from_json(finding.as_json(), "d") == finding
