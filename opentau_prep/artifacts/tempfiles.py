"""Temporary files that tell whether their writer is still alive.

A temp file lies beside its target, under a unique hidden name, and is held with `flock` for as long
as its writer lives: the kernel lets go of the lock when the process ends, however it ends. So a
temp file whose lock can be taken is a leftover, and one whose lock cannot be taken is somebody's
work.

Some shared file systems keep locks to one machine only, or have none. The name therefore carries a
tag of the running kernel, and a file of another kernel, or one on a file system without locks,
counts as a leftover only when nobody has written to it for `LEFTOVER_AGE_S`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # a platform without POSIX locks: leftovers are told by their age alone
    _HAS_LOCKS = False

__all__ = ["LEFTOVER_AGE_S", "claim_leftover", "create_temp", "list_temps", "lock", "sweep"]

LEFTOVER_AGE_S = 3600.0

_SUFFIX = ".prep-tmp"
_ATTEMPTS = 100
# The longest file name that every common file system takes is 255 bytes; the decoration needs 36.
_NAME_BYTES = 200


def create_temp(target: Path) -> tuple[int, Path]:
    """Create and hold a new temp file beside `target`.

    Returns:
        The open descriptor, whose lock says that the file is alive, and the file's path. A new file
        has the mode that the umask gives.

    Raises:
        OSError: The folder cannot be written.
    """
    for _ in range(_ATTEMPTS):
        path = (
            target.parent / f"{_prefix(target.name)}{_kernel_tag()}{secrets.token_hex(6)}{_SUFFIX}"
        )
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if lock(fd) is not False and os.fstat(fd).st_nlink > 0:
                return fd, path
        except BaseException:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        os.close(fd)  # a sweeper took it before it was held; it is gone, or will be in a moment
    raise OSError(errno.EBUSY, "temporary files keep vanishing", str(target.parent))


def lock(fd: int) -> bool | None:
    """Take the exclusive lock of an open file without waiting.

    Returns:
        True when it is held now, False when somebody else holds it, None when there are no locks
        here.
    """
    if not _HAS_LOCKS:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def list_temps(folder: Path, target_name: str | None = None) -> list[Path]:
    """Return the temp files of one target, or of all, in a folder; none if it cannot be read."""
    prefix = "." if target_name is None else _prefix(target_name)
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(folder / n for n in names if n.startswith(prefix) and n.endswith(_SUFFIX))


@contextlib.contextmanager
def claim_leftover(path: Path) -> Iterator[bool]:
    """Hold a temp file for the block if it is a leftover; yields whether it is."""
    fd = _open_quietly(path)
    if fd is None:
        yield False
        return
    try:
        yield _is_leftover(fd, path)
    finally:
        os.close(fd)


def sweep(folder: Path) -> list[Path]:
    """Remove the temp files that killed runs left in a folder; never one that is being written.

    Returns:
        The removed files. A folder that cannot be read or written is left as it is.
    """
    removed = []
    for path in list_temps(folder):
        with claim_leftover(path) as leftover:
            if leftover:
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.append(path)
    return removed


def _prefix(target_name: str) -> str:
    encoded = os.fsencode(target_name)[:_NAME_BYTES]
    return f".{os.fsdecode(encoded)}."


def _open_quietly(path: Path) -> int | None:
    # Another user's leftover may be readable only, and on NFS a lock needs a writable descriptor.
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for access in (os.O_RDWR, os.O_RDONLY):
        with contextlib.suppress(OSError):
            return os.open(path, access | flags)
    return None


def _is_leftover(fd: int, path: Path) -> bool:
    held = lock(fd)
    if held is False:
        return False
    try:
        opened, there = os.fstat(fd), os.lstat(path)
    except OSError:
        return False
    # A file that was renamed onto its target between listing and locking is an artifact, not a
    # leftover.
    same = (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino)
    if not same or not stat.S_ISREG(opened.st_mode):
        return False
    lock_is_proof = held is True and f".{_kernel_tag()}" in path.name[-len(_SUFFIX) - 21 :]
    return lock_is_proof or time.time() - opened.st_mtime > LEFTOVER_AGE_S


def _kernel_tag() -> str:
    # Containers on one machine share the kernel and with it the locks, whatever their host names
    # are.
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        identity = socket.gethostname()
    return hashlib.sha256(identity.encode()).hexdigest()[:8]
