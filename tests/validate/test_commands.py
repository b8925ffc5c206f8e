"""The command that a finding prints settles it, in a shell, from another folder."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from breaking import (
    Files,
    Mutation,
    check,
    check_mixture,
    write_broken,
    written,
)
from cli_runner import paste
from mutations import LFS, MUTATIONS
from test_artifacts_rules import ARTIFACTS, TOKENIZERS
from test_mixtures import MIXTURES, mixture_of

from opentau_prep.validate.catalogue import all_rules, find_rule
from opentau_prep.validate.findings import Finding, Spot, fold, hit
from opentau_prep.validate.rule import RUN_STATS_AGAIN, Settle

# One of each rule that has a command; the whole list runs with `make test-all`.
QUICK = ("27,623 frames promised", "no stats.json", "min above max")


def settles(change: Mutation, tmp_path: Path) -> list[Finding]:
    """Run each command that a broken dataset's findings print; return what is found again."""
    root, elsewhere = tmp_path / "a data set", tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_broken(root, change)
    # Without the frames, rules speak up that the frames say more of.
    found = [*check(root, deep=False).findings, *check(root).findings]
    printed = [f for f in found if f.command and f.command.startswith("opentau")]
    assert all(f.command or f.advice.startswith("By hand: ") for f in found)
    for command in dict.fromkeys(str(finding.command) for finding in printed):
        done = paste(command, elsewhere)
        assert done.returncode == 0 or "validate" in command, (command, done.stderr, done.stdout)
    again = [*check(root, deep=False).findings, *check(root).findings]
    left = {finding.fingerprint for finding in again}
    return [finding for finding in printed if finding.fingerprint in left]


@pytest.mark.parametrize("change", [m for m in MUTATIONS if m.name in QUICK], ids=lambda m: m.name)
def test_command_of_finding_settles_it(change: Mutation, tmp_path: Path) -> None:
    assert settles(change, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("change", MUTATIONS, ids=lambda m: m.name)
def test_command_of_every_finding_settles_it(change: Mutation, tmp_path: Path) -> None:
    assert settles(change, tmp_path) == []


# Rules that never print a command, and fire in tests of their own.
BY_HAND = (
    "O005 O006 O008 O009 O010 M017 H005 H006 H007 N008 P001 P002 P004 P005 P006 P007 P008 P009"
    " P010 P011 P012 X001"
)


def test_every_rule_fires_here_or_needs_a_person() -> None:
    """A new rule needs a scenario, whose commands are run in a shell, or a place in BY_HAND."""
    here = {code for change in MUTATIONS for code in change.codes} | {"S016"}
    here |= {code for _, codes, _ in (*MIXTURES, *TOKENIZERS) for code in codes.split()}
    here |= {code for codes, _ in ARTIFACTS for code in codes.split()} | {"M018", "P003"}

    assert {rule.code for rule in all_rules()} - here == set(BY_HAND.split())
    assert [code for code in BY_HAND.split() if find_rule(code).command] == []


def settles_mixture(file: Path, elsewhere: Path, **options: Any) -> list[str]:
    """Run the commands that a mixture's findings print; return the codes that had one."""
    elsewhere.mkdir()
    found = check_mixture(file, **options).findings
    by_hand = [finding for finding in found if not finding.command]
    assert all(finding.advice.startswith("By hand: ") for finding in by_hand)
    for command in dict.fromkeys(finding.command for finding in found if finding.command):
        done = paste(command, elsewhere)
        assert done.returncode in (0, 1), (command, done.stderr, done.stdout)
    left = {finding.fingerprint for finding in check_mixture(file, **options).findings}
    assert [f for f in found if f.command and f.fingerprint in left] == []
    return [finding.code for finding in found if finding.command]


@pytest.mark.slow
@pytest.mark.parametrize(("codes", "change"), ARTIFACTS)
def test_command_of_artifact_settles_it(
    prepared: Path, tmp_path: Path, codes: str, change: Files
) -> None:
    change(prepared)

    settled = settles_mixture(tmp_path / "mixture.json", tmp_path / "elsewhere")

    by_hand = {"A004"}  # an edited file may be meant
    assert set(settled) == set(codes.split()) - by_hand


@pytest.mark.slow
def test_commands_of_mixture_outputs_settle_them(prepared: Path, tmp_path: Path) -> None:
    file = tmp_path / "mixture.json"
    file.write_text(json.dumps({"seed": 4, "dataset_mixture": json.loads(file.read_text())}))
    for words in ("stats", "val-plan --world-size 2 --batch-size 4 --seed 3", "forecast"):
        paste(f"opentau-prep {words} --mixture-json {shlex.quote(str(file))}", tmp_path)

    assert set(settles_mixture(file, tmp_path / "elsewhere")) == {"M018", "P003", "S020"}


@pytest.mark.slow
@pytest.mark.parametrize(("codes", "edit"), [m[1:] for m in MIXTURES], ids=[m[0] for m in MIXTURES])
def test_command_of_mixture_finding_settles_it(
    tmp_path: Path, datasets: Path, codes: str, edit: Any
) -> None:
    (tmp_path / "m.json").write_text(json.dumps(mixture_of(datasets, edit)))

    assert set(settles_mixture(tmp_path / "m.json", tmp_path / "elsewhere")) <= set(codes.split())


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

    assert joined.place == Spot("stats.json")
    assert joined.message == "state, dim 1: is off; action: is far off"
    assert [place.column for place in joined.places] == ["state", "action"]
    assert apart == hits[2]


def test_finding_with_places_and_command_is_read_back() -> None:
    places = (Spot("a", (1, 2)), Spot("b", column="c", dims=(0,)))
    finding = Finding("F007", "n", "error", "d", places[0], "m", "h", "git pull", places)

    assert Finding.from_json(finding.as_json(), "d") == finding
