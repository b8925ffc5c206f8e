"""`report` as users run it: exit codes, dry runs, files in the way, ranks."""

from __future__ import annotations

import json

import pytest
from builders import tiny_dataset
from cli_runner import run_cli


@pytest.fixture
def mixture(tmp_path):
    tiny_dataset(tmp_path, "v2.1", name="a", lengths=[20, 30])
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"datasets": [{"repo_id": "o/a", "root": "a"}]}))
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_report_dry_run_and_other_ranks_write_nothing(mixture, tmp_path):
    before = names(tmp_path)
    ran = run_cli("report", "--mixture-json", mixture, "--dry-run", cwd=tmp_path)
    assert (ran.code, names(tmp_path)) == (1, before)
    assert "mixture.prep/report.html: would write" in ran.out
    env = {"WORLD_SIZE": "2", "RANK": "1"}
    other = run_cli("report", "--mixture-json", mixture, "--json", cwd=tmp_path, env=env)
    assert (other.code, names(tmp_path), other.err) == (1, before, "")
    assert other.json["out"]["status"] == "left to the main rank"
    main = run_cli("report", "--mixture-json", mixture, "--json", cwd=tmp_path)
    assert names(tmp_path) == sorted([*before, "mixture.prep"])
    assert names(tmp_path / "mixture.prep") == ["report.html", "report.html-prep.json"]
    shared = ("to_do", "mixture", "artifacts", "heads", "notices")
    assert [other.json[key] for key in shared] == [main.json[key] for key in shared]


def test_report_leaves_a_foreign_file_alone_unless_forced(mixture, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("mine")
    ran = run_cli("report", "--mixture-json", mixture, "--out", out)
    assert (ran.code, out.read_text()) == (4, "mine")
    assert "--force" in ran.err
    assert run_cli("report", "--mixture-json", mixture, "--out", out, "--force", "-q").code == 1
    assert [path.read_text() for path in tmp_path.glob("report.html.bak-*")] == ["mine"]


def test_report_replaces_its_own_older_page_without_a_word(mixture, tmp_path):
    out = tmp_path / "report.html"
    arguments = ("report", "--mixture-json", mixture, "--out", out, "--json")
    first = run_cli(*arguments)
    assert run_cli("speed-percentiles", tmp_path / "a", "-q").code == 0
    again = run_cli(*arguments)
    assert (first.json["out"]["status"], again.json["out"]["status"]) == ("written", "written")
    assert again.json["warnings"] == first.json["warnings"]
    assert not list(tmp_path.glob("report.html.bak-*"))


def test_report_of_nothing_or_into_a_folder_is_wrong_usage(mixture, tmp_path):
    assert run_cli("report").code == 2
    ran = run_cli("report", "--mixture-json", mixture, "--out", tmp_path)
    assert ran.code == 2
    assert "is a folder" in ran.err


def test_report_of_plain_roots_names_them_in_commands(mixture, tmp_path):
    ran = run_cli("report", "a", cwd=tmp_path)
    assert ran.code == 1
    assert f"opentau-prep run {tmp_path / 'a'}\n" in ran.out
