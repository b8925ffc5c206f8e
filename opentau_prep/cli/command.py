"""What turns a thin function into a command: shared options, a session, errors, exit codes."""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import typer

from opentau_prep import interruption
from opentau_prep.cli.options import CommonOptions
from opentau_prep.errors import ConfigError, PrepError
from opentau_prep.text import printable_lines

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.cli.session import Session

__all__ = ["Result", "command"]

INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h: our fault, not one of the documented outcomes.


@dataclass(frozen=True)
class Result:
    """What a command has to show.

    Attributes:
        payload: The JSON document.
        render: Draws the same for people.
        exit_code: 0, or 1 when there are findings or failed datasets.
    """

    payload: Mapping[str, Any]
    render: Callable[[Console], None]
    exit_code: int = 0


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., Result]], Callable[..., None]]:
    """Register `body(session, ...) -> Result` as the command `name`.

    The command takes the body's own parameters and those of `CommonOptions`. Expected errors become
    one message on stderr and their exit code; Ctrl-C becomes 130, SIGTERM 143.
    """

    def decorate(body: Callable[..., Result]) -> Callable[..., None]:
        @wraps(body)
        def run(**values: Any) -> None:
            names = [f.name for f in dataclasses.fields(CommonOptions)]
            common = CommonOptions(**{n: values.pop(n) for n in names})
            raise typer.Exit(_run(body, name, common, values))

        run.__signature__ = _signature(body)  # type: ignore[attr-defined]
        run.__annotations__ = {
            p.name: p.annotation for p in inspect.signature(run).parameters.values()
        }
        app.command(name)(run)
        return run

    return decorate


def _signature(body: Callable[..., Result]) -> inspect.Signature:
    # Through a namespace, since Python 3.10 wraps a function's hints in Optional where the default
    # is None and so hides the options in them. The session is made here, not parsed: its class is
    # not imported just to read a signature.
    hints = typing.get_type_hints(
        SimpleNamespace(__annotations__=body.__annotations__),
        globalns=body.__globals__,
        localns={"Session": object},
        include_extras=True,
    )
    common = typing.get_type_hints(CommonOptions, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    own = [p for p in inspect.signature(body).parameters.values() if p.name != "session"]
    parameters = [p.replace(kind=kind, annotation=hints[p.name]) for p in own]
    parameters += [
        inspect.Parameter(f.name, kind, default=f.default, annotation=common[f.name])
        for f in dataclasses.fields(CommonOptions)
    ]
    return inspect.Signature(parameters)


def _run(
    body: Callable[..., Result], name: str, common: CommonOptions, values: dict[str, Any]
) -> int:
    from opentau_prep.cli.session import Session

    session: Session | None = None
    try:
        if common.quiet and common.verbose:
            raise ConfigError("--quiet and --verbose contradict each other")
        with interruption.interruptible():
            session = Session(name, common)
            with session:
                result = body(session, **values)
            session.show(result)
    except PrepError as error:
        return _fail(error, common, session)
    except KeyboardInterrupt as error:
        return _interrupted(error)
    except BrokenPipeError:
        # The reader of our stdout has gone; Python would complain once more when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence; our bug by definition
        return _bug(error, common)
    return result.exit_code


def _interrupted(error: KeyboardInterrupt) -> int:
    from opentau_prep.artifacts.tempfiles import remove_live
    from opentau_prep.notices import some_names

    interruption.ignore_signals()
    left = remove_live()
    _say(interruption.INTERRUPTED if not left else f"Interrupted. Not removed: {some_names(left)}")
    return interruption.exit_code(error)


def _fail(error: PrepError, common: CommonOptions, session: Session | None) -> int:
    _say(f"Error: {error}")
    if common.json:
        import json

        payload = {
            "error": {
                "kind": type(error).__name__,
                "message": error.message,
                "where": error.where,
                "hint": error.hint,
            },
            "exit_code": error.exit_code,
            "warnings": [n.as_json() for n in session.notices] if session else [],
        }
        sys.stdout.write(json.dumps(payload) + "\n")
    return error.exit_code


def _bug(error: Exception, common: CommonOptions) -> int:
    if common.verbose:
        import traceback

        _say("".join(traceback.format_exception(error)).rstrip())
    kind = type(error).__name__
    _say(f"Internal error: {kind}: {error}")
    _say("This is a bug in opentau-prep. Run again with --verbose and report what it prints.")
    return INTERNAL_ERROR


def _say(text: str) -> None:
    sys.stderr.write(printable_lines(text) + "\n")
