"""Datasets in object stores, read through fsspec."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from opentau_prep.errors import PrepError
from opentau_prep.storage.ahead import ReadAhead
from opentau_prep.storage.base import check_relative, storage_error
from opentau_prep.storage.driver import Store, connect, is_silence, store_timeout
from opentau_prep.storage.identity import FileFacts, facts_of
from opentau_prep.storage.limits import check_size
from opentau_prep.storage.look import MAX_FILE_BYTES, MAX_LISTED, current_look
from opentau_prep.storage.parquet import LFS_MAGIC, ParquetReads, parquet_fault
from opentau_prep.storage.urls import check_url

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from opentau_prep.storage.ranges import Range

__all__ = ["RemoteStorage"]

T = TypeVar("T")

_BLOCK_BYTES = 8 << 20
# What is asked for at once; at 1 MB/s it still comes within the default limit.
_REQUEST_BYTES = 32 << 20


class RemoteStorage(ParquetReads):
    """A dataset root in a store that fsspec has a driver for.

    A top folder (`meta`, `data`) is listed once, when something in it is first asked for: a request
    a thousand files rather than one per file. So a storage sees which files there were then. It
    travels between processes without connection; within a run (`one_look`) it holds the small files
    below `meta/` that it has read, and travels with them and its listings.

    Args:
        root: The URL; it must not hold credentials.

    Attributes:
        url: The URL without a slash at its end.
        opened: How many times a file was opened, by its top folder.

    Raises:
        ConfigError: The URL is not usable.
    """

    def __init__(self, root: str) -> None:
        self.url = check_url(root)
        self.opened: Counter[str] = Counter()
        self._listings: dict[str, Mapping[str, FileFacts]] = {}
        self._ahead: dict[str, ReadAhead] = {}
        self._hashed: dict[str, str] = {}
        self._held: dict[str, bytes] = {}
        self._unlisted: set[str] = set()
        self._seconds = store_timeout()

    def __repr__(self) -> str:
        return f"RemoteStorage({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {"_ahead": {}, "_hashed": {}, "_unlisted": set()}
        listed = self._listings if sum(map(len, self._listings.values())) <= MAX_LISTED else {}
        # Within a run, what is known travels to its workers; later runs look again.
        known = current_look() is not None
        fresh |= {"_listings": listed if known else {}, "_held": self._held if known else {}}
        return {"url": self.url, "opened": self.opened, "_seconds": self._seconds, **fresh}

    @property
    def folder(self) -> Path | None:
        """See `Storage.folder`."""
        return None

    @cached_property
    def _store(self) -> Store:
        return connect(self.url, self._seconds)

    def read_bytes(self, rel: str) -> bytes:
        """See `Storage.read_bytes`."""
        path = self._path(rel)
        if rel in self._held:
            return self._held[rel]
        size = self._listed_size(rel) if self._store.concurrent else None
        check_size(rel, size or 0, self._where(rel))
        if size is None:
            content = self._ask(rel, lambda fs: bytes(fs.cat_file(path)))
            check_size(rel, len(content), self._where(rel))
        else:  # drivers ask for the size once more where no range is given
            content = self._fetch(rel, [(0, size)])[0] if size else b""
        self.count_open(rel)
        self._hold(rel, content)
        return content

    def read_range(self, rel: str, start: int, stop: int) -> bytes:
        """See `Storage.read_range`."""
        self.count_open(rel)
        return self._fetch(rel, [(start, stop)])[0]

    def connect(self) -> bool:
        """Return whether several requests can be sent at once; raise `PrepError` as reading does.

        To be called by the thread that reads: drivers keep one connection per thread.
        """
        return self._store.concurrent

    def read_ahead(self, rels: Sequence[str]) -> None:
        """Read files whole, all at once, and hold them for the run; those that fail are left.

        Args:
            rels: Files below `meta/`, of at most 1 MiB each.
        """
        sizes = {rel: self._listed_size(rel) for rel in rels if rel not in self._held}
        wanted = {rel: size for rel, size in sizes.items() if size and size <= MAX_FILE_BYTES}
        if not wanted or not self._store.concurrent:
            return
        paths = [self._path(rel) for rel in wanted]
        bounds = [0] * len(paths), list(wanted.values())
        parts = self._ask("meta/", partial(_cat, paths=paths, bounds=bounds))
        for (rel, size), part in zip(wanted.items(), parts, strict=True):
            if not isinstance(part, BaseException) and len(part) == size:
                self.count_open(rel)
                self._hold(rel, bytes(part))

    def _hold(self, rel: str, content: bytes) -> None:
        look = current_look()
        if look is not None and rel.startswith("meta/") and look.admits(len(content)):
            self._held[rel] = content

    def _listed_size(self, rel: str) -> int | None:
        found = self._listings.get(rel.partition("/")[0], {}).get(rel)
        return None if found is None else found.size

    def exists(self, rel: str) -> bool:
        """See `Storage.exists`; raises when the store does not say."""
        return self._info(rel) is not None

    def size(self, rel: str) -> int | None:
        """See `Storage.size`; raises when the store does not say."""
        info = self._info(rel)
        if info is None:
            return None
        if info.size is None:
            where = self._where(rel)
            raise storage_error(rel, "its store does not tell its size", where=where)
        return info.size

    def known_digest(self, rel: str) -> str | None:
        """See `Storage.known_digest`."""
        if rel in self._hashed:
            return self._hashed[rel]
        info = self._info(rel)
        return None if info is None else info.digest

    def content_digest(self, rel: str) -> str:
        """See `Storage.content_digest`; the file is read in blocks."""
        size = self.size(rel)
        digest = hashlib.sha256()
        self.count_open(rel)
        for start in range(0, size or 0, _BLOCK_BYTES):
            stop = min(start + _BLOCK_BYTES, size or 0)
            digest.update(self._fetch(rel, [(start, stop)])[0])
        self._hashed[rel] = digest.hexdigest()
        return self._hashed[rel]

    def list_files(self, rel_dir: str, suffix: str = "") -> list[str]:
        """See `Storage.list_files`."""
        folder = check_relative(rel_dir).rstrip("/")
        prefix = "" if folder == "." else f"{folder}/"
        found = self._listing(prefix.partition("/")[0])
        return sorted(
            rel
            for rel in found
            if rel.startswith(prefix)
            and rel.endswith(suffix)
            and not rel.rpartition("/")[2].startswith(".")
        )

    def stamp(self, tops: Sequence[str]) -> str | None:
        """Return one hash of the names and digests of all files below some top folders.

        None when the store tells nothing of the content of one.
        """
        total = hashlib.sha256()
        for rel, facts in sorted(item for top in tops for item in self._listing(top).items()):
            if facts.digest is None:
                return None
            total.update(f"{rel}\0{facts.digest}\n".encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def open_parquet(self, rel: str) -> pq.ParquetFile:
        """See `Storage.open_parquet`; reads the end of the file only."""
        import pyarrow as pa

        from opentau_prep.storage.ranges import RangedParquet, RangeFile, tail_range

        size = self.size(rel)
        if size is None:
            raise self._missing(rel)
        self.count_open(rel)
        tail = self._held.get(rel) or self._read_ahead(rel).take(rel)
        if tail is None and size:
            tail = self._fetch(rel, [tail_range(size)])[0]
        if tail is not None and len(tail) == size and rel not in self._held:
            self._hold(rel, tail)
        try:
            return RangedParquet(RangeFile(lambda ranges: self._fetch(rel, ranges), size, tail))
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._parquet_error(rel, error) from error

    def count_open(self, rel: str) -> None:
        """Count one opening of a file."""
        self.opened[rel.split("/", 1)[0]] += 1

    def _where(self, rel: str) -> str:
        return f"{self.url}/{rel}"

    def _path(self, rel: str) -> str:
        return f"{self._store.base}/{check_relative(rel)}"

    def _missing(self, rel: str) -> PrepError:
        hint = "Correct the root, or upload the file again."
        return storage_error(rel, "file is missing", where=self._where(rel), hint=hint)

    def _parquet_error(self, rel: str, error: Exception) -> PrepError:
        size = self.size(rel)
        if size is None:
            return self._missing(rel)
        head = self._fetch(rel, [(0, min(size, len(LFS_MAGIC)))])[0] if size else b""
        return parquet_fault(rel, self._where(rel), size, head, error)

    def _fetch(self, rel: str, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of (start, stop) ranges; drivers that can fetch them all at once."""
        parts = [b"".join(pieces) for pieces in self._pieces(rel, ranges)]
        for (start, stop), part in zip(ranges, parts, strict=True):
            if len(part) != stop - start:
                raise storage_error(
                    rel,
                    f"is shorter than its store declares ({stop - start:,} bytes at {start:,},"
                    f" found {len(part):,})",
                    where=self._where(rel),
                    hint="It was changed meanwhile: run it again.",
                )
        return parts

    def _pieces(self, rel: str, ranges: Sequence[Range]) -> list[list[bytes]]:
        """Return the bytes of each range, in pieces small enough for the limit of a request."""
        path, found = self._path(rel), [list[bytes]() for _ in ranges]
        for batch in _batches(ranges):
            starts, stops = [start for _, start, _ in batch], [stop for *_, stop in batch]
            if self._store.concurrent:
                parts = self._ask(
                    rel, partial(_cat, paths=[path] * len(batch), bounds=(starts, stops))
                )
            else:
                parts = self._ask(rel, partial(_read_parts, path=path, bounds=(starts, stops)))
            for (number, *_), part in zip(batch, parts, strict=True):
                if isinstance(part, BaseException):
                    self._ask(rel, partial(_fail, error=part))
                found[number].append(bytes(part))
        return found

    def _ask(self, rel: str, request: Callable[[Any], T]) -> T:
        return self._store.ask(rel, self._where(rel), request)

    def _read_ahead(self, rel: str) -> ReadAhead:
        top = rel.partition("/")[0]
        if top not in self._ahead:
            listing = self._listings.get(top, {})
            many = self._store.concurrent
            names = sorted(n for n in listing if n.endswith(".parquet")) if many else []
            self._ahead[top] = ReadAhead(names, self._fetch_tails)
        return self._ahead[top]

    def _fetch_tails(self, rels: Sequence[str]) -> dict[str, bytes]:
        """Return the ends of listed files, without those that cannot be read just now."""
        from opentau_prep.storage.ranges import tail_range

        sizes = [self.size(rel) or 0 for rel in rels]
        starts, stops = zip(*map(tail_range, sizes), strict=True)
        paths = [self._path(rel) for rel in rels]
        parts = self._ask(rels[0], partial(_cat, paths=paths, bounds=(starts, stops)))
        found = zip(rels, parts, starts, stops, strict=True)
        return {
            rel: bytes(part)
            for rel, part, start, stop in found
            if not isinstance(part, BaseException) and len(part) == stop - start
        }

    def _info(self, rel: str) -> FileFacts | None:
        """Return what the store reports of a file; None when it is not there."""
        path = self._path(rel)
        top, _, below = rel.partition("/")
        if below and top not in self._unlisted:
            try:
                listing = self._listing(top)
                if listing or any(self._listings.values()):
                    return listing.get(rel)
            except PrepError as error:  # who may read need not be allowed to list
                if is_silence(error):
                    raise
                self._unlisted.add(top)
        # Where all listings are empty they prove nothing: some drivers pass over what they may not
        # list.
        info = self._ask(rel, partial(_facts, path=path))
        if info is None or info.get("type", "file") == "directory":
            return None
        return facts_of(info)

    def _listing(self, top: str) -> Mapping[str, FileFacts]:
        """Return the files below a top folder, with what the store reports of each."""
        if top not in self._listings:
            base = self._store.base
            folder = f"{base}/{top}" if top else base
            found = self._ask(f"{top}/", partial(_find, folder=folder))
            named = {_relative(name, base, top): name for name in found}
            self._listings[top] = {rel: facts_of(found[name]) for rel, name in named.items()}
        return self._listings[top]


