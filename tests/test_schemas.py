"""The JSON Schemas that the package ships hold for what its commands write."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from cli_runner import run_cli
from jsonschema import Draft202012Validator

from opentau_prep import NormHeads
from opentau_prep.heads.files import encode_heads
from opentau_prep.val_loss.files import write_losses

SCHEMAS = {
    path.name.partition(".")[0]: json.loads(path.read_text(encoding="utf-8"))
    for path in (files("opentau_prep") / "schemas").iterdir()
}


def errors(name, document):
    found = Draft202012Validator(SCHEMAS[name]).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_each_is_a_schema(name):
    Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize(
    "args",
    [
        ("heads", "--mixture-json", "absent.json", "--json"),
        ("heads", "--no-such-option", "--json"),
    ],
    ids=["error", "usage"],
)
def test_documents_of_errors(args, tmp_path):
    ran = run_cli(*args, cwd=tmp_path)
    assert ran.code == 2
    assert errors("json_output", ran.json) == []
    assert errors("json_output", {**ran.json, "command": "heads"})  # a result has no error


def test_numbers_that_are_not_finite():
    stats = {"state": {"min": np.array([np.nan, -np.inf]), "count": np.array(np.inf)}}
    heads = NormHeads(["arm::joint"], [stats], {"arm::joint": 0}, {"a": 0}, {"arm::joint": ["a"]})
    document = json.loads(encode_heads(heads))
    assert errors("norm_heads", document) == []
    document["heads"][0]["stats"]["state"]["min"] = ["nan"]
    assert errors("norm_heads", document)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A demo on which every command that writes such a file has run; and what --json printed."""
    folder = tmp_path_factory.mktemp("schemas")
    mixture = ("--mixture-json", "demo/mixture.json", "--json")
    plan = ("val-plan", *mixture, "--world-size", 2, "--batch-size", 8)
    pick = "demo/datasets/demo/arm6_pick"
    write_losses(
        folder / "losses.jsonl",
        dataset_index=[0, 1],
        dataset=["demo/arm6_pick", "demo/arm6_pose"],
        control_mode=["joint", None],
        losses={"MSE": ([1.0, float("nan")], [2, 2])},
    )
    printed = []
    for args in [
        ("demo", "--out", "demo", "--json"),
        ("forecast", pick, "--stats", pick, "--json"),  # no sketch yet: the stats alone
        ("run", *mixture),
        ("forecast", *mixture),
        ("forecast", *mixture, "--deep", "--out", "deep/forecast.json"),
        plan,
        (*plan, "--split", "episodes", "--out", "episodes/val_plan.json"),
        ("val-report", "losses.jsonl", *mixture, "--loss-weight", "MSE=1"),
        (
            "val-report",
            "losses.jsonl",
            *mixture,
            "--earlier",
            "demo/mixture.prep/val_report.json",
            "--out",
            "compared/val_report.json",
        ),
        ("report", *mixture, "--no-frames"),
        ("validate", *mixture, "--no-persist"),
    ]:
        ran = run_cli(*args, cwd=folder)
        assert ran.code in (0, 1), ran.err
        printed.append(ran.json)
    return folder, printed


FILES = {
    "norm_heads": ["**/norm_heads.json"],
    "norm_head": ["**/meta/norm_heads/*.json"],
    "fit_report": ["**/tokenizer/fit_report.json"],
    "validation": ["**/validation.json"],
    "val_plan": ["**/val_plan.json"],
    "forecast": ["**/forecast.json"],
    "val_report": ["**/val_report.json"],
    "quantile_sketch": ["**/quantile_sketch.json"],
    "action_tokens": ["**/meta/action_tokens/*.json"],
    "speed_percentiles": ["**/speed_percentiles.jsonl"],
    "provenance": ["**/meta/prep/**/*.json", "**/*.prep.json"],
}


def _paths(folder: Path, name: str) -> list[Path]:
    found = {path for pattern in FILES[name] for path in folder.glob(pattern)}
    # Provenance of a file has the file's name.
    return sorted(p for p in found if name == "provenance" or "prep" not in p.parent.parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES))
def test_files_that_commands_write(name, written):
    paths = _paths(written[0], name)
    assert paths
    lines = name == "speed_percentiles"
    texts = [(path, path.read_text(encoding="utf-8")) for path in paths]
    for path, text in [
        (p, t) for p, all_ in texts for t in (all_.splitlines() if lines else [all_])
    ]:
        document = json.loads(text)
        assert errors(name, document) == [], path
        for key in SCHEMAS[name]["required"]:
            assert errors(name, {k: v for k, v in document.items() if k != key}), key
        for key in SCHEMAS[name]["properties"]:
            assert errors(name, {**document, key: object()}), key


@pytest.mark.slow
def test_every_file_of_episodes_has_its_rows(written):
    plan = json.loads((written[0] / "episodes/val_plan.json").read_text(encoding="utf-8"))
    assert all("rows" in dataset for dataset in plan["datasets"])


@pytest.mark.slow
def test_documents_of_commands(written):
    for document in written[1]:
        assert errors("json_output", document) == [], document["command"]
        assert errors("json_output", {**document, "schema_version": "1"})
