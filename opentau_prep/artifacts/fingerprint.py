"""Content hashes of a dataset's files, without reading a file twice.

The hash is of the content, so a copy or a new download of the same dataset has the same
fingerprint. What was hashed is remembered in a cache of this user, and a file is not opened again
while its size, times and inode stay the same. As in git's index, a file that changed only just
before it was hashed is not remembered: it could change again within the same tick of the clock and
look the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.errors import ArtifactError, DataError
from opentau_prep.storage import Storage
from opentau_prep.storage.look import file_bytes, file_stat, real_path

__all__ = [
    "COARSE_TICK_NS",
    "MISSING",
    "TICK_NS",
    "cache_dir",
    "cache_left_alone",
    "file_inputs",
    "hash_files",
    "known_hashes",
    "remember",
    "remembered",
    "stored_hashes",
    "stored_inputs",
    "summary",
]

MISSING = "missing"

_CACHE_VERSION = 1
_HASHES = "fingerprints"
_BLOCK_BYTES = 1 << 20
_MAX_THREADS = 8
# More files than this are one hash of all: a list of each would outgrow the artifact.
_MAX_LISTED_FILES = 1000
# Clock ticks of file systems: 10 ms on Linux, and 1 to 2 s on those whose times show no finer part.
TICK_NS = 50_000_000
COARSE_TICK_NS = 2_000_000_000

# What is remembered while the cache is left alone: cache file -> entries; None while it is not.
_aside: ContextVar[dict[Path | None, dict[str, Any]] | None] = ContextVar(
    "opentau_prep_fingerprints_aside", default=None
)

# size, mtime_ns, ctime_ns, inode
_Key = tuple[int, int, int, int]


def hash_files(
    root: Path, rels: Sequence[str], *, opened: Callable[[str], None] | None = None
) -> dict[str, str]:
    """Return the SHA-256 of files, in the order given; a file that is not there has `MISSING`.

    Args:
        root: The folder the paths are relative to.
        rels: The files, as posix paths.
        opened: Called with the path of each file that had to be read, from several threads.

    Raises:
        DataError: A file is there but cannot be read.
    """
    cache_file = _cache_file(real_path(root))
    cached = _load_cache(cache_file)
    known, keys = _remembered(root, rels, cached)
    fresh = _hash_all(root, keys, opened)
    if fresh:
        trusted = {rel: [*key, digest] for rel, (digest, key) in fresh.items() if key is not None}
        _save_cache(cache_file, {**cached, **trusted})
    return {rel: known[rel] if rel in known else fresh[rel][0] for rel in rels}


def file_inputs(
    root: Path,
    rels: Sequence[str],
    *,
    opened: Callable[[str], None] | None = None,
    read: bool = True,
) -> dict[str, Any]:
    """Return the fingerprint of some files, ready to be one of an artifact's inputs.

    Args:
        root: The folder the paths are relative to.
        rels: The files, as posix paths.
        opened: See `hash_files`.
        read: Whether files whose hash is not remembered are read. If not, and there are some, only
            `files` and `bytes` are reported; nothing is written to the cache either.

    Returns:
        `{"files", "bytes", "sha256"}` over the names and contents, whatever their order, and up to
        1,000 files also `"each"`: the first 12 hex digits a file, so that changes can be counted.

    Raises:
        DataError: A file is there but cannot be read.
    """
    if read:
        hashes = hash_files(root, rels, opened=opened)
    else:
        hashes, unknown = _remembered(root, rels, _load_cache(_cache_file(real_path(root))))
        if unknown:
            keys = (_stat_key(root, rel) for rel in rels)
            return {"files": len(rels), "bytes": sum(key[0] for key in keys if key is not None)}
    keys = (_stat_key(root, rel) for rel in hashes)
    return summary(hashes, sum(key[0] for key in keys if key is not None))


def summary(hashes: Mapping[str, str], n_bytes: int) -> dict[str, Any]:
    """Return what `file_inputs` does, of files whose hashes are known.

    Args:
        hashes: File -> SHA-256, or `MISSING`.
        n_bytes: How large they are together.
    """
    total = hashlib.sha256()
    for rel in sorted(hashes):
        total.update(f"{rel}\0{hashes[rel]}\n".encode("utf-8", "surrogateescape"))
    inputs: dict[str, Any] = {
        "files": len(hashes),
        "bytes": n_bytes,
        "sha256": total.hexdigest(),
    }
    if len(hashes) <= _MAX_LISTED_FILES:
        inputs["each"] = {rel: hashes[rel][:12] for rel in sorted(hashes)}
    return inputs


@contextlib.contextmanager
def cache_left_alone(active: bool = True) -> Iterator[None]:
    """Write nothing to the cache within the block: a dry run changes no file.

    What is hashed there is remembered until its end.

    Args:
        active: Whether to do so at all.
    """
    outer = _aside.get()
    token = _aside.set({} if active and outer is None else outer)
    try:
        yield
    finally:
        _aside.reset(token)


def known_hashes(storage: Storage, rels: Sequence[str]) -> dict[str, str]:
    """Return the hashes of files that are known without reading them.

    Raises:
        DataError: A file is there but is no regular file.
    """
    folder = storage.folder
    if folder is not None:
        return _remembered(folder, rels, _load_cache(_cache_file(_name_of(storage))))[0]
    found = ((rel, storage.known_digest(rel)) for rel in rels)
    return {rel: digest for rel, digest in found if digest is not None}


def remembered(kind: str, subject: Storage | str) -> dict[str, Any]:
    """Return what this user's cache holds of one kind about a subject; empty when there is none.

    Args:
        kind: What is remembered: a folder of the cache.
        subject: A dataset, or any text that no other subject of the kind has.
    """
    return _load_cache(_cache_file(_name_of(subject), kind))


def remember(kind: str, subject: Storage | str, entries: Mapping[str, Any]) -> None:
    """Put JSON-ready entries in the place of what `remembered` returns."""
    _save_cache(_cache_file(_name_of(subject), kind), entries)


def _name_of(subject: Storage | str) -> str:
    if isinstance(subject, str):
        return subject
    return subject.url if subject.folder is None else real_path(subject.folder)


def cache_dir(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return this user's cache folder; None when there is no home to put it in."""
    environ = os.environ if environ is None else environ
    if environ.get("OPENTAU_PREP_CACHE_DIR"):
        return Path(environ["OPENTAU_PREP_CACHE_DIR"])
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"], "opentau-prep")
    try:
        return Path.home() / ".cache" / "opentau-prep"
    except RuntimeError:
        return None


