"""Help as plain text: options under a heading per purpose, no description cut off.

Drawing help with Rich triples the time that `--help` and completion take. Contexts and formatters
are untyped here: they are click's, or those of the copy of click that newer versions of typer hold.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

__all__ = ["PlainCommand", "PlainGroup"]


class PlainCommand(TyperCommand):
    """A command whose options are listed under the headings that they declare."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options; see `click.Command.format_options`."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if param.param_type_name == "argument" else "Options"
                heading = getattr(param, "rich_help_panel", None) or usual
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class PlainGroup(TyperGroup):
    """A group whose commands are listed with their whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands; see `click.Group.format_commands`."""
        rows = []
        for name in self.list_commands(ctx):
            found = self.get_command(ctx, name)
            if found is not None and not found.hidden:
                rows.append((name, found.get_short_help_str(limit=1_000)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)
