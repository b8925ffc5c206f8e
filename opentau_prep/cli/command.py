"""What turns a thin function into a command: shared options, a session, errors, exit codes."""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import typer

from opentau_prep import interruption
from opentau_prep.cli.help import PlainCommand
from opentau_prep.cli.options import CommonOptions
from opentau_prep.errors import ArtifactError, ConfigError, PrepError
from opentau_prep.storage.look import one_look
from opentau_prep.text import printable_lines, without_secrets

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.artifacts.outcome import Relay
    from opentau_prep.cli.session import Session

__all__ = ["Result", "command", "print_error"]

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


def command(name: str, body: Callable[..., Result]) -> Any:
    """Return the command `name` of typer that runs `body(session, ...)`.

    It takes the body's own parameters and those of `CommonOptions`. A parameter that is a class of
    `cli.options` gives an option per field; a field that two of them have is one option.
    Expected errors become one message on stderr and their exit code; Ctrl-C becomes 130, SIGTERM
    143.
    """
    shared = [f.name for f in dataclasses.fields(CommonOptions)]

    @wraps(body)
    def run(**values: Any) -> None:
        options = CommonOptions(**{name: values.pop(name) for name in shared})
        raise typer.Exit(_run(body, name, options, _gathered(body, values)))

    signature = _signature(body, shared)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, cls=PlainCommand)(run)
    return typer.main.get_command(app)


def _hints(body: Callable[..., Result]) -> dict[str, Any]:
    # Through a namespace, since Python 3.10 wraps a function's hints in Optional where the default
    # is None and so hides the options in them. The session is made here, not parsed: its class is
    # not imported just to read a signature.
    return typing.get_type_hints(
        SimpleNamespace(__annotations__=body.__annotations__),
        globalns=body.__globals__,
        localns={"Session": object},
        include_extras=True,
    )


def _signature(body: Callable[..., Result], common: Sequence[str]) -> inspect.Signature:
    hints = _hints(body)
    kind = inspect.Parameter.KEYWORD_ONLY
    found: dict[str, inspect.Parameter] = {}
    for own in inspect.signature(body).parameters.values():
        if dataclasses.is_dataclass(hints.get(own.name)):
            found = {**_options_of(hints[own.name]), **found}
        elif own.name != "session":
            found[own.name] = own.replace(kind=kind, annotation=hints[own.name])
    shared = _options_of(CommonOptions)
    found |= {name: shared[name] for name in common}
    return inspect.Signature(list(found.values()))


def _options_of(flags: Any) -> dict[str, inspect.Parameter]:
    """Return a parameter for each field of a class of `cli.options`."""
    hints = typing.get_type_hints(flags, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return {
        f.name: inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name])
        for f in dataclasses.fields(flags)
    }


def _gathered(body: Callable[..., Result], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body's arguments: options that belong to a class are put into one."""
    hints = _hints(body)
    arguments = {}
    for name in inspect.signature(body).parameters:
        flags = hints.get(name)
        if dataclasses.is_dataclass(flags):
            own = {f.name: values[f.name] for f in dataclasses.fields(flags)}
            arguments[name] = flags(**own)  # type: ignore[operator]
        elif name != "session":
            arguments[name] = values[name]
    return arguments


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
            relay = _relay(session, name, values)
            if relay is not None and not session.rank.is_main:
                outcome = relay.wait()
                if outcome is not None:
                    return _pass_on(outcome, common)
            if relay is not None:
                return _leaving_outcome(relay, body, session, values)
            with session, one_look():
                result = body(session, **values)
            session.show(result)
        if session.not_persisted:
            return max(result.exit_code, ArtifactError.exit_code)
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


# What the main rank alone does; the other commands each rank does for itself.
_RELAYED = frozenset({"run", "stats", "heads", "speed-percentiles", "fit-tokenizer"})


def _relay(session: Session, name: str, values: Mapping[str, Any]) -> Relay | None:
    """Return how this command's outcome gets from the main rank to the others, if it does."""
    if name not in _RELAYED or session.rank.world_size == 1 or session.common.dry_run:
        return None
    from opentau_prep.artifacts.outcome import Relay

    shown = {"json", "quiet", "verbose"}
    common = {k: v for k, v in vars(session.common).items() if k not in shown}
    return Relay.of(session.rank, [name, repr(sorted(values.items())), repr(common)])


def _leaving_outcome(
    relay: Relay, body: Callable[..., Result], session: Session, values: Mapping[str, Any]
) -> int:
    """Carry out a command, and leave its outcome for the other ranks, whatever it is."""
    if session.rank.is_main:
        relay.begin()
    outcome: dict[str, Any] = {"error": "the main rank was interrupted", "exit_code": 130}
    try:
        with session, one_look():
            result = body(session, **values)
        code = result.exit_code
        if session.not_persisted:
            code = max(code, ArtifactError.exit_code)
        outcome = {"exit_code": code, "document": session.document(result.payload, ())}
    except PrepError as error:
        outcome = {"exit_code": error.exit_code, "error": f"Error: {error}"}
        raise
    except Exception as error:
        outcome = {"exit_code": INTERNAL_ERROR, "error": f"Internal error: {error}"}
        raise
    finally:
        if session.rank.is_main:
            relay.end(outcome)
    session.show(result)
    return code


def _pass_on(outcome: Mapping[str, Any], common: CommonOptions) -> int:
    """Show what the main rank has found, as far as this rank was asked for it."""
    code: int = outcome["exit_code"]
    if common.json and "document" in outcome:
        sys.stdout.write(outcome["document"])
        sys.stdout.flush()
    elif common.json:
        print_error("PrepError", outcome["error"], exit_code=code, warnings=[])
    elif "error" in outcome:
        _say(f"Main rank: {outcome['error']}")
    return code


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
        warnings = [n.as_json() for n in session.notices] if session else []
        print_error(
            type(error).__name__,
            error.message,
            where=error.where,
            hint=error.hint,
            exit_code=error.exit_code,
            warnings=warnings,
        )
    return error.exit_code


def print_error(
    kind: str,
    message: str,
    *,
    where: str | None = None,
    hint: str | None = None,
    exit_code: int,
    warnings: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Print the JSON document of an error on stdout."""
    import json

    from opentau_prep.cli.session import SCHEMA_VERSION

    document = {
        "schema_version": SCHEMA_VERSION,
        "error": {"kind": kind, "message": message, "where": where, "hint": hint},
        "exit_code": exit_code,
        "warnings": list(warnings),
    }
    sys.stdout.write(without_secrets(json.dumps(document)) + "\n")


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
