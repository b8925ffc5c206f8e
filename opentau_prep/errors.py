"""The errors that a user's file or argument can cause, and the exit code each one means.

Every message answers three questions in this order: where it went wrong, what was found against
what was expected, and what to do about it.

Some classes also derive from the builtin that a trainer raises in the same place, so that code
which calls these functions instead of the trainer's catches them as before.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentau_prep.text import printable

__all__ = [
    "ArtifactError",
    "ColumnIndexError",
    "ConfigError",
    "DataError",
    "EngineError",
    "MetadataError",
    "PrepError",
    "join_errors",
]


class PrepError(Exception):
    """An expected failure, explained in one short message.

    Args:
        message: What was found and what was expected instead, in one sentence.
        where: The place: a file, a dataset, a field, or several of them in one string.
        hint: What the user can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, where, hint)
        self.message = message
        self.where = where
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries: the default reduction passes them by position.
        return (_rebuild, (type(self), self.message, self.where, self.hint))

    def __str__(self) -> str:
        # A place is one line, whatever its name holds: only a message may have several.
        text = f"{printable(self.where)}: {self.message}" if self.where else self.message
        if self.hint and "\n" in self.message:  # a list: what to do goes on a line below it
            text = f"{text}\n{self.hint}"
        elif self.hint:
            text = f"{text.rstrip('.')}. {self.hint}"
        return text


def _rebuild(cls: type[PrepError], message: str, where: str | None, hint: str | None) -> PrepError:
    return cls(message, where=where, hint=hint)


class ConfigError(PrepError, ValueError):
    """A wrong argument or configuration file (exit code 2)."""

    exit_code = 2


class ColumnIndexError(ConfigError, IndexError):
    """A column of `state_index` or `action_index` that does not exist (exit code 2)."""


class MetadataError(PrepError, ValueError, KeyError):
    """A dataset's `meta/` that is missing or cannot be understood (exit code 3)."""

    exit_code = 3


class DataError(PrepError):
    """Frames that are missing or cannot be read (exit code 3)."""

    exit_code = 3


class ArtifactError(PrepError):
    """An artifact that cannot be written, or must not be overwritten (exit code 4)."""

    exit_code = 4


class EngineError(PrepError):
    """An engine that cannot be started or died (exit code 4)."""

    exit_code = 4


def join_errors(faults: Sequence[tuple[str, PrepError]], what: str) -> PrepError:
    """Return one error for what is wrong with several datasets, one per line.

    Its class is that of the fault with the lowest exit code: a configuration is fixed first.

    Args:
        faults: Dataset name and fault, at least one.
        what: What they have in common, such as `"datasets cannot be opened"`.
    """
    worst = min((fault for _, fault in faults), key=lambda fault: fault.exit_code)
    kinds = (ConfigError, MetadataError, DataError, ArtifactError, EngineError)
    kind = next((kind for kind in kinds if isinstance(worst, kind)), PrepError)
    if len(faults) == 1:
        name, fault = faults[0]
        where = fault.where or name
        return kind(
            fault.message, where=where if name in where else f"{name}: {where}", hint=fault.hint
        )
    lines = (
        str(fault) if fault.where and name in fault.where else f"{name}: {fault}"
        for name, fault in faults
    )
    return kind(f"{len(faults)} {what}:" + "".join(f"\n- {line}" for line in lines))
