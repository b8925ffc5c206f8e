"""Temporary files and folders that tell whether their writer is still alive.

A temporary file is next to its target, under a unique hidden name, and is held with `flock` for as
long as its writer lives: the kernel releases the lock when the process ends, however it ends. So a
temporary file whose lock can be taken is a leftover, and one whose lock cannot be taken is
somebody's work.

Some shared file systems keep locks to one machine only, or have none. The name therefore carries a
tag of the running kernel, and a file of another kernel, or one on a file system without locks,
counts as a leftover only when nobody has written to it for `LEFTOVER_AGE_S`.

A process also remembers its own (`remove_live`): from before they exist until they are gone, so
that an interruption at any instant, also between the system call and the next line, leaves none.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # a platform without POSIX locks: leftovers are reported by their age alone
    _HAS_LOCKS = False

__all__ = [
    "LEFTOVER_AGE_S",
    "claim_leftover",
    "create_temp",
    "create_temp_folder",
    "forget",
    "list_temps",
    "lock",
    "remove",
    "remove_live",
    "target_name",
]

# Where locks do not reach other machines, only age tells that a writer has died.
LEFTOVER_AGE_S = 3600.0

_SUFFIX = ".prep-tmp"
# The whole pattern, so that no file that somebody else named is ever taken for one of these.
_TEMP_NAME = re.compile(r"\.(.+)\.([0-9a-f]{8})[0-9a-f]{12}\.prep-tmp", re.DOTALL)
# Names are random: a second attempt is rare, and a hundredth means that something is wrong.
_ATTEMPTS = 100
# The longest file name that every common file system takes is 255 bytes; the decoration needs 36.
_NAME_BYTES = 200
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_live: set[Path] = set()


def create_temp(target: Path) -> tuple[int, Path]:
    """Create and hold a new temporary file next to `target`.

    Returns:
        The open descriptor, whose lock says that the file is alive, and the file's path. A new file
        has the mode that the umask gives. Whoever is done with it calls `forget`.

    Raises:
        OSError: The folder cannot be written.
    """
    return _create(target, folder=False)


def create_temp_folder(target: Path) -> tuple[int, Path]:
    """Create and hold a new temporary folder next to `target`; as `create_temp` otherwise."""
    return _create(target, folder=True)


def _create(target: Path, *, folder: bool) -> tuple[int, Path]:
    for _ in range(_ATTEMPTS):
        name = f"{_prefix(target.name)}{_kernel_tag()}{secrets.token_hex(6)}{_SUFFIX}"
        path = target.parent / name
        _live.add(path)  # before it exists: see `remove_live`
        try:
            fd = _open_new_folder(path) if folder else _open_new_file(path)
            if lock(fd) is not False and os.fstat(fd).st_nlink > 0:
                return fd, path
        except FileNotFoundError:
            forget(path)
            if not folder or not target.parent.is_dir():
                raise
            continue  # a sweeper took the folder before it was held
        except BaseException:
            remove(path)
            raise
        os.close(fd)  # a sweeper took it before it was held; it is gone, or will be in a moment
        forget(path)
    raise OSError(errno.EBUSY, "temporary files keep vanishing", str(target.parent))


def _open_new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _open_new_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, _FOLDER_FLAGS)


def forget(path: Path) -> None:
    """No longer remember a temporary file: it has its final name, or is gone."""
    _live.discard(path)


def remove(path: Path) -> bool:
    """Remove a temporary file or folder of this process; returns whether it is gone."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    gone = not os.path.lexists(path)
    if gone:
        forget(path)
    return gone


def remove_live() -> list[Path]:
    """Remove whatever temporary files this process still has; returns those that resisted."""
    return [path for path in sorted(_live) if not remove(path)]


# In library use nobody else cleans up after an interruption that ends the process.
atexit.register(remove_live)
os.register_at_fork(after_in_child=_live.clear)


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


def list_temps(folder: Path, target: str | None = None) -> list[Path]:
    """Return the temporary files and folders of one target, or of all, in a folder.

    A folder that cannot be read has none.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    prefix = "" if target is None else _prefix(target)
    return sorted(folder / n for n in names if n.startswith(prefix) and _TEMP_NAME.fullmatch(n))


def is_temp_name(name: str) -> bool:
    """Return whether only a temporary file or folder is named so."""
    return _TEMP_NAME.fullmatch(name) is not None


def target_name(temp: Path) -> str | None:
    """Return the name of the file that a temporary file is for, None where it was cut."""
    match = _TEMP_NAME.fullmatch(temp.name)
    name = match.group(1) if match else ""
    return name if 0 < len(os.fsencode(name)) < _NAME_BYTES else None


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
    if not same or not (stat.S_ISREG(opened.st_mode) or stat.S_ISDIR(opened.st_mode)):
        return False
    match = _TEMP_NAME.fullmatch(path.name)
    lock_is_proof = held is True and match is not None and match.group(2) == _kernel_tag()
    return lock_is_proof or time.time() - opened.st_mtime > LEFTOVER_AGE_S


@functools.lru_cache(maxsize=1)
def _kernel_tag() -> str:
    # Containers on one machine share the kernel and with it the locks, whatever their host names
    # are.
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        identity = os.uname().nodename
    return hashlib.sha256(identity.encode()).hexdigest()[:8]
