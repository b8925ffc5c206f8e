"""Tables on terminals of several widths."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re

import pytest
from cli_runner import command, environment
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from opentau_prep.cli.tables import shortened, table
from opentau_prep.demo.mixture import write_demo

NAMES = [
    "demo/arm6_pick",
    "demo/arm6_stack",
    "demo/arm6_pose",
    "demo/bimanual_fold#0",
    "demo/bimanual_fold#1",
]
COLUMNS = ("dataset", "file", "status", "?added", "?backup")
ROWS = [
    (name, "meta/episodes/chunk-000/file-000.parquet", "up to date", "q01, q10, q50", "x.bak-1234")
    for name in NAMES
]


def drawn(width, columns=COLUMNS, rows=ROWS):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table(columns, rows))
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_table_gives_each_row_one_line_and_each_name_a_text_of_its_own(width):
    lines = drawn(width)
    assert len(lines) == 2 + len(ROWS)
    assert max(map(cell_len, lines)) <= width
    assert len({line.split()[0] for line in lines[2:]}) == len(NAMES)
    assert all("up to date" in line for line in lines[2:])


HEADS = ["demo_arm6::joint", "demo_bimanual::joint", "demo_humanoid::joint", "demo_arm6::ee"]


@pytest.mark.parametrize("width", [24, 30, 60])
def test_table_cuts_names_with_one_end_where_they_differ(width):
    lines = drawn(width, ("head", "#members", "?#frames"), [(name, 2, 4049) for name in HEADS])
    assert max(map(cell_len, lines)) <= width
    assert len({line.split()[0] for line in lines[2:]}) == len(HEADS)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["stats", "heads", "speed-percentiles", "val-plan"])
def test_commands_give_each_row_one_line_on_80_columns(tmp_path, words):
    mixture = write_demo(tmp_path / "demo")
    sizes = ("--world-size", 2, "--batch-size", 8) if words == "val-plan" else ()
    screen = on_terminal(command(words, "--mixture-json", mixture, "--dry-run", *sizes), 80)
    rows = [match for line in screen if (match := re.match(r" +(?:\d+ +)?(demo\S+) .*", line))]
    assert max(cell_len(row[0]) for row in rows) <= 80
    assert len(rows) == len({row[1] for row in rows}) >= 6
    assert not any("\x1b[2m" in line or "\x1b[33m" in line for line in screen)


def on_terminal(words, width):
    """Run a command on a terminal of a width; return its lines without progress and movements."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(words[0], words, {**environment(), "COLUMNS": str(width), "TERM": "xterm"})
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the command has ended
        while part := os.read(terminal, 65536):
            shown += part
    os.waitpid(child, 0)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-ln-z]", "", shown.decode())
    text = re.sub(r"\x1b\[[01]?m", "", text)
    return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]


def test_table_leaves_out_optional_columns_from_the_right_before_it_cuts():
    assert "backup" in drawn(140)[0]
    assert "added" in drawn(95)[0]
    assert "backup" not in drawn(95)[0]
    assert "meta/episodes/chunk-000/file-000.parquet" in drawn(80)[2]


@given(st.text(max_size=40), st.integers(1, 40))
def test_shortened_never_exceeds_its_width_and_keeps_what_fits(text, width):
    cut = shortened(text, width)
    assert cell_len(cut) <= width
    assert cut == text or "…" in cut
    assert cut == text or cell_len(text) > width
