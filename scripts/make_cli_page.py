"""Write docs/reference/cli.md from the commands and their help.

python scripts/make_cli_page.py [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer.main
from written_page import write_or_check

from opentau_prep.cli.app import app

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/cli.md"
_HEAD = """# Command line

Written by `scripts/make_cli_page.py` from the commands themselves. Exit codes and environment
variables are in the [README](../../README.md#in-a-pipeline). Options that most commands have are
explained once, under [Shared options](#shared-options).
"""
_Row = tuple[str, str, str]
"""An option, its help, and the panel of the help that it is in."""


def render() -> str:
    """Return the page: a section per command, then the options that most commands have."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("opentau-prep", [], resilient_parsing=True)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    commands = {name: command for name, command in commands.items() if not command.hidden}
    rows = {name: _rows(command, context, name) for name, command in commands.items()}
    counts: dict[_Row, int] = {}
    for row in (row for listed in rows.values() for row in listed):
        counts[row] = counts.get(row, 0) + 1
    shared = [row for row, count in counts.items() if count > len(commands) / 2]
    lines = [_HEAD]
    for name, command in commands.items():
        summary, _, rest = (command.help or "").replace("\b", "").partition("\n")
        own = [row for row in rows[name] if row not in shared]
        lines += [f"## `{name}`\n", f"{summary.strip()}\n", *_prose(rest), *_table(own)]
    lines += ["## Shared options\n", *_table(shared)]
    return "\n".join(lines)


def _rows(command: Any, parent: Any, name: str) -> list[_Row]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    found = []
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None:
            panel = getattr(param, "rich_help_panel", None) or ""
            found.append((_usage(param, record[0]), record[1], panel))
    return found


def _usage(param: Any, shown: str) -> str:
    """Return an option's names and value, written alike under every version of typer."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    shown = re.sub(r" [<\[](?:list\[)?([^<>\[\]]+)\]?[>\]]$", r" \1", shown)
    # Renderers disagree on an escaped bar in the code of a table.
    return re.sub(r"\S+\|\S+", lambda found: "{" + found[0].replace("|", ",") + "}", shown)


def _marked(text: str) -> str:
    """Return text with the options it names as code."""
    return text if "`" in text else re.sub(r"(?<![\w-])--[a-z][\w-]*", r"`\g<0>`", text)


def _prose(text: str) -> list[str]:
    """Return paragraphs; those of example commands as code."""
    found = []
    for paragraph in filter(None, (part.strip() for part in text.split("\n\n"))):
        lines = [line.strip() for line in paragraph.splitlines()]
        code = lines[0].startswith("opentau-prep ")
        found.append("\n".join(["```", *lines, "```"] if code else map(_marked, lines)) + "\n")
    return found


def _table(rows: list[_Row]) -> list[str]:
    """Return a table per panel of the help, those without one first."""
    found = []
    for panel in sorted({row[2] for row in rows}, key=lambda name: (name != "", name)):
        cells = [
            [" ".join(cell.split()).replace("|", r"\|") for cell in row[:2]]
            for row in rows
            if row[2] == panel
        ]
        body = "\n".join(
            f"| `{option}` | {_marked(text).replace('<', '&lt;')} |" for option, text in cells
        )
        heading = [f"{panel}:\n"] if panel else []
        found += [*heading, f"| option | meaning |\n| --- | --- |\n{body}\n"]
    return found


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render()))
