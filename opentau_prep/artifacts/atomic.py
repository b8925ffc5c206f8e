"""Whole-file writes: a reader sees the old file or the new one, whatever happens in between.

The new content goes into a temp file in the target's folder (`tempfiles`), is flushed and fsynced,
and takes the target's place with `os.replace`, after which the folder is fsynced. Several files can
be written as one step: all of them are complete on disk before the first takes its place, they do
so in the order given, and signals wait until the last has.

A file that must be kept gets its backup's name first, as a second link, and only then another file
takes its place: no file of a user's ever has a temporary name.

A target that is a symbolic link (a hub snapshot links into a folder of shared blobs) is replaced as
a link: what it pointed to is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from opentau_prep.artifacts import batches
from opentau_prep.artifacts.leftovers import sweep_once
from opentau_prep.artifacts.tempfiles import create_temp, forget, lock, remove
from opentau_prep.errors import ArtifactError
from opentau_prep.interruption import signals_held
from opentau_prep.storage import look

__all__ = [
    "NotWritableError",
    "PendingFile",
    "commit_all",
    "folder_lock",
    "is_writable",
    "keep_as",
    "make_folder",
    "not_writable",
    "replacing",
    "sync_folder",
    "write_all_atomic",
    "write_atomic",
]

_NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR})
_FSYNC_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_FSYNC_FAILED = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT})
_WRITE_FAILED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
_VANISH_ATTEMPTS = 3


class NotWritableError(ArtifactError):
    """The place cannot be written by this user at all: read-only, forbidden, or not a folder."""


class PendingFile:
    """A file being written that is not at its place yet.

    Attributes:
        target: Where it will be.
        path: Where it is now.
        file: The open binary file to write into.
    """

    def __init__(self, target: Path) -> None:
        _ensure_folder(target.parent)
        sweep_once(target.parent)
        fd, self.path = create_temp(target)
        self.target = target
        self.file: BinaryIO = os.fdopen(fd, "wb")
        self._renaming = self._left = False

    @property
    def committed(self) -> bool:
        """Whether the file has taken its place, even if the step was interrupted right then."""
        return self._renaming and not os.path.lexists(self.path)

    def seal(self) -> None:
        """Bring the content to the disk, with the old file's mode and where possible its owner."""
        self.file.flush()
        fd = self.file.fileno()
        with contextlib.suppress(OSError):  # no old file, or a file system without modes or owners
            old = os.stat(self.target)
            os.fchmod(fd, stat.S_IMODE(old.st_mode) & 0o777)
            if os.geteuid() == 0:
                os.fchown(fd, old.st_uid, old.st_gid)
        _fsync(fd)

    def commit(self) -> None:
        """Put the sealed file at its place, and bring that to the disk too."""
        self._renaming = True
        try:
            os.replace(self.path, self.target)
        except OSError:
            self._renaming = False
            raise
        forget(self.path)
        look.forget(self.target)
        self.close()
        try:
            sync_folder(self.target.parent)
        except OSError as error:
            raise ArtifactError(
                f"was replaced, but the disk did not confirm it ({error.strerror})",
                where=str(self.target),
                hint="Fix the disk, then run the same command again.",
            ) from error

    def discard(self) -> None:
        """Remove the file unless it has taken its place, or is left."""
        if not self._left:
            remove(self.path)
        self.close()

    def leave(self) -> None:
        """Leave the sealed file for the next run to finish, as a killed process does."""
        self._left = True
        forget(self.path)

    def close(self) -> None:
        """Let go of the descriptor and with it of the lock."""
        # A full disk fails the flush of the buffer a second time here; the descriptor is closed.
        with contextlib.suppress(OSError):
            self.file.close()


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; folders on the way are made.

    Raises:
        NotWritableError: The place is read-only or forbidden.
        ArtifactError: The disk is full, or another fault. The old file is intact, no temp file
            is left.
    """
    write_all_atomic([(path, data)])


def write_all_atomic(
    files: Sequence[tuple[Path, bytes]], *, keep: Mapping[Path, Path] | None = None
) -> None:
    """Write several files; all are complete on disk before the first takes its place, in order.

    An interruption after the first one still puts the others in place; only a killed process can
    leave it between two, and then the temp files of the others are complete. Within
    `together` they take their places at the end of that block.

    Args:
        files: Where and what.
        keep: Old file -> its backup, for those that are kept; see `keep_as`.

    Raises:
        NotWritableError: A place is read-only or forbidden; nothing was changed.
        ArtifactError: As in `write_atomic`.
    """
    for attempt in range(_VANISH_ATTEMPTS):
        try:
            return _write_all(files, keep or {})
        except FileNotFoundError as error:
            # Somebody removed our temp file by force: the content is still here, so start over.
            if attempt == _VANISH_ATTEMPTS - 1:
                raise _explain(error, files[0][0]) from error
    return None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[PendingFile]:
    """Yield a pending file to stream into, by `.file` or `.path`; it is in place after the block.

    Raises:
        NotWritableError: The place is read-only or forbidden.
        ArtifactError: The disk is full, or another fault. The old file is intact, no temp file
            is left.
    """
    with _explained(path):
        pending = PendingFile(path)
    try:
        yield pending
        with _explained(path):
            pending.seal()
            pending.commit()
    except OSError as error:
        if error.errno in _WRITE_FAILED:  # anything else is about what the block read
            raise _explain(error, path) from error
        raise
    finally:
        pending.discard()


def keep_as(path: Path, backup: Path) -> bool:
    """Give a file its backup's name too, before something takes its place; a copy if need be.

    Returns:
        Whether the backup is new; False when there is a file of that name already.

    Raises:
        OSError: It cannot be kept.
    """
    if os.path.lexists(backup):
        return False
    if not path.is_symlink():
        # Not where the file system has no links, or where one may not link to others' files.
        try:
            os.link(path, backup)
            sync_folder(backup.parent)
            return True
        except FileExistsError:
            return False
        except OSError:
            pass
    pending = PendingFile(backup)
    try:
        pending.file.write(path.read_bytes())
        pending.seal()
        pending.commit()
    finally:
        pending.discard()
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they are missing.

    Raises:
        NotWritableError: The place is read-only, forbidden, or below a file.
        ArtifactError: Another fault.
    """
    with _explained(folder):
        _ensure_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make a rename durable; a folder that cannot be opened, or knows no fsync, is let be."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno in _FSYNC_FAILED:
            raise
    finally:
        os.close(fd)


