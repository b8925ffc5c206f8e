"""`opentau-prep diff`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.options import Formula
from opentau_prep.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.cli.session import Session
    from opentau_prep.diff import Diff

__all__ = ["diff"]

MAX_ROWS = 40


def diff(
    session: Session,
    a: Annotated[Path, typer.Argument(metavar="A", help="The first.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The second, of the same kind.")],
    formula: Annotated[
        Formula | None,
        typer.Option(help="Whose formula normalizes. Default: that of each one's trainer."),
    ] = None,
) -> Result:
    """Show what moved between two mixtures, stats, norm heads or tokenizers.

    Sorted by what it does to normalized values: the effect is by how much a value in [-1, 1] of A
    moves under B. Stats are of any origin that forecast reads. Exit code 1 when something moved.

    \b
    opentau-prep diff old.json new.json
    opentau-prep diff a.prep/norm_heads.json b.prep/norm_heads.json
    opentau-prep diff checkpoint/pretrained_model data/pick/meta/stats.json --formula lerobot
    opentau-prep diff a.prep/tokenizer b.prep/tokenizer
    """
    from opentau_prep.diff import diff as compare

    found = compare(a, b, session.context, formula=None if formula is None else formula.value)

    def render(console: Console) -> None:
        _render(console, found)

    return Result(found.as_json(), render, exit_code=int(bool(found.moved)))


def _render(console: Console, found: Diff) -> None:
    from opentau_prep.cli.tables import table

    seen = [each for each in found.moved if each.effect is not None]
    written = [each for each in found.moved if each.effect is None]
    for title, group in (("Normalized values move", seen), ("Other changes", written)):
        if group:
            rows = [
                ["-" if m.effect is None else f"{m.effect:,.3g}", m.where or "-", m.what,
                 m.before or "-", m.after or "-"]
                for m in group[:MAX_ROWS]
            ]  # fmt: skip
            columns = ("#effect", "of", "what", "A", "B")
            console.print(table(columns, rows, title=f"{title}: {len(group)}"))
        if len(group) > MAX_ROWS:
            console.print(f"and {len(group) - MAX_ROWS} more: see --json", markup=False)
    if not found.moved:
        console.print(f"The two {found.kind} are the same.", markup=False)
    for note in found.notes:
        console.print(printable(f"Note: {note}"), markup=False, soft_wrap=True)
