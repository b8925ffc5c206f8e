"""`validate --fix` lets the steps make their own files again, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from breaking import check_mixture, codes_of
from builders import tiny_dataset, tiny_episodes
from cli_runner import run_cli

from opentau_prep.demo.append import append_episode

TAGS = {"robot_type": "arm", "control_mode": "joint"}
HEAD = "meta/norm_heads/mixture-*.json"


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    """A mixture of two datasets of one head, with stats and heads."""
    roots = [tiny_dataset(tmp_path, "v2.1", name=n, lengths=[20, 30, 25], **TAGS) for n in "ab"]
    file = tmp_path / "mixture.json"
    entries = [{"repo_id": f"o/{root.name}", "root": str(root)} for root in roots]
    file.write_text(json.dumps({"datasets": entries}))
    for command in ("stats", "heads"):
        assert run_cli(command, "--mixture-json", file, cwd=tmp_path).code == 0
    return file


def _fix(mixture: Path, *options: object, code: int = 0):
    ran = run_cli("validate", "--mixture-json", mixture, "--fix", "--json", *options)
    assert ran.code == code, ran.err
    return {plan["step"]: plan for plan in ran.json["made_again"]}


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _of_ours(mixture: Path) -> set[str]:
    return codes_of(check_mixture(mixture)) & {"A001", "A002", "A003", "A004", "A005"}


def _append(root: Path) -> None:
    append_episode(root, tiny_episodes(lengths=[20], seed=4)[0])


def test_fix_makes_stale_stats_and_their_heads_again(mixture: Path) -> None:
    _append(mixture.parent / "a")
    before = _files(mixture.parent)
    planned = _fix(mixture, "--dry-run")
    assert _files(mixture.parent) == before
    assert planned["stats"]["datasets"] == ["o/a"]
    assert "quantile_sketch.json is stale (episodes 3 -> 4" in str(planned["stats"]["reasons"])
    assert planned["heads"]["datasets"] == ["o/a", "o/b"]
    assert "A002" in _of_ours(mixture)

    _fix(mixture)

    assert _of_ours(mixture) == set()
    assert _fix(mixture) == {}
    for command in ("stats", "heads"):
        before = _files(mixture.parent)
        assert run_cli(command, "--mixture-json", mixture, cwd=mixture.parent).code == 0
        assert _files(mixture.parent) == before  # it is what the command would make


def test_fix_makes_files_again_that_are_gone_but_none_that_never_were(mixture: Path) -> None:
    (head,) = (mixture.parent / "a").glob(HEAD)
    content = head.read_bytes()
    head.unlink()
    assert set(_fix(mixture)) == {"heads"}
    assert head.read_bytes() == content
    tiny_dataset(mixture.parent, "v2.1", name="c", **TAGS)
    document = json.loads(mixture.read_text())
    document["datasets"].append({"repo_id": "o/c", "root": str(mixture.parent / "c")})
    mixture.write_text(json.dumps(document))
    assert _fix(mixture) == {}


def test_fix_keeps_the_options_that_the_stats_were_made_with(mixture: Path) -> None:
    chosen = ("--episode-quantiles", "dataset", "--force")
    assert run_cli("stats", "--mixture-json", mixture, *chosen).code == 0
    _append(mixture.parent / "a")
    _fix(mixture)
    record = json.loads((mixture.parent / "a/meta/prep/quantile_sketch.json").read_text())
    assert record["parameters"]["episode_quantiles"] == "dataset"


def test_fix_leaves_an_edited_file_to_its_owner(mixture: Path) -> None:
    (head,) = (mixture.parent / "a").glob(HEAD)
    head.write_bytes(head.read_bytes() + b"\n")
    assert _fix(mixture) == {}
    assert head.read_bytes().endswith(b"\n\n")


def test_fix_of_plain_roots_makes_no_heads(mixture: Path) -> None:
    root = mixture.parent / "a"
    _append(root)
    (head,) = root.glob(HEAD)
    before = head.read_bytes()
    ran = run_cli("validate", root, "--fix", "--json", cwd=mixture.parent)
    assert [plan["step"] for plan in ran.json["made_again"]] == ["stats"]
    assert head.read_bytes() == before


def test_fix_says_what_stood_in_its_way(mixture: Path) -> None:
    root = mixture.parent / "a"
    _append(root)
    (root / "data/chunk-000/episode_000003.parquet").write_bytes(b"PAR1")
    before = (root / "meta/quantile_sketch.json").read_bytes()
    shown = run_cli("validate", "--mixture-json", mixture, "--fix", "--select", "A")
    assert shown.code == 1
    assert "# stats again: o/a: meta/quantile_sketch.json is stale" in shown.out
    problems = [line for line in shown.out.splitlines() if " not made: " in line]
    assert "episode_000003.parquet" in problems[0]
    assert problems[1:] == ["# heads not made: not begun, since stats failed"]
    assert (root / "meta/quantile_sketch.json").read_bytes() == before
