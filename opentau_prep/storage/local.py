"""Datasets on a file system."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.errors import PrepError
from opentau_prep.storage.base import check_relative, storage_error
from opentau_prep.storage.limits import check_size
from opentau_prep.storage.look import Look, absolute, current_look, file_bytes, file_stat
from opentau_prep.storage.parquet import LFS_MAGIC, ParquetReads, parquet_fault

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["LocalStorage"]

# What a Path would tidy up, at several times the cost of looking: `a//b`, `./a`, `a/./b`, `a/`.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_UNTIDY = re.compile(r"//|(?:^|/)\.(?:/|$)|./$|^$")


class LocalStorage(ParquetReads):
    """A dataset root on a local or mounted file system.

    Attributes:
        url: The dataset's folder.
        opened: How many times a file was opened, by its top folder (`meta`, `data`): what a caller
            shows to prove that nothing was read.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = os.fspath(root)
        self.url = str(Path(text)) if _UNTIDY.search(text) else text
        self.opened: Counter[str] = Counter()
        self._prefix = self.url if self.url.endswith("/") else f"{self.url}/"

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.root)!r})"

    @property
    def root(self) -> Path:
        """The root folder."""
        return Path(self.url)

    @property
    def folder(self) -> Path | None:
        """See `Storage.folder`."""
        return self.root

    def path(self, rel: str) -> Path:
        """Return the file system path of a dataset-relative path."""
        return self.root / check_relative(rel)

    def _place(self, rel: str) -> str:
        # As a string: a Path costs more than a small file's metadata does to parse.
        return f"{self._prefix}{check_relative(rel)}"

    def read_bytes(self, rel: str) -> bytes:
        """See `Storage.read_bytes`."""
        path = self._place(rel)
        try:
            content = file_bytes(path, lambda size: check_size(rel, size, path))
        except OSError as error:
            raise _os_error(rel, path, error) from error
        self.count_open(rel)
        return content

    def read_range(self, rel: str, start: int, stop: int) -> bytes:
        """See `Storage.read_range`."""
        path = self._place(rel)
        try:
            fd = os.open(path, _READ_FLAGS)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    _check_regular(path)
                part = os.pread(fd, stop - start, start)
                while len(part) < stop - start:
                    more = os.pread(fd, stop - start - len(part), start + len(part))
                    if not more:
                        raise OSError(errno.EIO, "file is shorter than it was", path)
                    part += more
            finally:
                os.close(fd)
        except OSError as error:
            raise _os_error(rel, path, error) from error
        self.count_open(rel)
        return part

    def exists(self, rel: str) -> bool:
        """See `Storage.exists`."""
        path, look = self._place(rel), current_look()
        if look is not None and rel.startswith("meta/"):
            # Most of what is asked for there is not there: one listing answers for all of it.
            with contextlib.suppress(OSError):
                return look.has_file(absolute(f"{self._prefix}meta"), rel[len("meta/") :])
        if look is None:
            return os.path.isfile(path)
        found = file_stat(path)
        return found is not None and stat.S_ISREG(found.st_mode)

    def size(self, rel: str) -> int | None:
        """See `Storage.size`."""
        try:
            found = file_stat(self._place(rel))
        except (OSError, ValueError):
            return None
        return None if found is None else found.st_size

    def list_files(self, rel_dir: str, suffix: str = "") -> list[str]:
        """See `Storage.list_files`.

        Folders that are links are followed, once each, as some tools link whole chunks.
        """
        look = current_look()
        top = self._place(rel_dir)
        if look is None:
            found = self._walk(rel_dir, top)
        elif rel_dir.partition("/")[0] in ("meta", "data"):
            found = self._listed(look, rel_dir, top)
        else:
            found = look.listed(absolute(top), lambda: self._walk(rel_dir, top))
        return [rel for rel in found if rel.endswith(suffix)]

    def _listed(self, look: Look, rel_dir: str, top: str) -> list[str]:
        """Return the files below a folder; its listings answer for single files too."""
        rel_dir, place = rel_dir.rstrip("/"), absolute(top)
        try:
            found = look.tree(place, rel_dir)
        except OSError as error:
            raise _os_error(f"{rel_dir}/", str(error.filename or top), error) from error
        return look.listed(place, lambda: self._walk(rel_dir, top)) if found is None else found

    def _walk(self, rel_dir: str, top: str) -> list[str]:
        found: list[str] = []
        seen: set[tuple[int, int]] = set()

        def fail(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise _os_error(f"{rel_dir}/", str(error.filename or top), error) from error

        for folder, names, files in os.walk(top, followlinks=True, onerror=fail):
            try:
                found_at = os.stat(folder)
            except OSError as error:
                fail(error)
                continue
            real = (found_at.st_dev, found_at.st_ino)
            if real in seen:
                names.clear()
                continue
            seen.add(real)
            prefix = f"{folder[len(self._prefix) :]}/".replace(os.sep, "/").removeprefix("./")
            found += [f"{prefix}{f}" for f in files if not f.startswith(".")]
        return sorted(found)

    def open_parquet(self, rel: str) -> pq.ParquetFile:
        """See `Storage.open_parquet`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._place(rel)
        self.count_open(rel)
        try:
            _check_regular(path)
            return pq.ParquetFile(pa.memory_map(path, "r"))
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._parquet_error(rel, error) from error

    def known_digest(self, rel: str) -> str | None:
        """See `Storage.known_digest`."""
        return None

    def content_digest(self, rel: str) -> str:
        """See `Storage.content_digest`."""
        return hashlib.sha256(self.read_bytes(rel)).hexdigest()

    def _parquet_error(self, rel: str, error: Exception) -> PrepError:
        # Arrow raises OSError without an errno for damaged content, with one for the file
        # system's own.
        path = self._place(rel)
        if isinstance(error, OSError) and error.errno is not None:
            return _os_error(rel, path, error)
        try:
            size = os.stat(path).st_size
            with open(path, "rb") as file:
                head = file.read(len(LFS_MAGIC))
        except OSError as os_error:
            return _os_error(rel, path, os_error)
        return parquet_fault(rel, path, size, head, error)

    def count_open(self, rel: str) -> None:
        """Count one opening of a file."""
        self.opened[rel.split("/", 1)[0]] += 1


def _check_regular(path: str) -> None:
    """Raise `OSError` for what would be no file to read, or, like a pipe, block for ever."""
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory", path)
    raise OSError(errno.EINVAL, "not a regular file", path)


def _os_error(rel: str, path: str, error: OSError) -> PrepError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return storage_error(
            rel, "file is missing", where=path, hint="Download it again, or fix the path."
        )
    reason = (error.strerror or str(error)).lower()
    hint = "Ask its owner for access." if isinstance(error, PermissionError) else None
    return storage_error(rel, f"cannot be read ({reason})", where=path, hint=hint)