def not_writable(path: Path, reason: str = "no write permission") -> NotWritableError:
    """Return the error that says that a place cannot be written."""
    return NotWritableError(
        f"cannot be written ({reason})",
        where=str(path),
        hint="Give write permission, or name another place.",
    )


def is_writable(folder: Path) -> bool:
    """Return whether this process could write into `folder`, or make it, judged without trying."""
    effective = os.access in os.supports_effective_ids
    try:
        while look.file_stat(folder) is None:
            folder = folder.parent
    except OSError:
        return False
    allowed = os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)
    return folder.is_dir() and allowed


@contextlib.contextmanager
def folder_lock(folder: Path, *, timeout_s: float = 30.0) -> Iterator[None]:
    """Keep other writers of a folder out for the block, where the file system can.

    No single file needs this: it keeps an artifact and its provenance together when several
    processes replace both. It locks the folder itself, so nothing is left behind, and gives up
    waiting after `timeout_s`: a stopped process must not stop the others.
    """
    fd = None
    try:
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            deadline = time.monotonic() + timeout_s
            while lock(fd) is False and time.monotonic() < deadline:
                time.sleep(0.005)
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _write_all(files: Sequence[tuple[Path, bytes]], keep: Mapping[Path, Path]) -> None:
    batch = batches.current()
    pending: list[PendingFile] = []
    try:
        for path, data in files:
            with _explained(path, missing_too=False):
                pending.append(PendingFile(path))
                pending[-1].file.write(data)
                pending[-1].seal()
    except BaseException:
        for each in pending:
            each.discard()
        raise
    if batch is None:
        commit_all(pending, keep)
    else:
        batch.add(pending, keep)


def commit_all(pending: Sequence[PendingFile], keep: Mapping[Path, Path]) -> None:
    """Put sealed files at their places, in order; signals wait until the last one is.

    Raises:
        ArtifactError: As in `write_atomic`; where the first file is in place, the others are, too,
            as far as the disk lets them.
    """
    kept: list[tuple[Path, Path]] = []
    try:
        with signals_held():
            for path, backup in keep.items():
                with _explained(path):
                    kept += [(path, backup)] if keep_as(path, backup) else []
            for each in pending:
                with _explained(each.target, missing_too=False):
                    each.commit()
    finally:
        _finish(pending, kept)


def _finish(pending: Sequence[PendingFile], kept: Sequence[tuple[Path, Path]]) -> None:
    """Complete a step whose first file is in place, after an interruption; else remove it all."""
    if pending and not pending[0].committed:
        for path, backup in kept:
            with contextlib.suppress(OSError):
                if os.path.samefile(path, backup):  # the old file is in place, too
                    backup.unlink()
    if pending and pending[0].committed:
        for each in pending:
            with contextlib.suppress(OSError, ArtifactError):
                if not each.committed:
                    each.commit()
            # The disk failed for good. Without its provenance the new artifact would count as
            # somebody's, and some could not be computed again from what is there now. Of more
            # than two files there is a marker (`together`).
            if len(pending) == 2 and not each.committed:
                each.leave()
    for each in pending:
        each.discard()


@contextlib.contextmanager
def _explained(path: Path, *, missing_too: bool = True) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not missing_too:
            raise
        raise _explain(error, path) from error


def _explain(error: OSError, path: Path) -> ArtifactError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _NOT_WRITABLE:
        return not_writable(path, reason)
    return ArtifactError(
        f"could not be written ({reason}); the old file, if there was one, is unchanged",
        where=str(path),
        hint="Free some space or fix the disk, then run the same command again.",
    )


def _ensure_folder(folder: Path) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def _fsync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _FSYNC_UNSUPPORTED:
            raise
