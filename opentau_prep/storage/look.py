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
import re
import stat
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeAlias, TypeVar, cast

from opentau_prep.notices import collect_notices, emit

__all__ = [
    "MAX_FILE_BYTES",
    "Look",
    "absolute",
    "current_look",
    "file_bytes",
    "file_stat",
    "folder_names",
    "forget",
    "looking_anew",
    "made_once",
    "one_look",
    "read_file",
    "real_path",
    "refresh",
]

# Metadata that is larger is read again rather than kept: memory stays flat over datasets.
MAX_FILE_BYTES = 1 << 20
MAX_BYTES = 128 << 20
MAX_LISTED = 20_000

_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
# Most metadata files are smaller, and one read of the system suffices.
_FIRST_READ = 1 << 16
_UNTIDY = re.compile(r"//|(?:^|/)\.{1,2}(?:/|$)|./$|^$")


T = TypeVar("T")
Names: TypeAlias = dict[str, bool | None]
"""Name -> True for a file, False for a folder, None for a link or anything else."""


class Look:
    """What has been seen.

    Attributes:
        storages: URL -> the storage that reads it.
        read_ahead: The URLs whose tables have been asked for together.
        written: The files that were written meanwhile, as absolute paths.
        opened: Absolute root, or URL -> repo id -> what was parsed of it, until something in it
            is written.
        folder: The working directory, with a slash: a run does not change it.
    """

    def __init__(self) -> None:
        self.folder = os.path.join(os.getcwd(), "")
        self.storages: dict[str, Any] = {}
        self.read_ahead: set[str] = set()
        self.written: dict[str, None] = {}
        self.opened: dict[str, dict[str | None, Any]] = {}
        self.room = MAX_BYTES
        self._content: dict[str, bytes] = {}
        self._stats: dict[str, os.stat_result | None] = {}
        self._names: dict[str, Names | None] = {}
        self._lists: dict[str, list[str]] = {}
        self._real: dict[str, str] = {}
        self._made: dict[Hashable, Any] = {}

    def admits(self, size: int) -> bool:
        """Return whether there is room for a file of some bytes, and take it."""
        if size > min(MAX_FILE_BYTES, self.room):
            return False
        self.room -= size
        return True

    def read(self, path: str, check: Callable[[int], None] | None = None) -> bytes:
        """Return a file's content; raise `OSError` as reading it would. See `read_file`."""
        found = self._content.get(path)
        if found is not None:
            return found
        folder, _, name = path.rpartition("/")
        if folder in self._names and name not in (self._names[folder] or {}):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        content = read_file(path, check, self._stats)
        if self.admits(len(content)):
            self._content[path] = content
        return content

    def stat(self, path: str) -> os.stat_result | None:
        """Return what `os.stat` does; None for what is not there."""
        if path not in self._stats:
            self._stats[path] = _stat(path)
        return self._stats[path]

    def names(self, folder: str) -> Names | None:
        """Return what a folder holds; None when it is not there.

        Raises:
            OSError: It cannot be listed.
        """
        if folder not in self._names:
            try:
                with os.scandir(folder) as listing:
                    found = {each.name: _kind(each) for each in listing}
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = None
                return None
            if len(found) > MAX_LISTED:
                return found
            self._names[folder] = found
        return self._names[folder]

    def tree(self, top: str, rel: str) -> list[str] | None:
        """Return the files below a folder, as paths that begin with `rel`, sorted.

        None when something below it is a link, whose folders only a walk can follow.

        Raises:
            OSError: A folder cannot be listed.
        """
        above, _, own = top.rpartition("/")
        if above in self._names and own not in (self._names[above] or {}):
            return []
        found: list[str] = []
        for name, kind in (self.names(top) or {}).items():
            if kind is None:
                return None
            if not kind:
                below = self.tree(f"{top}/{name}", f"{rel}/{name}")
                if below is None:
                    return None
                found += below
            elif not name.startswith("."):
                found.append(f"{rel}/{name}")
        return sorted(found)

    def real(self, path: str) -> str:
        """Return an absolute path without links, its folders' looked up once for all in them."""
        if path not in self._real:
            folder, _, name = path.rpartition("/")
            if not folder or name in ("", ".", "..") or os.path.islink(path):
                self._real[path] = os.path.realpath(path)
            else:
                above = self.real(folder)
                self._real[path] = f"{above}/{name}" if above != "/" else f"/{name}"
        return self._real[path]

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

    def made(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` gives, which is kept under a key until this run writes a file.

        The notices of the first time are passed on each time.
        """
        if key not in self._made:
            with collect_notices() as emitted:
                found = make()
            self._made[key] = found, tuple(emitted)
        found, said_then = self._made[key]
        for notice in said_then:
            emit(notice)
        return cast(T, found)

    def forget(self, path: str) -> None:
        """Drop what is known of a file that was written, and of the folders above it."""
        self.written[path] = None
        self.drop(path)

    def drop(self, path: str) -> None:
        """Drop what is known of a file, and of the folders above it."""
        self._made.clear()
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
        self._real.clear()
        self._made.clear()
        self.opened = {root: known for root, known in self.opened.items() if "://" in root}

    def _drop(self, path: str) -> None:
        self.room += len(self._content.pop(path, b""))
        self._stats.pop(path, None)
        listed = self._names.pop(path, None) is not None
        if listed or os.path.isdir(path):  # a folder that was replaced
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
        given = absolute(path)
        look.forget(given)
        folder, name = os.path.split(given)
        real = os.path.join(look.real(folder), name)
        if real != given:
            look.forget(real)


def refresh(*paths: str | os.PathLike[str]) -> None:
    """Look at files anew that others may have written: after a lock was waited for."""
    look = current_look()
    if look is not None:
        for path in paths:
            look.drop(absolute(path))


def made_once(key: Hashable, make: Callable[[], T]) -> T:
    """Return what `make` gives; in a run that has written nothing since, what it gave before."""
    look = current_look()
    return make() if look is None else look.made(key, make)


def absolute(path: str | os.PathLike[str]) -> str:
    """Return `os.path.abspath` of a path, at a fraction of its price where that changes nothing."""
    text = os.fspath(path)
    if _UNTIDY.search(text):
        return os.path.abspath(text)
    if text.startswith("/"):
        return text
    look = current_look()
    return os.path.abspath(text) if look is None else look.folder + text


def file_bytes(path: str | os.PathLike[str], check: Callable[[int], None] | None = None) -> bytes:
    """Return a file's content, as this run has seen it; raise `OSError` as reading it would.

    Args:
        path: The file.
        check: See `read_file`.
    """
    look = current_look()
    if look is None:
        return read_file(os.fspath(path), check)
    return look.read(absolute(path), check)


def file_stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return what `os.stat` gives, as this run has seen it; None for what is not there."""
    look = current_look()
    return _stat(path) if look is None else look.stat(absolute(path))


def _stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def folder_names(folder: str | os.PathLike[str]) -> Names:
    """Return what a folder holds, as this run has seen it; nothing where it cannot be listed."""
    look = current_look()
    try:
        return (Look() if look is None else look).names(absolute(folder)) or {}
    except OSError:
        return {}


def real_path(path: str | os.PathLike[str]) -> str:
    """Return `os.path.realpath` of a path, as this run has seen it."""
    look = current_look()
    return os.path.realpath(path) if look is None else look.real(absolute(path))


def read_file(
    path: str,
    check: Callable[[int], None] | None = None,
    stats: dict[str, os.stat_result | None] | None = None,
) -> bytes:
    """Return a regular file's content in as few calls as can be.

    Args:
        path: The file.
        check: Called with the size of a file of more than 64 kB before it is read as a whole.
        stats: Gets what `os.stat` would give; of an open file it costs no look at the folder.

    Raises:
        OSError: It is missing, unreadable, or no regular file. A pipe is not waited for.
    """
    # By descriptor: a file object costs more than a small file's metadata does to parse.
    fd = os.open(path, _READ_FLAGS)
    try:
        if stats is not None:
            stats[path] = os.fstat(fd)
        whole = os.read(fd, _FIRST_READ)
        if 0 < len(whole) < _FIRST_READ:  # a regular file gives less only at its end
            return whole
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if check is not None:
            check(found.st_size)
        parts = [whole]
        while part := os.read(fd, 1 << 20):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def _kind(entry: os.DirEntry[str]) -> bool | None:
    # The listing itself shows it, but for links.
    if entry.is_file(follow_symlinks=False):
        return True
    return False if entry.is_dir(follow_symlinks=False) else None
