"""Two folders of one repo_id are two datasets, for every command."""

from __future__ import annotations

import json

import pytest
from builders import tiny_dataset
from cli_runner import run_cli


@pytest.fixture
def mixture(tmp_path):
    for name in ("a", "b"):
        tiny_dataset(tmp_path, name=f"{name}/pick", robot_type="arm", control_mode="joint")
    # Only the first has an error, so that the files of both cannot be the same.
    info = tmp_path / "a/pick/meta/info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fps": -1}))
    path = tmp_path / "mixture.json"
    entries = [{"repo_id": "lab/pick", "root": f"{name}/pick"} for name in ("a", "b")]
    path.write_text(json.dumps({"datasets": entries}))
    return path


def test_findings_are_filed_per_folder_and_report_counts_each_once(mixture, tmp_path):
    where = ("--mixture-json", mixture, "--artifact-root", tmp_path / "out")
    found = run_cli("validate", *where, "--write", "--json").json
    files = sorted((tmp_path / "out").glob("*/meta/validation.json"))
    assert len(files) == 2
    errors = [
        len([f for f in json.loads(file.read_text())["findings"] if f["severity"] == "error"])
        for file in files
    ]
    assert sorted(map(bool, errors)) == [False, True]
    report = run_cli("report", *where, "--json").json
    assert report["validation"]["counts"]["error"] == found["counts"]["error"] == sum(errors)
