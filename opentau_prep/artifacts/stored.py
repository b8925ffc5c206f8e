"""Fingerprints of a dataset's files wherever they lie: hashed here, or as the store tells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentau_prep.artifacts.fingerprint import MISSING, file_inputs, hash_files, summary
from opentau_prep.storage import Storage

__all__ = ["stored_hashes", "stored_inputs"]


def stored_hashes(storage: Storage, rels: Sequence[str], *, count: bool = False) -> dict[str, str]:
    """Return a hash of each file, in the order given; a file that is not there has `MISSING`.

    In a store it is of what that tells (checksum, ETag, else time), so that nothing is downloaded;
    only files of which it tells nothing are read.

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
