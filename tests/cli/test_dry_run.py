"""`--dry-run` changes no file, neither in the datasets nor in the user's cache."""

from __future__ import annotations

import json

import pytest
from builders import tiny_dataset
from cli_runner import run_cli

FIT = ("--chunk-size", 4, "--total-chunks", 20, "--vocab-size", 300, "--max-token-length", 8)
COMMANDS = {
    "stats": (),
    "stats openpi": ("--format", "openpi"),
    "speed-percentiles": (),
    "fit-tokenizer": FIT,
    "validate": ("--deep", "--fix", "--write"),
    "run": (),
}


@pytest.fixture
def mixture(tmp_path):
    tags = {"robot_type": "arm", "control_mode": "joint"}
    roots = [tiny_dataset(tmp_path, "v2.1", name=name, **tags) for name in "ab"]
    file = tmp_path / "mixture.json"
    entries = [{"repo_id": f"o/{root.name}", "root": str(root)} for root in roots]
    file.write_text(json.dumps({"datasets": entries}))
    return file


# In worker processes, too.
@pytest.mark.parametrize(("name", "workers"), [*((name, 1) for name in COMMANDS), ("stats", 2)])
def test_dry_run_writes_nothing_at_all(tmp_path, mixture, name, workers):
    args = (name.split()[0], "--mixture-json", mixture, *COMMANDS[name], "--workers", workers)
    env = {"OPENTAU_PREP_CACHE_DIR": str(tmp_path / "cache")}
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    ran = run_cli(*args, "--dry-run", cwd=tmp_path, env=env)
    assert ran.code == 0, ran.err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    if name == "stats":
        assert run_cli(*args, cwd=tmp_path, env=env).code == 0
        assert (tmp_path / "cache").exists()
