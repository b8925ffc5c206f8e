"""Object stores in memory, as fsspec drivers that keep count of what is asked of them.

with fake_store("fake", {"bucket/ds/meta/info.json": b"..."}) as store:
    RemoteStorage("fake://bucket/ds")
    store.asked        # [(path, start, stop), ...]
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.registry import _registry

__all__ = ["FakeStore", "fake_store", "upload"]


@dataclass
class FakeStore:
    """What a store holds, and what was asked of it.

    Attributes:
        files: Path with bucket -> content.
        facts: What the store tells of every file beside name and size.
        fault: Called before each answer with (what, path); raises what the store would.
        asked: (path, start, stop) of every read, as bytes.
        listed: The folders that were listed.
        rounds: How often a concurrent store was asked for ranges, all at once.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=lambda: {"ETag": '"e1"'})
    fault: Callable[[str, str], None] = lambda what, path: None
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    rounds: int = 0

    def read(self, path: str, start: int | None, stop: int | None) -> bytes:
        self.fault("read", path)
        content = self._content(path)
        start, stop = start or 0, len(content) if stop is None else stop
        self.asked.append((path, start, stop))
        return content[start:stop]

    def info(self, path: str) -> dict[str, Any]:
        self.fault("info", path)
        size = len(self._content(path))
        return {"name": path, "size": size, "type": "file", **self.facts}

    def find(self, folder: str) -> dict[str, dict[str, Any]]:
        self.fault("list", folder)
        self.listed.append(folder)
        inside = [path for path in self.files if path.startswith(f"{folder}/")]
        quiet = FakeStore(self.files, self.facts)
        return {path: quiet.info(path) for path in inside}

    def bytes_read(self, path: str) -> int:
        return sum(stop - start for asked, start, stop in self.asked if asked == path)

    def _content(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]


class _Opened(io.BytesIO):
    def __init__(self, store: FakeStore, path: str) -> None:
        super().__init__(store._content(path))
        self._store, self._path = store, path

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        content = super().read(size)
        self._store.fault("read", self._path)
        self._store.asked.append((self._path, start, start + len(content)))
        return content


def _blocking(protocol: str, store: FakeStore) -> type[AbstractFileSystem]:
    def find(self: Any, path: str, detail: bool = False, **_: Any) -> Any:
        return store.find(path.rstrip("/"))

    methods = {
        "protocol": protocol,
        "cachable": False,
        "find": find,
        "info": lambda self, path, **_: store.info(path),
        "_open": lambda self, path, mode="rb", **_: _Opened(store, path),
    }
    return type("BlockingStore", (AbstractFileSystem,), methods)


def _concurrent(protocol: str, store: FakeStore) -> type[AsyncFileSystem]:
    async def find(self: Any, path: str, detail: bool = False, **_: Any) -> Any:
        return store.find(path.rstrip("/"))

    async def info(self: Any, path: str, **_: Any) -> Any:
        return store.info(path)

    async def cat_file(
        self: Any, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        return store.read(path, start, end)

    async def cat_ranges(self: Any, *args: Any, **options: Any) -> Any:
        store.rounds += 1
        return await AsyncFileSystem._cat_ranges(self, *args, **options)

    methods = {
        "protocol": protocol,
        "cachable": False,
        "_cat_ranges": cat_ranges,
        "_find": find,
        "_info": info,
        "_cat_file": cat_file,
    }
    return type("ConcurrentStore", (AsyncFileSystem,), methods)


@contextlib.contextmanager
def fake_store(
    protocol: str, files: dict[str, bytes] | None = None, *, concurrent: bool = False
) -> Iterator[FakeStore]:
    """Yield a store that `protocol://` reads as long as the block lasts."""
    store = FakeStore(dict(files or {}))
    kind = (_concurrent if concurrent else _blocking)(protocol, store)
    fsspec.register_implementation(protocol, kind, clobber=True)
    try:
        yield store
    finally:
        _registry.pop(protocol, None)


def upload(store: FakeStore, folder: Path, prefix: str) -> None:
    """Put a folder's files into a store below `prefix`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.files[f"{prefix}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
