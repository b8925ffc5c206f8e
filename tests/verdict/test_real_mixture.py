"""Two published datasets and a robot of 34 dims, from the mixture's JSON to `Ready to train.`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import copy_real, tiny_dataset
from cli_runner import paste, run_cli

pytestmark = pytest.mark.slow

ROOT = Path("/")


@pytest.fixture
def mixture(tmp_path):
    names = ("g1_pick_bottle", "so101_record_test")
    for name in names:
        copy_real(name, tmp_path)
    tags = {"robot_type": "humanoid", "control_mode": "joint"}
    lengths = [60, 75, 90, 70]
    tiny_dataset(
        tmp_path, "v3.0", name="wide", state_dim=34, action_dim=34, lengths=lengths, **tags
    )
    path = tmp_path / "mixture.json"
    entries = [{"repo_id": f"lab/{name}", "root": name} for name in (*names, "wide")]
    path.write_text(json.dumps({"datasets": entries}))
    return path


def ready(mixture: Path, *options: str) -> str:
    ran = run_cli("run", "--mixture-json", mixture, *options, cwd=ROOT)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Ready to train."), ran.err
    page = run_cli("report", "--mixture-json", mixture, cwd=ROOT)
    assert (page.code, page.out.splitlines()[-1]) == (0, "Ready to train."), page.err
    return ran.out


def test_published_datasets_and_a_wider_robot_are_ready_in_one_command(mixture):
    shown = ready(mixture, "--published-stats", "keep")
    assert "max_state_dim 34, max_action_dim 34" in shown
    assert "Nothing to do" in ready(mixture)


@pytest.mark.parametrize("choice", ["keep", "replace"])
def test_published_numbers_that_differ_stop_the_run_and_both_commands_go_on(mixture, choice):
    stats = mixture.parent / "so101_record_test/meta/stats.json"
    document = json.loads(stats.read_text())
    document["action"]["max"][0] += 1
    stats.write_text(json.dumps(document))
    ran = run_cli("run", "--mixture-json", mixture, cwd=ROOT)
    assert ran.code == 1
    assert len([*ran.out.splitlines(), *ran.err.splitlines()]) < 30
    assert not mixture.with_suffix(".prep").joinpath("norm_heads.json").exists()
    printed = [line.strip(" $") for line in ran.out.splitlines() if line.startswith("  $")]
    assert [line.rpartition(" ")[2] for line in printed] == ["keep", "replace"]
    pasted = paste(next(line for line in printed if line.endswith(choice)), ROOT)
    assert (pasted.returncode, pasted.stdout.splitlines()[-1]) == (0, "Ready to train.")
    assert (json.loads(stats.read_text()) == document) == (choice == "keep")
    ready(mixture)
