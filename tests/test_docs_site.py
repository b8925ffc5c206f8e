"""The docs site: pages are all in the navigation, links hold, commands print what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import run_page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Pages whose blocks start from an empty folder, with the words of their commands that end with 1.
RUNNABLE: dict[str, set[str]] = {
    "index.md": set(),
    "reference/schemas.md": set(),
    "tutorials/quantiles.md": set(),
    "tutorials/norm-stats.md": set(),
    "tutorials/mixture.md": set(),
    "tutorials/truncated-tokens.md": set(),
    "tutorials/checkpoint-stats.md": {"demo/datasets/demo/arm6_pick"},
    "tutorials/ci.md": set(),
    "tutorials/cluster.md": set(),
}


def test_every_page_is_in_the_navigation_once():
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == [page.relative_to(DOCS).as_posix() for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_linked_file_exists(page):
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_every_tutorial_is_run():
    tutorials = {page.relative_to(DOCS).as_posix() for page in (DOCS / "tutorials").glob("*.md")}
    assert tutorials == {name for name in RUNNABLE if name.startswith("tutorials/")}


@pytest.mark.parametrize("script", ["make_cli_page.py", "make_python_page.py"])
def test_a_written_page_is_fresh(script):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), "--check"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RUNNABLE))
def test_commands_print_what_the_page_shows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_page(DOCS / name, tmp_path, exit_1=RUNNABLE[name]) > 0


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the site needs the extra `docs`")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
