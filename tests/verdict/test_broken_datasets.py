"""`run` and `report` on broken datasets: a few lines, the cause first, and the same verdict."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_runner import run_cli

sys.path.append(str(Path(__file__).resolve().parents[1] / "validate"))
from breaking import Mutation, write_broken
from mutations import MUTATIONS

FIT = ("--chunk-size", 4, "--total-chunks", 20, "--vocab-size", 300, "--max-token-length", 8)
MAX_LINES = 12
BY_NAME = {change.name: change for change in MUTATIONS}


def mixture_of(folder: Path, change: Mutation) -> Path:
    write_broken(folder / "set", change)
    path = folder / "mixture.json"
    path.write_text(json.dumps({"datasets": [{"repo_id": "lab/set", "root": "set"}]}))
    return path


def shown(ran) -> list[str]:
    lines = [*ran.err.splitlines(), *ran.out.splitlines()]
    return [line for line in lines if line.strip()]


def run_and_report(mixture: Path, *options: str) -> tuple[list[str], list[str]]:
    """Return what both print; they agree on whether training can begin."""
    ran = run_cli("run", "--mixture-json", mixture, *FIT, *options)
    page = run_cli("report", "--mixture-json", mixture)
    assert (ran.code == 0) == (page.code == 0), (ran.out, page.out)
    assert {ran.code, page.code} <= {0, 1, 2, 3}, (ran.err, page.err)
    return shown(ran), shown(page)


@pytest.mark.slow
@pytest.mark.parametrize("change", MUTATIONS[::3], ids=lambda m: m.name)
def test_run_and_report_of_a_broken_dataset_fit_on_few_lines(tmp_path, change):
    for lines in run_and_report(mixture_of(tmp_path, change)):
        ready = lines[-1] == "Ready to train."
        assert len(lines) <= (25 if ready else MAX_LINES), "\n".join(lines)
        assert len(set(lines)) == len(lines), "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a NaN", "D002"),
        pytest.param("a time is NaN", "T001", marks=pytest.mark.slow),
        pytest.param("a null", "D001", marks=pytest.mark.slow),
    ],
)
def test_frames_that_stats_cannot_use_are_never_ready(tmp_path, name, code):
    for lines in run_and_report(
        mixture_of(tmp_path, BY_NAME[name]), "--published-stats", "replace"
    ):
        assert lines[-1] == "Not ready: 1 thing to do."
        assert [line.split()[1] for line in lines if line.startswith("  1. ")] == [code]


@pytest.mark.slow
def test_frames_that_may_be_excluded_are_worth_a_look(tmp_path):
    mixture = mixture_of(tmp_path, BY_NAME["a NaN"])
    document = json.loads(mixture.read_text())
    document["datasets"][0]["excluded_episodes"] = [4]
    mixture.write_text(json.dumps(document))
    for lines in run_and_report(mixture, "--published-stats", "replace"):
        assert lines[-1] == "Ready to train."
        assert any("D002 lab/set: 1 NaN" in line for line in lines)


def test_report_of_stats_of_another_width_names_the_rule(tmp_path):
    mixture = mixture_of(tmp_path, BY_NAME["stats of five dims"])
    _, lines = run_and_report(mixture, "--published-stats", "keep")
    assert [line.split()[1] for line in lines if line.startswith("  1. ")] == ["S008"]


@pytest.mark.slow
def test_run_on_a_part_of_a_dataset_says_so_once(tmp_path):
    lines, _ = run_and_report(mixture_of(tmp_path, BY_NAME["19 of 105 episodes"]))
    assert sum("6 of 105 episodes" in line for line in lines) == 1
    assert lines[-2:] == ["Stopped before the norm heads.", "Not ready."]


@pytest.mark.slow
def test_run_leaves_what_is_worth_a_look_until_nothing_must_be_done(tmp_path):
    lines, page = run_and_report(mixture_of(tmp_path, BY_NAME["no codebase_version"]))
    for each in (lines, page):
        assert "Worth a look afterwards: 1 thing." in each
        assert not any("training config" in line for line in each)
