"""Which writes are waiting to be committed together; see `together`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentau_prep.artifacts.atomic import NotWritableError, PendingFile

__all__ = ["Batch", "active", "current", "give_up", "leave_without"]


@dataclass
class Batch:
    """Files that are complete on disk under temporary names.

    Attributes:
        pending: The files, in the order in which they were written.
        keep: Old file -> its backup, for those that are kept.
        failed: Why one of the files could not be written, if so.
        unwanted: Files that must not be there when the others are.
    """

    pending: list[PendingFile] = field(default_factory=list)
    keep: dict[Path, Path] = field(default_factory=dict)
    failed: NotWritableError | None = None
    unwanted: list[Path] = field(default_factory=list)

    def add(self, pending: Sequence[PendingFile], keep: Mapping[Path, Path]) -> None:
        """Take files over."""
        self.pending += pending
        self.keep.update(keep)


_current: ContextVar[Batch | None] = ContextVar("opentau_prep_batch", default=None)


def current() -> Batch | None:
    """Return the batch of the block around, if there is one."""
    return _current.get()


def give_up(error: NotWritableError) -> None:
    """Note that a file of the batch cannot be written, so that none of the others is."""
    batch = _current.get()
    if batch is not None and batch.failed is None:
        batch.failed = error


def leave_without(path: Path) -> None:
    """Remove a file with the batch of the block around, before its files take their places."""
    batch = _current.get()
    if batch is not None:
        batch.unwanted.append(path)


@contextlib.contextmanager
def active(batch: Batch | None) -> Iterator[None]:
    """Let writes in the block go to a batch; None commits them at once."""
    token = _current.set(batch)
    try:
        yield
    finally:
        _current.reset(token)
