"""What a command found, kept in this user's cache until something that it looked at changes.

A memory holds the path of every file and folder that may have been read, and one hash of their
sizes, times and inodes; of a dataset in a store, the hash of its listings. To check it costs a
`stat` per path, and no listing: what is added or removed changes the times of its folder. As in
git's index, nothing is remembered of files that changed only just before: they could change again
within one tick of the clock and look the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import opentau_prep
from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.fingerprint import COARSE_TICK_NS, TICK_NS, cache_dir
from opentau_prep.errors import ArtifactError, PrepError
from opentau_prep.storage import is_remote, open_storage
from opentau_prep.storage.listings import list_together
from opentau_prep.storage.look import looking_anew
from opentau_prep.storage.remote import RemoteStorage

__all__ = ["Memory", "stamp_of", "tool_stamp"]

_PACKAGES = ("numpy", "pyarrow", "orjson")
_MOST_KEPT = 64
_TOPS = ("meta", "data", "videos")
_CHECKOUT = f"{os.sep}.git"


class Memory:
    """What is remembered of one question.

    Args:
        kind: What is remembered: a folder of the cache.
        asked: All that decides the answer but for the content of files; its `repr` is compared.
        folders: Folders with all that is below them, files, and URLs of datasets.
        checkouts: Whether these folders are in a checkout of Git matters as well.
        active: Whether anything is remembered at all.
    """

    def __init__(
        self,
        kind: str,
        asked: object,
        folders: Iterable[str],
        checkouts: Iterable[str] = (),
        *,
        active: bool = True,
    ) -> None:
        self._folders = list(dict.fromkeys(folders))
        self._checkouts = list(checkouts)
        folder = cache_dir() if active else None
        text = repr((sys.version, opentau_prep.__version__, os.getcwd(), self._folders, asked))
        name = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:24]
        self._file = None if folder is None else folder / kind / f"{name}.json"
        self._noted: dict[str, Any] | None = None

    @property
    def active(self) -> bool:
        """Whether anything is remembered at all."""
        return self._file is not None

    def recall(self) -> bytes | None:
        """Return what was kept; None when there is nothing, or anything has changed since."""
        if self._file is None:
            return None
        try:
            head, _, content = self._file.read_bytes().partition(b"\n")
            known = json.loads(head)
            digest, _ = _digest_of(known["paths"], known["urls"])
            if digest != known["digest"] or len(content) != known["bytes"]:
                return None
            os.utime(self._file)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, PrepError):
            return None  # none, torn, or a store that does not answer
        return content

    def note(self) -> None:
        """Note how everything is that an answer will be found from; what was read is read anew."""
        self._noted = None
        if self._file is None:
            return
        urls = [each for each in self._folders if is_remote(each)]
        paths, linked = [*_tool_files(), *_git_folders(self._checkouts)], set[str]()
        for each in self._folders:
            if not is_remote(each):
                paths += _below(os.path.abspath(each), linked)
        with contextlib.suppress(PrepError):
            digest, newest = _digest_of(paths, urls)
            if digest is not None and _settled(*newest):
                self._noted = {"paths": paths, "urls": urls, "digest": digest}
        with looking_anew():
            pass

    def keep(self, content: bytes) -> None:
        """Remember an answer that was found from what was noted, without changing any of it."""
        if self._file is None or self._noted is None:
            return
        head = json.dumps({**self._noted, "bytes": len(content)}).encode("ascii")
        with contextlib.suppress(ArtifactError, OSError):  # without it all still works, but slower
            write_atomic(self._file, head + b"\n" + content)
            kept = sorted(self._file.parent.glob("*.json"), key=lambda file: -file.stat().st_mtime)
            for old in kept[_MOST_KEPT:]:
                old.unlink()


def stamp_of(folders: Iterable[str], checkouts: Iterable[str] = ()) -> tuple[str, int]:
    """Return a hash of how folders and all below them are, and how they may change unnoticed.

    Args:
        folders: Folders of this machine.
        checkouts: Whether these are in a checkout of Git matters as well.

    Returns:
        The hash, and the time in nanoseconds up to which a change may not show in it.
    """
    paths, linked = _git_folders(checkouts), set[str]()
    for each in folders:
        paths += _below(os.path.abspath(each), linked)
    digest, (newest, tick) = _digest_of(paths, [])
    return hashlib.sha256(repr((digest, paths)).encode(errors="replace")).hexdigest(), newest + tick


def tool_stamp() -> str:
    """Return a hash of how the files of this package are, and of those that read for it."""
    return str(_digest_of(_tool_files(), [])[0])


def _digest_of(paths: Sequence[str], urls: Sequence[str]) -> tuple[str | None, tuple[int, int]]:
    """Return one hash of how files, folders and stores are.

    Returns:
        The hash, None where a store does not tell what its files hold; and of the files the newest
        time of change and the clock's tick, in nanoseconds.
    """
    digest = hashlib.sha256()
    newest, fine = 0, False
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            digest.update(b"gone\n")
            continue
        if path.endswith(_CHECKOUT):
            digest.update(b"git\n")
            continue
        changed = found.st_ctime_ns
        digest.update(b"%d %d %d %d\n" % (found.st_size, found.st_mtime_ns, changed, found.st_ino))
        newest = max(newest, found.st_mtime_ns, changed)
        fine = fine or changed % 10_000_000 != 0
    list_together(urls, _TOPS)
    stamp: str | None = ""
    for url in urls:
        storage = open_storage(url)
        stamp = storage.stamp(_TOPS) if isinstance(storage, RemoteStorage) else None
        if stamp is None:
            break
        digest.update(stamp.encode("ascii"))
    tick = TICK_NS if fine else COARSE_TICK_NS
    return None if stamp is None else digest.hexdigest(), (newest, tick)


def _settled(newest: int, tick: int) -> bool:
    """Return whether what changes from now on will look so; waits for a short tick, if need be."""
    left = newest + tick - time.time_ns()
    if 0 < left <= TICK_NS:
        time.sleep(left / 1e9)
    return left <= TICK_NS


def _git_folders(folders: Iterable[str]) -> list[str]:
    real = [Path(os.path.realpath(folder)) for folder in folders if not is_remote(folder)]
    within = dict.fromkeys(parent for folder in real for parent in (folder, *folder.parents))
    return [f"{parent}{_CHECKOUT}" for parent in within]


def _tool_files() -> list[str]:
    tool = Path(opentau_prep.__file__).parent
    specs = (find_spec(name) for name in _PACKAGES)
    packages = [spec.origin for spec in specs if spec is not None and spec.origin]
    return [*packages, *sorted(map(str, tool.rglob("*.py")))]


def _below(path: str, linked: set[str]) -> Iterator[str]:
    """Yield a path and all below it in a fixed order, through links to folders, each once."""
    yield path
    try:
        with os.scandir(path) as listing:
            found = sorted(listing, key=lambda each: each.name)
    except OSError:  # a file, or nothing
        return
    for each in found:
        if each.is_dir(follow_symlinks=False):
            yield from _below(each.path, linked)
        elif each.is_symlink() and each.is_dir() and os.path.realpath(each.path) not in linked:
            linked.add(os.path.realpath(each.path))
            yield from _below(each.path, linked)
        else:
            yield each.path
