"""`--keep-going` where a dataset cannot even be opened, and what is said of vqa entries."""

from __future__ import annotations

import json
import shutil

import pytest
from builders import tiny_dataset
from cli_runner import run_cli


@pytest.mark.parametrize("name", ["stats", "speed-percentiles"])
def test_keep_going_dataset_that_cannot_be_opened_does_not_stop_the_others(tmp_path, name):
    good = tiny_dataset(tmp_path, "v2.1", name="good")
    bad = tiny_dataset(tmp_path, "v2.1", name="bad")
    (bad / "meta/info.json").write_text("{")
    stopped = run_cli(name, good, bad)
    assert stopped.code == 3
    assert "bad/meta/info.json" in stopped.err
    assert not (good / "meta/prep").exists()
    ran = run_cli(name, good, bad, tmp_path / "nowhere", "--keep-going", "--json")
    assert ran.code == 1, ran.err
    failures = ran.json["failures"]
    assert [f["dataset"] for f in failures] == ["bad", "nowhere"]
    assert str(bad / "meta/info.json") in failures[0]["where"]
    assert [d["dataset"] for d in ran.json["datasets"]] == ["good"]
    assert (good / "meta/prep").exists()


def _pair(tmp_path, *, spoil):
    tags = {"robot_type": "arm", "control_mode": "joint"}
    roots = [tiny_dataset(tmp_path, "v2.1", name=n, **tags) for n in ("good", "bad")]
    spoil(roots[1])
    mixture = tmp_path / "mixture.json"
    entries = [{"repo_id": f"o/{root.name}", "root": str(root)} for root in roots]
    mixture.write_text(json.dumps({"datasets": entries}))
    return mixture, roots[0]


def _stats_are_text(root):
    (root / "meta/episodes_stats.jsonl").write_text("{")


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
@pytest.mark.parametrize("spoil", [shutil.rmtree, _stats_are_text])
def test_run_keep_going_makes_no_heads_or_tokenizer_without_a_member(tmp_path, spoil, dry_run):
    mixture, good = _pair(tmp_path, spoil=spoil)
    assert run_cli("run", "--mixture-json", mixture, *dry_run).code == 3
    ran = run_cli("run", "--mixture-json", mixture, "--keep-going", "--json", *dry_run)
    assert ran.code == 1, ran.err
    steps = {step["step"]: step for step in ran.json["steps"]}
    for name in ("heads", "fit-tokenizer"):
        assert "bad" in steps[name]["reason"]
    assert [f["dataset"] for f in steps["stats"]["failures"]] == ["o/bad"]
    assert "good" in str(steps["speed-percentiles"]["datasets"])
    assert any(f["severity"] == "error" for f in steps["validate"]["findings"])
    assert not (tmp_path / "mixture.prep/norm_heads.json").exists()
    assert not (good / "meta/norm_heads").exists()
    assert (good / "meta/speed_percentiles.jsonl").exists() == (not dry_run)


def test_run_keep_going_says_in_its_table_what_was_not_done(tmp_path):
    mixture, _ = _pair(tmp_path, spoil=shutil.rmtree)
    ran = run_cli("run", "--mixture-json", mixture, "--keep-going")
    assert ran.code == 1
    lines = [line for line in ran.out.splitlines() if " not done: " in line]
    assert len(lines) == 2
    assert all("o/bad" in line for line in lines)


def test_keep_going_no_dataset_can_be_opened_exits_3(tmp_path):
    ran = run_cli("stats", tmp_path / "nowhere", "--keep-going")
    assert ran.code == 3
    assert "nowhere" in ran.err


@pytest.mark.parametrize("name", ["stats", "speed-percentiles", "run"])
def test_vqa_entries_are_said_to_be_left_out_once(tmp_path, name):
    root = tiny_dataset(tmp_path, "v2.1", robot_type="arm", control_mode="joint")
    entries = [{"repo_id": "o/d", "root": root.name}, {"vqa": "pictures"}]
    mixture = tmp_path / "mixture.json"
    mixture.write_text(json.dumps({"datasets": entries}))
    ran = run_cli(name, "--mixture-json", mixture, "--dry-run", cwd=tmp_path)
    assert [line for line in ran.warnings if "left out" in line] == [
        "Warning: vqa entries carry no robot data and are left out: pictures"
    ]
