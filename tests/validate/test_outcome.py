"""What becomes of findings: formats, selection, settings, baselines, files, fixes, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from breaking import (
    both,
    check,
    codes_of,
    feature,
    info,
    lines,
    mutation,
    write_broken,
    written,
)

from opentau_prep.cli.app import app
from opentau_prep.config.load import mixture_from_roots
from opentau_prep.config.salvage import Salvage
from opentau_prep.context import RunContext
from opentau_prep.errors import ConfigError
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.speed import prepare_speed
from opentau_prep.validate import validate
from opentau_prep.validate.catalogue import all_rules, find_rule, pick_rules
from opentau_prep.validate.check import dataset_views
from opentau_prep.validate.fix import apply_fix, plan_fixes
from opentau_prep.validate.formats import as_github, as_junit, as_text
from opentau_prep.validate.rule import GROUPS
from opentau_prep.validate.settings import load_settings

REPO = Path(__file__).resolve().parents[2]
SPEED = "meta/speed_percentiles.jsonl"
BROKEN = mutation(
    "several things",
    "",
    files=both(
        info(total_episodes=5, total_frames=390, splits={"train": "0:5"}),
        feature("observation.state", names=[list("abcdef")]),
        lines("meta/tasks.jsonl", lambda rows: [*rows, {"task_index": 2, "task": "wave\x1b[31m"}]),
    ),
)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # what is written for roots goes to the working directory
    root = tmp_path / "broken"
    write_broken(root, BROKEN)
    return root


def run(*arguments: object, expect: int = 0) -> str:
    """Run the command in this process and return its stdout."""
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["validate", *map(str, arguments)])
    assert result.exit_code == expect, result.output
    return result.stdout


# The catalogue


def test_catalogue_codes_are_unique_and_of_known_groups() -> None:
    rules = all_rules()

    assert len({rule.code for rule in rules}) == len(rules)
    assert len({rule.name for rule in rules}) == len(rules)
    assert {rule.code[0] for rule in rules} <= set(GROUPS)
    assert all(len(rule.code) == 4 and rule.code[1:].isdecimal() for rule in rules)
    assert all(rule.what and rule.why and rule.fix for rule in rules)


def test_rules_page_is_fresh() -> None:
    script = REPO / "scripts/make_rules_page.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"],
        env={"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("select", "ignore", "expected"),
    [
        (["F001"], [], {"F001"}),
        (["F00"], ["F002"], {f"F00{i}" for i in range(1, 10)} - {"F002"}),
        (["D005"], ["D"], {"D005"}),
        (["D"], ["D00"], set()),
        (["jump"], [], {"D004"}),
        (["t"], ["ALL"], {f"T00{i}" for i in range(1, 7)}),
    ],
)
def test_pick_rules_longer_prefix_wins(select, ignore, expected) -> None:
    assert {rule.code for rule in pick_rules(select, ignore)} == expected


def test_pick_rules_unknown_prefix_is_refused() -> None:
    with pytest.raises(ConfigError, match="Q9"):
        pick_rules(["Q9"])


def test_list_and_explain_show_the_catalogue() -> None:
    listed = run("--list")

    assert [line[:4] for line in listed.splitlines()] == [rule.code for rule in all_rules()]
    assert find_rule("S019").why in run("--explain", "s019")
    assert json.loads(run("--list", "--json"))["rules"][0]["code"] == "F001"
    run("--explain", "Q001", expect=2)


# Formats


def test_text_groups_by_dataset_and_spells_control_characters_out(broken: Path) -> None:
    text = as_text(check(broken))

    assert text.startswith(
        f"broken ({broken})\n  error   F009 meta/info.json: total_episodes is 5, "
    )
    assert "\x1b" not in text
    assert text.splitlines()[-1].startswith("Checked 1 dataset with their frames: 1 error")


def test_github_gives_one_annotation_a_finding(broken: Path) -> None:
    report = check(broken)

    rows = as_github(report).splitlines()

    assert len(rows) == len(report.findings)
    assert rows[0].startswith(f"::error file={broken}/meta/info.json,title=F009 count-episodes")
    assert all(row.split(" ")[0] in ("::error", "::warning", "::notice") for row in rows)


def test_junit_is_xml_whose_failures_are_the_findings(broken: Path, tmp_path: Path) -> None:
    write_broken(tmp_path / "clean", mutation("clean", ""))
    report = check(broken, tmp_path / "clean")

    suites = ElementTree.fromstring(as_junit(report).encode())

    counted = [f for f in report.findings if f.severity != "note"]
    assert len(suites.findall(".//failure")) == len(counted)
    assert {suite.get("name") for suite in suites} == {"broken", "clean"}
    clean = next(suite for suite in suites if suite.get("name") == "clean")
    assert clean.get("failures") == "0"


def test_json_is_the_library_result(broken: Path) -> None:
    document = json.loads(run(broken, "--deep", "--json", expect=1))

    assert document["findings"] == check(broken).as_json()["findings"]
    assert json.loads(run(broken, "--deep", "--format", "json", expect=1)) == document


# Exit codes, settings, baselines


def test_exit_code_counts_errors_and_with_strict_warnings(tmp_path: Path) -> None:
    root = tmp_path / "d"
    write_broken(root, mutation("warnings only", "", files=info(total_tasks=9)))

    run(root)
    run(root, "--strict", expect=1)
    run(root, "--strict", "--ignore", "F011")
    run(root, "--strict", "--select", "E,S")
    run(expect=2)
    run(tmp_path / "nowhere", expect=1)
    run("--mixture-json", tmp_path / "none.json", expect=2)


def test_settings_of_the_folder_hold_and_options_go_before(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.opentau-prep.validate]\nignore = ["F", "K"]\nstrict = true\n'
        'per-dataset-ignores = {"brok*" = ["C010"]}\n'
    )
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)

    assert "nothing found" in run(broken)
    (below / "opentau-prep.toml").write_text('[validate]\nselect = ["F009"]\n')
    assert json.loads(run(broken, "--json", expect=1))["counts"]["error"] == 1
    assert json.loads(run(broken, "--json", "--select", "F011"))["findings"]


@pytest.mark.parametrize(
    "text",
    [
        "[validate]\nselct = ['F']",
        "[validate]\nselect = 'F'",
        "[validate]\nselect = ['Q']",
        "[validate]\nstrict = 1",
        "[validate\n",
        "validate = 3",
    ],
)
def test_load_settings_faulty_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "opentau-prep.toml").write_text(text)

    with pytest.raises(ConfigError):
        load_settings(tmp_path)


def test_baseline_accepts_the_known_and_fails_on_the_new(broken: Path, tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    run(broken, "--baseline", file, expect=2)

    run(broken, "--baseline", file, "--write-baseline")
    assert "accepted" in run(broken, "--baseline", file, "--strict")
    info(total_frames=27624)(broken)  # another number is no other finding
    run(broken, "--baseline", file, "--strict")
    info(fps=0)(broken)

    text = run(broken, "--baseline", file, expect=1)
    assert "F014" in text
    assert "F009" not in text


def test_write_puts_findings_with_provenance_under_meta(broken: Path) -> None:
    run(broken, "--write", expect=1)
    written_once = (broken / "meta/validation.json").read_bytes()
    run(broken, "--write", expect=1)

    assert (broken / "meta/validation.json").read_bytes() == written_once
    found = json.loads(written_once)["findings"]
    assert {f["code"] for f in found} == codes_of(check(broken, deep=False))
    provenance = json.loads((broken / "meta/prep/validation.json").read_text())
    assert provenance["command"] == "validate"
    run(broken, "--write", "--dry-run", expect=1)


# Fixes


def test_fix_mends_counts_shows_a_diff_and_keeps_the_old_file(broken: Path) -> None:
    before = (broken / "meta/info.json").read_bytes()

    shown = run(broken, "--fix", "--dry-run", expect=1)
    assert '+{"codebase_version"' in shown
    assert (broken / "meta/info.json").read_bytes() == before
    run(broken, "--fix")

    mended = json.loads((broken / "meta/info.json").read_text())
    assert (mended["total_episodes"], mended["total_frames"]) == (6, 450)
    assert mended["splits"] == {"train": "0:6"}
    assert mended["total_tasks"] == 3
    (kept,) = (broken / "meta").glob("info.json.bak-*")
    assert kept.read_bytes() == before
    assert {k: v for k, v in mended.items() if k not in ("splits",) and "total" not in k} == {
        k: v for k, v in json.loads(before).items() if k not in ("splits",) and "total" not in k
    }


def test_fix_changes_nothing_else_in_the_text(tmp_path: Path) -> None:
    root = tmp_path / "d"
    write_broken(root, mutation("clean", ""))
    file = root / "meta/info.json"
    before = file.read_text()
    file.write_text(before.replace('"total_frames": 450', '"total_frames": 27623'))

    (fix,) = _plans(root)

    assert fix.after.decode() == before


@pytest.mark.parametrize(("said", "gone"), [(105, False), (4, True)])
def test_fix_leaves_counts_alone_of_a_part_and_where_the_disk_disagrees(tmp_path, said, gone):
    root = tmp_path / "d"
    removed = [written("data/chunk-000/episode_000002.parquet", None)] if gone else []
    write_broken(root, mutation("x", "", files=both(info(total_episodes=said), *removed)))

    assert _plans(root) == []


def _plans(root: Path):
    context = RunContext(workers=1)
    _, views = dataset_views(Salvage.of(mixture_from_roots([root])), context)
    return plan_fixes(views[0], context)


@pytest.mark.parametrize("case", ["adopted", "stale", "edited", "differs"])
def test_fix_renews_what_needs_no_judgement(tmp_path: Path, case: str) -> None:
    root = tmp_path / "d"
    write_broken(root, mutation("clean", ""))
    prepare_speed(resolve_mixture(mixture_from_roots([root])), RunContext(workers=1))
    if case == "stale":
        edit = lambda rows: [{**r, "task": r["task"] + "!"} for r in rows]  # noqa: E731
        lines("meta/tasks.jsonl", edit)(root)
    elif case == "edited":
        (root / SPEED).write_bytes((root / SPEED).read_bytes() + b"\n")
    else:
        (root / "meta/prep/speed_percentiles.json").unlink()
    if case == "differs":
        lines(SPEED, lambda rows: [{**r, "n_episodes": 2} for r in rows])(root)

    fixes = _plans(root)
    for fix in fixes:
        apply_fix(fix)

    after = codes_of(check(root, deep=False, rules=pick_rules(["A"])))
    expected = {"adopted": set(), "stale": set(), "edited": {"A004"}, "differs": {"A003", "A006"}}
    assert after == expected[case]
    assert bool(fixes) == (case in ("adopted", "stale"))


# In a run


def test_validate_many_datasets_in_processes_says_the_same(tmp_path: Path) -> None:
    from opentau_prep.config.load import load_mixture
    from opentau_prep.demo.many import write_many

    file = write_many(tmp_path / "many", 42, n_episodes=2, episode_frames=8)
    broken = sorted(file.parent.rglob("meta/info.json"))[5:8]
    for info_file in broken:
        info_file.write_bytes(b"{")
    subject = Salvage.of(load_mixture(file))

    one = validate(subject, RunContext(workers=1))
    two = validate(subject, RunContext(workers=2))

    assert [f.code for f in one.findings].count("F001") == 3
    assert list(two.findings) == list(one.findings)
