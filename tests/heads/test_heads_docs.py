"""docs/heads.md does what it says: its commands print what stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from cli_runner import command, environment

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/heads.md"
FENCE = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def lines(text):
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.slow
def test_every_block_of_the_page_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = FENCE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 5
    for kind, body in blocks:
        if kind == "python":
            exec(compile(body, str(PAGE), "exec"), {})
            continue
        for step in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            typed, _, shown = step.partition("\n")
            words = shlex.split(typed)
            done = subprocess.run(
                command(*words[1:]),
                cwd=tmp_path,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == (1 if "--audit" in words else 0), done.stderr
            assert lines(done.stdout) == lines(shown), typed
