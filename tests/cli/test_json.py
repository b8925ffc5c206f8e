"""With `--json`, every command prints one document, whatever happens."""

from __future__ import annotations

import json

import pytest
from cli_runner import run_cli

from opentau_prep.cli.app import COMMANDS
from opentau_prep.demo.mixture import write_demo

FIT = ("--chunk-size", 4, "--total-chunks", 20, "--vocab-size", 300, "--max-token-length", 8)


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_usage_is_a_document(name):
    ran = run_cli(name, "--no-such-option", "--json")
    assert (ran.code, ran.json["exit_code"], ran.json["schema_version"]) == (2, 2, 1)
    assert ran.json["error"]["kind"] == "UsageError"
    assert "--no-such-option" in ran.json["error"]["message"]


@pytest.mark.slow
def test_every_command_states_the_schema_version(tmp_path):
    mixture = write_demo(tmp_path / "demo")
    root = min(mixture.parent.rglob("meta/info.json")).parents[1]
    losses = tmp_path / "losses.jsonl"
    words = {
        "stats": [root],
        "speed-percentiles": [root],
        "validate": [root],
        "diff": [root, root],
        "demo": ["--out", tmp_path / "another"],
        "val-plan": ["--mixture-json", mixture, "--world-size", 2, "--batch-size", 4],
        "val-report": [losses, "--mixture-json", mixture],
        "run": ["--mixture-json", mixture, *FIT],
        "fit-tokenizer": ["--mixture-json", mixture, *FIT],
    }
    sample = {"dataset": "demo/arm6_pick", "dataset_index": 0, "control_mode": "joint"}
    sample |= {"MSE_sum": 1.0, "MSE_count": 1}
    losses.write_text(json.dumps(sample) + "\n")
    for name in COMMANDS:
        ran = run_cli(name, *words.get(name, ["--mixture-json", mixture]), "--json")
        assert ran.code in (0, 1), (name, ran.err)
        assert (ran.json["command"], "error" in ran.json) == (name, False)
        assert isinstance(ran.json["schema_version"], int), name
