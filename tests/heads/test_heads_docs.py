"""docs/heads.md does what it says: its commands print what stands there."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_blocks import run_page

PAGE = Path(__file__).resolve().parents[2] / "docs/heads.md"


@pytest.mark.slow
def test_every_block_of_the_page_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_page(PAGE, tmp_path, exit_1={"--audit"}) == 5
