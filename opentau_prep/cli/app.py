"""The command `opentau-prep` and its subcommands."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from opentau_prep import __version__
from opentau_prep.cli import (
    demo,
    diff,
    fit_tokenizer,
    forecast,
    heads,
    report,
    run,
    speed,
    stats,
    val_plan,
    val_report,
    validate,
)
from opentau_prep.cli.command import print_error
from opentau_prep.cli.help import PlainGroup
from opentau_prep.cli.suggest import suggested_commands
from opentau_prep.text import printable
from opentau_prep.trainers import TRAINERS

__all__ = ["app", "main"]

_WRONG_USAGE = 2

app = typer.Typer(
    name="opentau-prep",
    cls=PlainGroup,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        equals = ", ".join(f"{trainer} {version}" for trainer, version in TRAINERS.items())
        typer.echo(f"opentau-prep {__version__}\nequals {equals}")
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
        commands = "\n".join(f"  {printable(each)}" for each in suggested_commands(Path()))
        typer.echo(f"{ctx.get_help()}\n\nWhat fits here:\n{commands}")
        raise typer.Exit(_WRONG_USAGE)


stats.register(app)
heads.register(app)
speed.register(app)
fit_tokenizer.register(app)
forecast.register(app)
validate.register(app)
val_plan.register(app)
val_report.register(app)
run.register(app)
report.register(app)
diff.register(app)
demo.register(app)


def main() -> None:
    """Run the command line; with `--json`, wrong usage is a JSON document too."""
    # Imports make many objects that all stay: looking through them for garbage costs a tenth of the
    # time of a short command.
    gc.set_threshold(100_000, *gc.get_threshold()[1:])
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
