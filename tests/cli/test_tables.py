"""Tables on terminals of several widths."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re

import pytest
from builders import tiny_dataset
from cli_runner import command, environment
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress

from opentau_prep.cli.session import time_column
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
@pytest.mark.parametrize("words", ["stats", "heads", "speed-percentiles", "val-plan", "forecast"])
def test_commands_give_each_row_one_line_on_80_columns(tmp_path, words):
    mixture = write_demo(tmp_path / "demo")
    sizes = ("--world-size", 2, "--batch-size", 8) if words == "val-plan" else ()
    screen = on_terminal(command(words, "--mixture-json", mixture, "--dry-run", *sizes), 80)
    rows = [match for line in screen if (match := re.match(r" +(?:\d+ +)?(demo\S+) .*", line))]
    assert max(cell_len(row[0]) for row in rows) <= 80
    assert len(rows) == len({row[1] for row in rows}) >= 6
    assert not overlong(screen)
    assert not any("\x1b[2m" in line or "\x1b[33m" in line for line in screen)


def test_validate_wraps_between_words_on_80_columns(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", n_episodes=3)
    for path in (root / "data").rglob("*.parquet"):
        path.unlink()
    screen = on_terminal(command("validate", root), 80)
    assert not overlong(screen)
    assert sum("F006" in line for line in screen) == 1, screen


def overlong(screen):
    """Return the lines that a terminal of 80 columns cuts, but for paths and commands."""
    long = [line for line in screen if cell_len(line) > 80]
    return [line for line in long if "$ " not in line and max(map(len, line.split())) < 60]


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


def test_progress_shows_the_time_so_far_and_then_the_time_left():
    now = [0.0]
    column = time_column()
    progress = Progress(column, console=Console(file=io.StringIO()), get_time=lambda: now[0])
    progress.add_task("stats", total=3, at=0.0)
    (task,) = progress.tasks
    now[0] = 65.0
    assert column.render(task).plain == "1:05 so far"
    for done in (1, 2):
        now[0] += 3600.0
        progress.update(task.id, completed=done, at=now[0])
    assert column.render(task).plain == "1:00:32 left"
    now[0] += 1800.0
    assert column.render(task).plain == "30:32 left"


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
