"""One look: what a run has read of file systems and stores, so that no step asks for it again.

The steps of a run need the same small files: info.json, the tables, the artifacts and their
provenance. Within `one_look`, each is read once and each folder under `meta/` is listed once,
whoever asks. What this process writes is forgotten at once (`forget`), as is what its workers
report to have written; what others write meanwhile is seen by those who look anew
(`looking_anew`): ranks that wait, and writers that hold a lock.

Memory: files of at most `MAX_FILE_BYTES`, and `MAX_BYTES` in all; beyond that, files are read
again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

__all__ = [
    "MAX_FILE_BYTES",
    "Look",
    "current_look",
    "file_bytes",
    "file_stat",
    "forget",
    "looking_anew",
    "one_look",
    "read_file",
    "refresh",
]

MAX_FILE_BYTES = 1 << 20
MAX_BYTES = 128 << 20
MAX_LISTED = 20_000

_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_FIRST_READ = 1 << 16


Names: TypeAlias = dict[str, bool | None]
"""Name -> True for a file, False for a folder, None for a link or anything else."""


class Look:
    """What has been seen.

    Attributes:
        storages: URL -> the storage that reads it.
        written: The files that were written meanwhile, as absolute paths.
        opened: Absolute root, or URL -> repo id -> what was parsed of it, until something in it
            is written.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Any] = {}
        self.written: dict[str, None] = {}
        self.opened: dict[str, dict[str | None, Any]] = {}
        self.room = MAX_BYTES
        self._content: dict[str, bytes] = {}
        self._stats: dict[str, os.stat_result | None] = {}
        self._names: dict[str, Names | None] = {}
        self._lists: dict[str, list[str]] = {}

    def admits(self, size: int) -> bool:
        """Return whether there is room for a file of some bytes, and take it."""
        if size > min(MAX_FILE_BYTES, self.room):
            return False
        self.room -= size
        return True

    def read(self, path: str) -> bytes:
        """Return a file's content; raise `OSError` as reading it would."""
        found = self._content.get(path)
        if found is not None:
            return found
        folder, _, name = path.rpartition("/")
        if folder in self._names and name not in (self._names[folder] or {}):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        content = read_file(path)
        if self.admits(len(content)):
            self._content[path] = content
        return content

    def stat(self, path: str) -> os.stat_result | None:
        """Return what `os.stat` does; None for what is not there."""
        if path not in self._stats:
            try:
                self._stats[path] = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                self._stats[path] = None
        return self._stats[path]

    def names(self, folder: str) -> Names | None:
        """Return what a folder holds; None when it is not there.

        Raises:
            OSError: It cannot be listed.
        """
        if folder not in self._names:
            try:
                with os.scandir(folder) as found:
                    self._names[folder] = {each.name: _kind(each) for each in found}
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = None
        return self._names[folder]

    def has_file(self, top: str, rel: str) -> bool:
        """Return whether a file is there, below a folder that is listed for it.

        Raises:
            OSError: A folder cannot be listed.
        """
        *folders, name = rel.split("/")
        for folder in folders:
            names = self.names(top)
            if names is None or folder not in names:
                return False
            top = f"{top}/{folder}"
        kind = (self.names(top) or {}).get(name, False)
        if kind is None:
            found = self.stat(f"{top}/{name}")
            return found is not None and stat.S_ISREG(found.st_mode)
        return kind

    def listed(self, folder: str, walk: Callable[[], list[str]]) -> list[str]:
        """Return the files at any depth of a folder, which `walk` lists if nobody has."""
        if folder not in self._lists:
            found = walk()
            if len(found) > MAX_LISTED:
                return found
            self._lists[folder] = found
        return self._lists[folder]

    def forget(self, path: str) -> None:
        """Drop what is known of a file that was written, and of the folders above it."""
        self.written[path] = None
        self.drop(path)

    def drop(self, path: str) -> None:
        """Drop what is known of a file, and of the folders above it."""
        self._drop(path)
        folder = path
        for _ in range(5):  # a first artifact may make up to three folders
            folder = folder.rpartition("/")[0]
            self.opened.pop(folder, None)
            self._names.pop(folder, None)
            self._stats.pop(folder, None)
            self._lists.pop(folder, None)

    def forget_all(self) -> None:
        """Drop everything known of this machine's files."""
        self.room += sum(map(len, self._content.values()))
        self._content.clear()
        self._stats.clear()
        self._names.clear()
        self._lists.clear()
        self.opened = {root: known for root, known in self.opened.items() if "://" in root}

    def _drop(self, path: str) -> None:
        self.room += len(self._content.pop(path, b""))
        self._stats.pop(path, None)
        if self._names.pop(path, None) is not None:  # a folder that was replaced
            below = f"{path}/"
            for each in [each for each in self._content if each.startswith(below)]:
                self.room += len(self._content.pop(each))
            for known in (self._stats, self._names, self._lists):
                for each in [each for each in known if each.startswith(below)]:
                    del known[each]


_looks: list[Look] = []


def current_look() -> Look | None:
    """Return the look that this process has; None outside of `one_look`."""
    return _looks[-1] if _looks else None


@contextlib.contextmanager
def one_look() -> Iterator[Look]:
    """Remember what is read within the block; a block within another shares its memory."""
    look = current_look() or Look()
    _looks.append(look)
    try:
        yield look
    finally:
        _looks.remove(look)


@contextlib.contextmanager
def looking_anew() -> Iterator[None]:
    """Forget what is known of this machine's files, before the block and after it."""
    look = current_look()
    if look is not None:
        look.forget_all()
    try:
        yield
    finally:
        if look is not None:
            look.forget_all()


def forget(path: str | os.PathLike[str]) -> None:
    """Forget a file or folder that has just been written."""
    look = current_look()
    if look is not None:
        given = os.path.abspath(path)
        look.forget(given)
        folder, name = os.path.split(given)
        real = os.path.join(os.path.realpath(folder), name)
        if real != given:
            look.forget(real)


def refresh(*paths: str | os.PathLike[str]) -> None:
    """Look at files anew that others may have written: after a lock was waited for."""
    look = current_look()
    if look is not None:
        for path in paths:
            look.drop(os.path.abspath(path))


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return a file's content, as this run has seen it; raise `OSError` as reading it would."""
    look = current_look()
    return read_file(os.fspath(path)) if look is None else look.read(os.path.abspath(path))


def file_stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return what `os.stat` gives, as this run has seen it; None for what is not there."""
    look = current_look()
    return (Look() if look is None else look).stat(os.path.abspath(path))


def read_file(path: str) -> bytes:
    """Return a regular file's content in as few calls as can be.

    Raises:
        OSError: It is missing, unreadable, or no regular file. A pipe is not waited for.
    """
    # By descriptor: a file object costs more than a small file's metadata does to parse.
    fd = os.open(path, _READ_FLAGS)
    try:
        whole = os.read(fd, _FIRST_READ)
        if 0 < len(whole) < _FIRST_READ:  # a regular file gives less only at its end
            return whole
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        parts = [whole]
        while part := os.read(fd, 1 << 20):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def _kind(entry: os.DirEntry[str]) -> bool | None:
    # Told by the listing itself, but for links.
    if entry.is_file(follow_symlinks=False):
        return True
    return False if entry.is_dir(follow_symlinks=False) else None
