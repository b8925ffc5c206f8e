"""The README does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_blocks import run_page

from opentau_prep.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


@pytest.mark.slow
def test_every_block_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_page(README, tmp_path) == 7


def test_every_command_is_described():
    text = README.read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"`{name}" in text or f"opentau-prep {name}" in text


def test_every_link_and_make_target_exists():
    text = README.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), link
    benches = {p.stem for p in (ROOT / "scripts").glob("bench_*.py")}
    for name in re.findall(r"`bench-(\w+)`|make bench-(\w+)", text):
        assert f"bench_{''.join(name)}" in benches
