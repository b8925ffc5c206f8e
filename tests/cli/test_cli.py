"""The shell of the command line: streams, documents, exit codes, help."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from builders import tiny_dataset
from cli_runner import command, environment, run_cli
from typer.testing import CliRunner

from opentau_prep.cli.app import COMMANDS, app


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example(name):
    ran = run_cli(name, "--help")
    assert ran.code == 0
    assert f"opentau-prep {name}" in ran.out
    assert "\\b" not in ran.out
    for option in ("--json", "--dry-run", "--force", "--workers", "--artifact-root"):
        assert option in ran.out


def test_help_and_import_load_nothing_heavy():
    code = (
        "import sys, opentau_prep, runpy\n"
        "sys.argv = ['opentau-prep', '--help']\n"
        "try: runpy.run_module('opentau_prep', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'pyarrow', 'sklearn', 'tokenizers', 'numpy', 'pydantic', 'torch'}\n"
        "sys.stderr.write(repr(sorted(heavy & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stderr == "[]"


def test_version_names_the_package_and_the_trainers_it_equals():
    import opentau_prep

    first, second = run_cli("--version").out.splitlines()
    assert first == f"opentau-prep {opentau_prep.__version__}"
    assert second.startswith("equals OpenTau 0.13")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["speed-percentiles"], 2, "no dataset given"),
        (["speed-percentiles", "--nonsense"], 2, "--nonsense"),
        (["speed-percentiles", "--workers", "0", "x"], 2, "--workers"),
        (["speed-percentiles", "--engine", "abacus", "{root}"], 2, "abacus"),
        (["speed-percentiles", "-q", "-v", "{root}"], 2, "contradict"),
        (["speed-percentiles", "/nonexistent"], 3, "/nonexistent"),
        (["speed-percentiles", "{root}", "--mixture-json", "m.json"], 2, "exclude each other"),
        (["run", "--mixture-json", "/nonexistent.json"], 2, "/nonexistent.json"),
        (["speed-percentiles", "s3://bucket/x"], 4, "--artifact-root DIR"),
    ],
)
def test_expected_error_one_message_and_its_exit_code(args, code, says, tmp_path):
    root = tiny_dataset(tmp_path)
    ran = run_cli(*(a.format(root=root) for a in args))
    assert ran.code == code, ran.err
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_json_error_is_one_document_too(tmp_path):
    ran = run_cli("speed-percentiles", tmp_path / "nothing", "--json")
    assert ran.code == 3
    assert ran.json["error"]["kind"] == "MetadataError"
    assert ran.json["exit_code"] == 3


def test_launcher_variables_that_make_no_sense_exit_2(tmp_path):
    ran = run_cli("speed-percentiles", tmp_path, env={"RANK": "x", "WORLD_SIZE": "2"})
    assert ran.code == 2
    assert "RANK" in ran.err


def test_quiet_prints_nothing_but_keeps_warnings(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=3)
    (root / "meta/speed_percentiles.jsonl").write_text("")
    ran = run_cli("speed-percentiles", root, "--quiet")
    assert (ran.code, ran.out) == (0, "")
    assert len(ran.warnings) == 1


def test_names_from_files_are_text_not_markup(tmp_path):
    root = tiny_dataset(tmp_path, name="[bold]x[red]", n_episodes=3, tasks=("[red]do[/]",))
    ran = run_cli("speed-percentiles", root)
    assert ran.code == 0, ran.err
    assert "[bold]x[red]" in ran.out
    assert "[red]do[/]" in ran.out


def test_names_of_heads_in_titles_are_text_not_markup(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", robot_type="[red]x[/] [/foo]", control_mode="joint")
    ran = run_cli("heads", root, "--dry-run", "--explain", f"{root.name}:state:0", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "[red]x[/] [/foo]::joint: state[0]" in ran.out


def test_demo_dry_run_writes_nothing(tmp_path):
    ran = run_cli("demo", "--out", tmp_path / "demo", "--dry-run")
    assert ran.code == 0, ran.err
    assert "Would write" in ran.out
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "demo").write_text("in the way")
    assert run_cli("demo", "--out", tmp_path / "demo", "--dry-run").code == 4


@pytest.mark.parametrize("option", ["--json", "--force"])
def test_reader_of_stdout_gone_no_complaint(tmp_path, option):
    root = tiny_dataset(tmp_path)
    process = subprocess.Popen(
        command("speed-percentiles", root, option),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_exit_code_without_traceback(tmp_path, sent, code):
    root = tiny_dataset(tmp_path)
    # Another rank waits for the main one: a place where the signal surely finds it at work.
    process = subprocess.Popen(
        command("speed-percentiles", root),
        env=environment({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.0)
    os.kill(process.pid, sent)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert out == ""
    assert "Interrupted" in err
    assert "Traceback" not in err


def test_not_persisted_is_exit_4_unless_it_was_asked_for(tmp_path, monkeypatch):
    root = tiny_dataset(tmp_path)
    before = sorted(root.rglob("*"))
    create = os.open

    def read_only(path, flags, *rest, **named):
        if flags & os.O_CREAT and str(path).startswith(str(root)):
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return create(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)

    def run(*args):
        return CliRunner().invoke(app, ["speed-percentiles", str(root), *map(str, args)])

    refused = run()
    assert refused.exit_code == 4, refused.output
    assert "--no-persist" in refused.output
    for options in (["--no-persist"], ["--artifact-root", tmp_path / "elsewhere"]):
        done = run(*options)
        assert done.exit_code == 0, done.output
        assert "cannot be written" not in done.output
        assert "do task 0" in done.output
    assert [path for path in sorted(root.rglob("*")) if path.is_file()] == [
        path for path in before if path.is_file()
    ]


@pytest.mark.slow
def test_demo_then_run_then_fresh(tmp_path):
    mixture = tmp_path / "demo/mixture.json"
    wrote = run_cli("demo", "--out", tmp_path / "demo")
    first = run_cli("run", "--mixture-json", mixture)
    page = run_cli("report", "--mixture-json", mixture)
    again = run_cli("run", "--mixture-json", mixture)
    assert {wrote.code, first.code, page.code, again.code} == {0}, first.err
    lines = [line for ran in (wrote, first, page) for line in (ran.err + ran.out).splitlines()]
    facts = [line for line in lines if line.strip() and "$ " not in line]
    assert len(lines) <= 38  # of `make demo`, which prints two of its commands, too
    assert len((again.err + again.out).splitlines()) <= 25
    assert "Nothing to do: everything is up to date." in again.out
    shown_by_both = ["Worth a look:", "Ready to train."]
    assert not {f for f in facts if facts.count(f) > 1}.difference(shown_by_both)
    written = {p: p.read_bytes() for p in (tmp_path / "demo").rglob("*") if p.is_file()}
    second = run_cli("run", "--mixture-json", mixture, "--json")
    assert second.code == 0, second.err
    assert {p: p.read_bytes() for p in (tmp_path / "demo").rglob("*") if p.is_file()} == written
    for step in second.json["steps"]:
        assert not any(d.get("status") == "written" for d in step.get("datasets", []))


def test_mixture_faults_name_file_path_value_and_nearest_field(tmp_path):
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"datasets": [{"repo_id": "a/b", "robot_typ": "x"}]}))
    ran = run_cli("run", "--mixture-json", path)
    assert ran.code == 2
    for part in (str(path), "datasets[0].robot_typ", "robot_type"):
        assert part in ran.err


def test_run_dry_goes_on_past_a_step_that_needs_what_was_not_written(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=12, state_dim=3, action_dim=2)
    entry = {
        "repo_id": "o/d",
        "root": str(root),
        "use_delta_joint_actions": True,
        "delta_action_state_map": {"0": 0},
    }
    mixture = tmp_path / "mixture.json"
    mixture.write_text(json.dumps({"datasets": [entry]}))
    before = sorted(tmp_path.rglob("*"))
    ran = run_cli("run", "--mixture-json", mixture, "--dry-run", "--json")
    assert ran.code == 1, ran.err
    steps = {step["step"]: step for step in ran.json["steps"]}
    assert "opentau-prep stats" in steps["heads"]["reason"]
    assert steps["speed-percentiles"]["datasets"][0]["status"] == "would write"
    table = run_cli("run", "--mixture-json", mixture, "--dry-run")
    assert "not shown, as this would stop it now" in table.out
    assert sorted(tmp_path.rglob("*")) == before
