"""What stands in users' files stays data, on the page and on the terminal."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from builders import tiny_dataset
from page_reader import Page, read_page
from report_mixtures import facts_of, relative, run, working_in

from opentau_prep.report import plot
from opentau_prep.report.page import render_page
from opentau_prep.report.pictures import Pictures

SCRIPT = "<script>alert(1)</script>"
BREAKOUT = "\"'><img src=x onerror=alert(2)></svg></style>"
HIDDEN = "a\u202eb\x1b[31mc\u200bd\ud800"


@pytest.fixture
def hostile(tmp_path):
    """A prepared mixture whose every name is hostile."""
    tasks = (SCRIPT, BREAKOUT, "plain & simple")
    lengths = list(range(20, 34))
    tiny_dataset(
        tmp_path,
        "v3.0",
        name="data & <b>'q'",
        lengths=lengths,
        task_indices=[i % 3 for i in range(len(lengths))],
        tasks=tasks,
        robot_type=BREAKOUT,
        control_mode=SCRIPT,
        state_names=(SCRIPT, BREAKOUT, "</table>"),
        quantiles=True,
    )
    entry = {"repo_id": "o/a", "root": "data & <b>'q'"}
    path = tmp_path / "m <i>'x' $(touch pwned).json"
    vqa = {"vqa": "v<u>qa"}
    path.write_text(json.dumps({"datasets": [entry, vqa], "weights": None}))
    with working_in(tmp_path):
        yield path.name


def test_page_shows_hostile_texts_as_texts(hostile):
    for command in ("stats", "speed-percentiles"):
        assert run(command, "--mixture-json", hostile, "--workers", 1).exit_code == 0
    result = run("report", "--mixture-json", hostile)
    assert result.exit_code == 1
    page = read_page(Path(hostile).with_suffix(".prep") / "report.html")
    for text in (SCRIPT, BREAKOUT, "plain & simple", "</table>", "data & <b>'q'", "v<u>qa"):
        assert text in page.text
    assert {"b", "i", "u", "img"}.isdisjoint(tag for tag, _ in page.tags)
    assert any(BREAKOUT in (label or "") for label in page.attributes("aria-label"))


def test_commands_survive_a_shell(hostile):
    facts = facts_of(hostile)
    for each in (each for each in facts.to_do if each.command):
        words = shlex.split(relative(each.command))
        assert words[0] == "opentau-prep"
        assert hostile in words or "data & <b>'q'" in words


def test_page_spells_out_what_a_browser_would_obey(hostile):
    facts = facts_of(hostile)
    named = replace(facts.mixture.datasets[0], name=HIDDEN, robot_type=HIDDEN)
    changed = replace(facts, mixture=replace(facts.mixture, datasets=[named]))
    content = render_page(changed, Pictures())
    content.encode("utf-8")
    assert "a\\u202eb\\x1b[31mc\\u200bd\\ud800" in Page(content).text


def test_pictures_escape_every_text():
    made = plot.svg(10, 10, [plot.text(0, 0, BREAKOUT), plot.line(0, 0, 1, 1, "x", HIDDEN)], SCRIPT)
    page = Page(str(made))
    assert [tag for tag, _ in page.tags] == ["svg", "text", "line", "title"]
    assert page.tags[0][1]["aria-label"] == SCRIPT
    assert page.texts == [BREAKOUT, "a\\u202eb\\x1b[31mc\\u200bd\\ud800"]
