"""`run` has no options for its steps, and so undoes none that somebody chose."""

from __future__ import annotations

import json

import pytest
from builders import tiny_dataset
from cli_runner import run_cli


@pytest.fixture
def mixture(tmp_path):
    tags = {"robot_type": "arm", "control_mode": "joint"}
    root = tiny_dataset(tmp_path, "v2.1", name="a", lengths=[20, 30, 25], **tags)
    file = tmp_path / "mixture.json"
    file.write_text(json.dumps({"datasets": [{"repo_id": "o/a", "root": str(root)}]}))
    common = ("--mixture-json", file)
    chosen = ("--episode-quantiles", "episode", "--quantile", 0.999)
    assert run_cli("stats", *common, *chosen).code == 0
    sizes = ("--max-state-dim", 5, "--quantiles", "sketch")
    assert run_cli("heads", *common, *sizes).code == 0
    fit = ("--chunk-size", 4, "--total-chunks", 20, "--vocab-size", 300, "--max-token-length", 8)
    assert run_cli("fit-tokenizer", *common, *fit).code == 0
    return file


def _parameters(mixture, rel):
    return json.loads((mixture.parent / rel).read_text())["parameters"]


def _chosen(mixture):
    stats = _parameters(mixture, "a/meta/prep/quantile_sketch.json")
    heads = _parameters(mixture, "mixture.prep/norm_heads.prep.json")
    return {
        **{name: stats[name] for name in ("quantiles", "episode_quantiles")},
        **{name: heads[name] for name in ("max_state_dim", "max_action_dim")},
        "source": heads["quantiles"],
    }


def test_run_keeps_what_was_chosen_until_it_is_forced(mixture):
    before = _chosen(mixture)
    kept = {p: p.read_bytes() for p in mixture.parent.glob("a/meta/*stats*.json*")}
    assert (before["episode_quantiles"], before["max_state_dim"]) == ("episode", 5)
    ran = run_cli("run", "--mixture-json", mixture, "--json")
    assert ran.code == 0, ran.err
    assert _chosen(mixture) == before
    assert {p: p.read_bytes() for p in kept} == kept
    steps = {step["step"]: step for step in ran.json["steps"]}
    assert steps["stats"]["datasets"][0]["status"] == "up to date"
    assert ran.json["training_must_hold"]["max_state_dim"] == 5
    assert run_cli("run", "--mixture-json", mixture, "--force", "--dry-run").code == 0
    assert _chosen(mixture) == before


def test_run_with_a_record_of_somebody_else_takes_the_defaults(mixture):
    for rel, name in (
        ("mixture.prep/norm_heads.prep.json", "max_state_dim"),
        ("a/meta/prep/quantile_sketch.json", "episode_quantiles"),
    ):
        path = mixture.parent / rel
        record = json.loads(path.read_text())
        record["parameters"][name] = "many"
        path.write_text(json.dumps(record))
    ran = run_cli("run", "--mixture-json", mixture, "--json")
    assert ran.code == 0, ran.err
    found = _chosen(mixture)
    assert (found["episode_quantiles"], found["max_state_dim"]) == ("dataset", 32)