def _remembered(
    root: Path, rels: Sequence[str], cached: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, _Key]]:
    """Return the hashes that are known without reading, and the keys of all other files."""
    known: dict[str, str] = {}
    keys: dict[str, _Key] = {}
    for rel in rels:
        key = _stat_key(root, rel)
        if key is None:
            known[rel] = MISSING
        elif _cached_key(cached.get(rel)) == key:
            known[rel] = cached[rel][4]
        else:
            keys[rel] = key
    return known, keys


def _stat_key(root: Path, rel: str) -> _Key | None:
    path = os.path.join(root, rel)  # a Path costs more than the call
    try:
        found = file_stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if found is None:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise DataError("is not a regular file", where=path)
    return _key(found)


def _key(found: os.stat_result) -> _Key:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _hash_all(
    root: Path, keys: Mapping[str, _Key], opened: Callable[[str], None] | None
) -> dict[str, tuple[str, _Key | None]]:
    def one(rel: str) -> tuple[str, _Key | None]:
        if opened is not None:
            opened(rel)
        return _hash_file(os.path.join(root, rel))

    if not keys:
        return {}
    from concurrent.futures import ThreadPoolExecutor

    threads = min(_MAX_THREADS, len(keys), (os.cpu_count() or 1) + 1)
    # To hand a small file to a thread takes as long as to hash it.
    rels, some = list(keys), max(1, len(keys) // (4 * threads))
    batches = [rels[at : at + some] for at in range(0, len(rels), some)]
    with ThreadPoolExecutor(threads) as pool:  # hashing and reading let go of the interpreter lock
        done = pool.map(lambda batch: [one(rel) for rel in batch], batches)
        return dict(zip(rels, itertools.chain.from_iterable(done), strict=True))


def _hash_file(path: str) -> tuple[str, _Key | None]:
    """Return the hash, and the key to remember it under: None when it changes too fast for that."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            start_ns = time.time_ns()
            before = os.fstat(file.fileno())
            buffer = memoryview(bytearray(min(_BLOCK_BYTES, before.st_size + 1)))
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        return MISSING, None
    except OSError as error:
        raise _unreadable(path, error) from error
    settled = _key(before) == _key(after) and not _just_changed(before, start_ns)
    return digest.hexdigest(), _key(before) if settled else None


def _just_changed(found: os.stat_result, now_ns: int) -> bool:
    coarse = found.st_ctime_ns % 10_000_000 == 0
    tick = COARSE_TICK_NS if coarse else TICK_NS
    return max(found.st_mtime_ns, found.st_ctime_ns) > now_ns - tick


def _unreadable(path: str, error: OSError) -> DataError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DataError(f"cannot be read ({reason})", where=path)


def _cache_file(name: str, kind: str = _HASHES) -> Path | None:
    folder = cache_dir()
    if folder is None:
        return None
    digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:24]
    return folder / kind / f"{digest}.json"


def _load_cache(path: Path | None) -> dict[str, Any]:
    """Return the remembered entries; a cache that is missing, torn or not ours is an empty one."""
    aside = _aside.get()
    if aside is not None and path in aside:
        return aside[path]
    try:
        content = json.loads(file_bytes(path)) if path is not None else None
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("version") != _CACHE_VERSION:
        return {}
    files = content.get("files")
    return files if isinstance(files, dict) else {}


def _cached_key(entry: Any) -> _Key | None:
    if not isinstance(entry, list) or len(entry) != 5 or not isinstance(entry[4], str):
        return None
    return entry[0], entry[1], entry[2], entry[3]


def _save_cache(path: Path | None, files: Mapping[str, Any]) -> None:
    aside = _aside.get()
    if aside is not None:
        aside[path] = dict(files)
    if path is None or aside is not None:
        return
    content = json.dumps({"version": _CACHE_VERSION, "files": files})
    try:
        write_atomic(path, content.encode("utf-8", "backslashreplace"))
    except ArtifactError:
        return  # without a cache everything still works, only slower


def stored_hashes(storage: Storage, rels: Sequence[str], *, count: bool = False) -> dict[str, str]:
    """Return a hash of each file, in the order given; a file that is not there has `MISSING`.

    In a store it is of what that reports (checksum, ETag, else time), so that nothing is
    downloaded; only files of which it reports nothing are read.

    Args:
        storage: The dataset.
        rels: The files, relative to its root.
        count: Whether files that had to be read count as opened.

    Raises:
        DataError: A file is there but cannot be read.
    """
    if storage.folder is not None:
        return hash_files(storage.folder, rels, opened=storage.count_open if count else None)
    return {rel: _hash(storage, rel) for rel in rels}


def stored_inputs(storage: Storage, rels: Sequence[str], *, read: bool = True) -> dict[str, Any]:
    """Return the fingerprint of some files; see `file_inputs`.

    Args:
        storage: The dataset.
        rels: The files, relative to its root.
        read: Whether files are read whose hash is not known.

    Raises:
        DataError: A file is there but cannot be read.
    """
    if storage.folder is not None:
        return file_inputs(storage.folder, rels, opened=storage.count_open, read=read)
    sizes = {rel: storage.size(rel) for rel in rels}
    n_bytes = sum(size or 0 for size in sizes.values())
    there = [rel for rel in rels if sizes[rel] is not None]
    if not read and any(storage.known_digest(rel) is None for rel in there):
        return {"files": len(rels), "bytes": n_bytes}
    return summary(stored_hashes(storage, rels), n_bytes)


def _hash(storage: Storage, rel: str) -> str:
    known = storage.known_digest(rel)
    if known is not None:
        return known
    return MISSING if storage.size(rel) is None else storage.content_digest(rel)
