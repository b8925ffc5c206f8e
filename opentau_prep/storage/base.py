"""The contract of a storage: read-only access to one dataset by dataset-relative POSIX paths."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from opentau_prep.errors import DataError, MetadataError, PrepError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["Storage", "check_relative", "storage_error"]

_DRIVE = re.compile(r"[A-Za-z]:")
# No drive, backslash, control character, or half of a surrogate pair that JSON can smuggle in;
# the halves that replace undecodable bytes of a real file name (DC80 to DCFF) are fine.
_PLAIN = re.compile(r"(?![A-Za-z]:)[^\\\x00-\x1f\x7f\ud800-\udc7f\udd00-\udfff]+\Z")


class Storage(Protocol):
    """Read-only view of a dataset root.

    Paths are relative to the root, with forward slashes, such as `meta/info.json`. A path that
    would leave the root is refused. Faults of what lies under `meta/` are `MetadataError`, all
    others `DataError`.
    """

    opened: Counter[str]
    """How many files were opened, by their top folder: the proof that nothing was read."""

    @property
    def url(self) -> str:
        """The root, as it is shown to people."""
        ...

    @property
    def folder(self) -> Path | None:
        """The root as a folder of this machine, where files can be written; None elsewhere."""
        ...

    def count_open(self, rel: str) -> None:
        """Count one opening of a file by someone who does not go through the storage."""
        ...

    def read_bytes(self, rel: str) -> bytes:
        """Return a file's content; raise when it is missing or unreadable."""
        ...

    def read_range(self, rel: str, start: int, stop: int) -> bytes:
        """Return the bytes of a file from a position to one before another; raise when short."""
        ...

    def exists(self, rel: str) -> bool:
        """Tell whether a file is there."""
        ...

    def size(self, rel: str) -> int | None:
        """Return a file's size in bytes, or None when it is not there."""
        ...

    def known_digest(self, rel: str) -> str | None:
        """Return a hash that identifies a file's content and is known without reading it.

        It is the content's SHA-256 where the store reports that, else a hash of what it reports
        instead. None when the file is not there, or would have to be read.
        """
        ...

    def content_digest(self, rel: str) -> str:
        """Return the SHA-256 of a file's content in hexadecimal, by reading it if need be."""
        ...

    def list_files(self, rel_dir: str, suffix: str = "") -> Sequence[str]:
        """Return the files below a folder, at any depth, sorted; none when it is missing."""
        ...

    def open_parquet(self, rel: str) -> pq.ParquetFile:
        """Open a parquet file, memory-mapped where possible; raise when it is not parquet."""
        ...

    def column_names(self, rel: str, file: pq.ParquetFile) -> Sequence[str]:
        """Return the names of the top-level columns of a parquet file that is open."""
        ...

    def read_table(
        self,
        rel: str,
        columns: Sequence[str] | None = None,
        *,
        row_groups: Sequence[int] | None = None,
        file: pq.ParquetFile | None = None,
    ) -> pa.Table:
        """Read columns of a parquet file or of some row groups; `file` is it, if open already."""
        ...


@functools.lru_cache(maxsize=1024)  # the same few names of metadata, dataset after dataset
def check_relative(rel: str) -> str:
    """Return `rel` when it stays below the root; raise `DataError` or `MetadataError` otherwise."""
    parts = rel.split("/")
    if ".." not in parts and "" not in parts[:1] and _PLAIN.match(rel):
        return rel
    bad = not rel or rel.startswith("/") or ".." in parts or _DRIVE.match(rel)
    what = "leaves the dataset's folder" if bad else "has characters that no path should have"
    raise storage_error(
        "meta/" if rel.startswith("meta") else "data/",
        f"path {rel!r} {what}",
        where=None,
        hint="Paths and path templates must be relative and stay below the dataset root.",
    )


def storage_error(
    rel: str, message: str, *, where: str | None, hint: str | None = None
) -> PrepError:
    """Build the error that fits the path: `MetadataError` below `meta/`, else `DataError`."""
    cls = MetadataError if rel.startswith("meta/") else DataError
    return cls(message, where=where, hint=hint)
