"""One job of a map, and what comes of it: a value, or a failure that can be reported."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from opentau_prep import notices
from opentau_prep.errors import EngineError, PrepError
from opentau_prep.storage.look import current_look, one_look

__all__ = ["Done", "Failure", "Job", "UnexpectedError", "died", "perform", "unexpected"]


class UnexpectedError(EngineError):
    """A fault of the tool itself in a worker; `traceback` holds its text."""

    def __init__(self, message: str, *, where: str, hint: str, traceback: str) -> None:
        super().__init__(message, where=where, hint=hint)
        self.traceback = traceback

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.message, self.where, self.hint, self.traceback))


@dataclass(frozen=True)
class Failure:
    """An item that failed.

    Attributes:
        label: The item's name.
        error: Why; an `UnexpectedError` when it was a fault of the tool.
        traceback: The text of the traceback in the worker, empty when there is none.
    """

    label: str
    error: PrepError
    traceback: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the failure JSON-ready."""
        return {
            "dataset": self.label,
            "kind": type(self.error).__name__,
            "message": self.error.message,
            "where": self.error.where,
            "hint": self.error.hint,
        }


@dataclass(frozen=True)
class Job:
    """One item to work on, at its place in the order."""

    index: int
    label: str
    item: Any


@dataclass(frozen=True)
class Done:
    """What came of a job: a value or a failure, its notices, and what was written."""

    value: Any = None
    failure: Failure | None = None
    notices: tuple[notices.Notice, ...] = ()
    written: tuple[str, ...] = ()


def perform(fn: Callable[[Any], Any], job: Job) -> Done:
    """Run one job where it is: its errors become a failure, its notices are collected."""
    failure, value = None, None
    shared = current_look() is not None
    with notices.collect_notices() as emitted, one_look() as look:
        try:
            value = fn(job.item)
        except PrepError as error:
            failure = Failure(job.label, error, traceback.format_exc())
        except Exception as error:  # noqa: BLE001 - the one boundary where a fault becomes a value
            failure = unexpected(job, error, traceback.format_exc())
    # A look that the caller has, too, knows what was written; all of it again after each job would
    # cost the square of the number of jobs.
    return Done(value, failure, tuple(emitted), () if shared else tuple(look.written))


def unexpected(job: Job, error: BaseException, text: str) -> Failure:
    """Return the failure of a job by an error that nobody foresaw."""
    hint = "This is a fault of the tool: please report it with the traceback (--verbose)."
    if isinstance(error, MemoryError):
        hint = "The machine is out of memory: use fewer --workers."
    kind = type(error).__name__
    message = f"unexpected {kind}: {error}" if str(error) else f"unexpected {kind}"
    wrapped = UnexpectedError(message, where=job.label, hint=hint, traceback=text)
    return Failure(job.label, wrapped, text)


def died(jobs: Sequence[Job]) -> Done:
    """Return the outcome of jobs whose worker died, each of them a suspect."""
    names = ", ".join(job.label for job in jobs)
    error = EngineError(
        "a worker process died or was stopped, most often for lack of memory",
        where=names,
        hint="Use fewer --workers.",
    )
    return Done(failure=Failure(names, error))


def _rebuild(message: str, where: str, hint: str, text: str) -> UnexpectedError:
    return UnexpectedError(message, where=where, hint=hint, traceback=text)