def _cat(fs: Any, paths: Sequence[str], bounds: tuple[Sequence[int], Sequence[int]]) -> list[Any]:
    # Not "raise": fsspec before 2025 gives back errors among the parts all the same.
    found: list[Any] = fs.cat_ranges(paths, list(bounds[0]), list(bounds[1]), on_error="return")
    return found


def _read_parts(fs: Any, path: str, bounds: tuple[Sequence[int], Sequence[int]]) -> list[Any]:
    parts = []
    with fs.open(path, "rb", cache_type="none") as file:
        for start, stop in zip(*bounds, strict=True):
            file.seek(start)
            parts.append(file.read(stop - start))
    return parts


def _fail(fs: Any, error: BaseException) -> None:
    raise error


def _facts(fs: Any, path: str) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = fs.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found


def _find(fs: Any, folder: str) -> Mapping[str, Any]:
    try:
        # Drivers keep listings as long as the process lives: this is a new look.
        fs.invalidate_cache()
        found: Mapping[str, Any] = fs.find(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def _batches(ranges: Sequence[Range]) -> Iterator[list[tuple[int, int, int]]]:
    """Yield (range, start, stop) pieces of at most `_BLOCK_BYTES`, a few blocks at a time."""
    pieces = [
        (number, at, min(at + _BLOCK_BYTES, stop))
        for number, (start, stop) in enumerate(ranges)
        for at in range(start, max(stop, start + 1), _BLOCK_BYTES)
    ]
    batch: list[tuple[int, int, int]] = []
    size = 0
    for piece in pieces:
        if batch and size + piece[2] - piece[1] > _REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += piece[2] - piece[1]
    if batch:
        yield batch


def _relative(name: str, base: str, top: str) -> str:
    """Return a listed name relative to the root; drivers may write the root in another way."""
    if name.startswith(f"{base}/"):
        return name[len(base) + 1 :]
    _, mark, below = name.partition(f"/{top}/") if top else ("", "", name)
    return f"{top}/{below}" if mark else name
