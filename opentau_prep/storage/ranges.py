"""Parquet over a store that gives ranges of bytes: only the chosen column chunks travel.

Reading some columns takes two round trips: one for the end of the file, where the footer is, and
one for all byte ranges of those columns at once; a small file takes one. In memory are the end of
the file (64 KiB, or 128 KiB of a small one) and, while a table is decoded, its compressed bytes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["RangeFile", "RangedParquet", "chunk_ranges", "merge_ranges", "tail_range"]

Range = tuple[int, int]
Fetch = Callable[[Sequence[Range]], Sequence[bytes]]

# What Arrow asks for first; a footer larger than this costs one request more.
TAIL_BYTES = 64 << 10
# A file up to this size is fetched whole: asking twice would take longer.
SMALL_BYTES = 128 << 10
# Ranges closer than this are one request: as long as such a gap takes, so does asking twice.
MAX_GAP_BYTES = 64 << 10


class RangeFile(io.RawIOBase):
    """A file of which parts are fetched; what was fetched ahead is not asked for again.

    Args:
        fetch: Returns the bytes of (start, stop) ranges, in order; raises `PrepError`.
        size: The file's size in bytes.
        tail: Its end, if that has been fetched already; see `tail_range`.
    """

    def __init__(self, fetch: Fetch, size: int, tail: bytes | None = None) -> None:
        super().__init__()
        self._fetch, self._size, self._position = fetch, size, 0
        if tail is None:
            tail = fetch([tail_range(size)])[0] if size else b""
        self._tail = (size - len(tail), tail)
        self._held: list[tuple[int, bytes]] = []

    @contextlib.contextmanager
    def holding(self, ranges: Sequence[Range]) -> Iterator[None]:
        """Fetch ranges at once, and keep them as long as the block lasts."""
        tail = self._tail[0]
        bounded = [(max(0, a), min(b, self._size)) for a, b in ranges]
        wanted = merge_ranges([(a, b) for a, b in bounded if a < min(b, tail)])
        self._held = [
            (start, data)
            for (start, _), data in zip(wanted, self._fetch(wanted) if wanted else (), strict=True)
        ]
        try:
            yield
        finally:
            self._held = []

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        start = self._position
        stop = self._size if size is None or size < 0 else min(start + size, self._size)
        if start >= stop:
            return b""
        self._position = stop
        for first, data in (self._tail, *self._held):
            if first <= start and stop <= first + len(data):
                return data[start - first : stop - first]
        return self._fetch([(start, stop)])[0]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True


class RangedParquet(pq.ParquetFile):  # type: ignore[misc]
    """A parquet file that fetches what a read needs before Arrow asks for it piece by piece."""

    def __init__(self, source: RangeFile) -> None:
        super().__init__(source, pre_buffer=False)  # it is done here, all ranges at once
        self._ranges = source

    def read(self, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        """See `pyarrow.parquet.ParquetFile.read`."""
        groups = range(self.metadata.num_row_groups)
        with self._ranges.holding(chunk_ranges(self.metadata, groups, columns)):
            return super().read(columns=columns, **options)

    def read_row_groups(
        self, row_groups: Sequence[int], columns: Sequence[str] | None = None, **options: Any
    ) -> pa.Table:
        """See `pyarrow.parquet.ParquetFile.read_row_groups`."""
        with self._ranges.holding(chunk_ranges(self.metadata, row_groups, columns)):
            return super().read_row_groups(row_groups, columns=columns, **options)


def tail_range(size: int) -> Range:
    """Return the (start, stop) that is fetched of a file of `size` bytes when it is opened."""
    return (0 if size <= SMALL_BYTES else size - TAIL_BYTES), size


def chunk_ranges(
    metadata: pq.FileMetaData, row_groups: Sequence[int], columns: Sequence[str] | None
) -> list[Range]:
    """Return the (start, stop) byte ranges of columns, nested ones too, in some row groups.

    Source: the format's ColumnMetaData; a chunk begins with its dictionary page, if it has one.
    """
    found: list[Range] = []
    leaves = _leaves(metadata, columns)
    for group in row_groups:
        row_group = metadata.row_group(group)
        for leaf in leaves:
            chunk = row_group.column(leaf)
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < start:
                start = chunk.dictionary_page_offset
            found.append((start, start + chunk.total_compressed_size))
    return found


def merge_ranges(ranges: Sequence[Range], *, max_gap: int = MAX_GAP_BYTES) -> list[Range]:
    """Return ranges in order, those that overlap or nearly touch as one."""
    merged: list[Range] = []
    for start, stop in sorted(ranges):
        if merged and start - merged[-1][1] <= max_gap:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def _leaves(metadata: pq.FileMetaData, columns: Sequence[str] | None) -> list[int]:
    schema = metadata.schema
    paths = [schema.column(i).path for i in range(metadata.num_columns)]
    if columns is None:
        return list(range(len(paths)))
    heads = tuple(f"{name}." for name in columns)
    names = set(columns)
    return [i for i, path in enumerate(paths) if path in names or path.startswith(heads)]
