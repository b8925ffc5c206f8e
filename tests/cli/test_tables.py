"""Tables on terminals of several widths."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from opentau_prep.cli.tables import shortened, table

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
