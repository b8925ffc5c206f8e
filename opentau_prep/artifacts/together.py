"""Several files of one dataset, committed as one step.

All of them are complete on disk before the first takes its place. While they do so, which takes
milliseconds, a marker lists what each will hold, so that a reader in between, or after a kill in
between, knows that new files are next to old ones.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from opentau_prep.artifacts import batches
from opentau_prep.artifacts.atomic import (
    NotWritableError,
    PendingFile,
    commit_all,
    folder_lock,
    write_atomic,
)
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.artifacts.marker import MARKER, finish_update, sha256_at, unfinished_update
from opentau_prep.errors import ArtifactError
from opentau_prep.interruption import signals_held
from opentau_prep.storage.look import forget

__all__ = ["pending_path", "together"]

# Each pending file holds a descriptor; the usual limit of a process is 1,024. What goes beyond is
# committed earlier, under the same marker.
_AT_ONCE = 400


@contextlib.contextmanager
def together(meta: Path, *, dry_run: bool = False) -> Iterator[None]:
    """Commit what the block writes below `meta` at its end: all of it, or none.

    Raises:
        NotWritableError: One of the files cannot be written; nothing was changed.
        ArtifactError: The disk failed while the files took their places; the marker stays until
            the same command has run again.
    """
    if dry_run:
        yield
        return
    batch = _Batch(meta)
    try:
        with batches.active(batch):
            yield
        if batch.pending and batch.failed is not None:
            raise NotWritableError(
                f"{batch.failed.message}; none of the dataset's files was changed",
                where=batch.failed.where,
                hint=batch.failed.hint,
            )
        batch.commit(last=True)
    finally:
        for each in batch.pending:
            each.discard()


def pending_path(target: Path) -> Path:
    """Return where the content is that a file has after the block: a temporary file, or it."""
    batch = batches.current()
    waiting = [] if batch is None else batch.pending
    return next((each.path for each in reversed(waiting) if each.target == target), target)


class _Batch(batches.Batch):
    def __init__(self, meta: Path) -> None:
        super().__init__()
        self._meta = meta
        self._listed: dict[str, str] = {}

    def add(self, pending: list[PendingFile], keep: dict[Path, Path]) -> None:  # type: ignore[override]
        super().add(pending, keep)
        if len(self.pending) >= _AT_ONCE and self.failed is None:
            self.commit(last=False)

    def commit(self, *, last: bool) -> None:
        for path in self.unwanted:
            for each in [each for each in self.pending if each.target == path]:
                each.discard()
                self.pending.remove(each)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            forget(path)
        if not self.pending:
            if last:
                finish_update(self._meta)
            return
        for each in self.pending:
            self._listed[os.path.relpath(each.target, self._meta)] = sha256_at(each.path)
        marker = self._meta / MARKER
        # Two files are an artifact and its provenance, which belong together by themselves.
        marked = len(self._listed) > 2 or not last
        with signals_held(), batches.active(None), folder_lock(self._meta):
            if marked:
                write_atomic(marker, dump_own({"files": self._listed}))
            try:
                commit_all(self.pending, self.keep)
            except ArtifactError as error:
                raise self._half_done(error) from error
            self.pending, self.keep = [], {}
            if last:
                finish_update(self._meta)

    def _half_done(self, error: ArtifactError) -> ArtifactError:
        if not any(each.committed for each in self.pending):
            if set(unfinished_update(self._meta)) == set(self._listed):
                (self._meta / MARKER).unlink(missing_ok=True)
            return error
        finish_update(self._meta)
        return ArtifactError(
            f"{error.message}; other files of the dataset are new already",
            where=error.where,
            hint="Fix the disk, then run the same command again.",
        )
