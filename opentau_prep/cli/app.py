"""The command `opentau-prep` and its subcommands, each imported and built when it is called."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from opentau_prep.cli.command import command, print_error
from opentau_prep.cli.help import take_as_they_are
from opentau_prep.text import printable
from opentau_prep.trainers import versions

__all__ = ["COMMANDS", "app", "main"]

_WRONG_USAGE = 2

COMMANDS = {
    "stats": "stats",
    "heads": "heads",
    "speed-percentiles": "speed",
    "fit-tokenizer": "fit_tokenizer",
    "forecast": "forecast",
    "validate": "validate",
    "val-plan": "val_plan",
    "val-report": "val_report",
    "run": "run",
    "report": "report",
    "diff": "diff",
    "demo": "demo",
}
"""Command -> the module of `opentau_prep.cli` that has a function of its name."""


def _body(name: str) -> Any:
    module = import_module(f"opentau_prep.cli.{COMMANDS[name]}")
    return getattr(module, name.replace("-", "_"))


class _Group(TyperGroup):
    """A group that builds a command when it is asked for, and lists their first sentences.

    Contexts and formatters are untyped: they are click's, or those of the copy of click that newer
    versions of typer hold.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands: Any = dict.fromkeys(COMMANDS)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `click.Group.parse_args`."""
        take_as_they_are(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See `click.Group.get_command`."""
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            self.commands[cmd_name] = command(cmd_name, _body(cmd_name))
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands with their whole first sentence; see `click.Group.format_commands`."""
        rows = []
        for name in COMMANDS:
            first, _, _ = (inspect.getdoc(_body(name)) or "").partition("\n")
            rows.append((name, first))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


app = typer.Typer(
    name="opentau-prep",
    cls=_Group,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(versions())
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the versions.")
    ] = False,
) -> None:
    """Prepare LeRobot dataset mixtures for training robot policies.

    \b
    Try it:            opentau-prep demo --out demo
                       opentau-prep run --mixture-json demo/mixture.json
    One dataset:       opentau-prep stats path/to/dataset
    In a pipeline:     opentau-prep run --mixture-json mixture.json --json

    Without a command: what fits the working directory.
    """
    if ctx.invoked_subcommand is None:
        from opentau_prep.cli.suggest import suggested_commands

        commands = "\n".join(f"  {printable(each)}" for each in suggested_commands(Path()))
        typer.echo(f"{ctx.get_help()}\n\nWhat fits here:\n{commands}")
        raise typer.Exit(_WRONG_USAGE)


def main() -> None:
    """Run the command line; with `--json`, wrong usage is a JSON document too."""
    if "--json" not in sys.argv[1:]:
        app(prog_name="opentau-prep")
        return
    try:
        code = app(prog_name="opentau-prep", standalone_mode=False)
    except Exception as error:
        # Wrong usage, as click or the copy of it that typer holds raises it; all else is ours.
        if not hasattr(error, "format_message"):
            raise
        error.show()  # type: ignore[attr-defined]
        print_error("UsageError", error.format_message(), exit_code=_WRONG_USAGE)
        code = _WRONG_USAGE
    sys.exit(code)
