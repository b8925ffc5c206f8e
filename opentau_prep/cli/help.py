"""A command as typer builds it, with help as plain text and options that cost little.

Drawing help with Rich triples the time that `--help` and completion take. Contexts and formatters
are untyped here: they are click's, or those of the copy of click that newer versions of typer hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

__all__ = ["PlainCommand", "take_as_they_are"]


class _Value:
    """Takes for a parameter what needs no conversion, and leaves the rest to typer.

    Typer makes an adapter of each option, given or not, and for the first of them imports pydantic:
    a tenth of a second of CPU.
    """

    def __init__(self, param: Any) -> None:
        self._kind = param.type_descriptor.annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of an option; see typer's `RuntimeParam`."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if self._kind == list[str] and isinstance(value, list | tuple):
            return list(value)
        if self._kind is Path and isinstance(value, str):
            return Path(value)
        if isinstance(self._kind, type) and issubclass(self._kind, Enum):
            named = [each for each in self._kind if value in (each, each.value)]
            if named:
                return named[0]
        elif self._kind is str and isinstance(value, str):
            return value
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def take_as_they_are(params: Iterable[Any]) -> None:
    """Have parameters take strings, paths, and what was not given, without typer's adapters."""
    for param in params:
        if getattr(param, "_runtime_param", ...) is None:
            param._runtime_param = _Value(param)


class PlainCommand(TyperCommand):
    """A command whose options are listed under the headings that they declare."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`."""
        take_as_they_are(self.get_params(ctx))
        return super().parse_args(ctx, args)

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
