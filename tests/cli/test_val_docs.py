"""docs/validation-loss.md does what it says: its commands print what it shows."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import command, environment

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/validation-loss.md"
FENCE = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(words, folder):
    """Return what a command of the page prints on stdout, run in `folder`."""
    if words[0] == "opentau-prep":
        line = command(*words[1:])
    else:
        line = [sys.executable, str(ROOT / words[1]), *words[2:]]
    done = subprocess.run(
        line,
        cwd=folder,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(text):
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.slow
def test_every_block_of_the_page_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = FENCE.findall(PAGE.read_text(encoding="utf-8"))
    assert {kind for kind, _ in blocks} == {"console", "python"}
    for kind, body in blocks:
        if kind == "python":
            exec(compile(body, str(PAGE), "exec"), {})
            continue
        for step in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            typed, _, shown = step.partition("\n")
            assert lines(run(shlex.split(typed), tmp_path)) == lines(shown), typed


def test_scripts_that_the_page_names_exist():
    named = set(re.findall(r"scripts/\w+\.py", PAGE.read_text(encoding="utf-8")))
    assert len(named) == 6
    assert all((ROOT / name).is_file() for name in named)
