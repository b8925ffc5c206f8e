"""What the footers of the data files say, without reading any frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentau_prep.errors import PrepError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from opentau_prep.storage import Storage

__all__ = ["Footer", "Footers", "list_width", "read_footers", "value_type"]

# Columns whose range the rules look at; others' statistics are not decoded.
_COUNTERS = ("episode_index", "frame_index", "index", "task_index")


@dataclass(frozen=True)
class Footer:
    """One parquet file's footer.

    Attributes:
        rows: How many rows it holds.
        types: Column -> Arrow type.
        ranges: Smallest and largest value of the whole-number columns, where the file says them.
    """

    rows: int
    types: Mapping[str, pa.DataType]
    ranges: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Footers:
    """The footers of a dataset's data files.

    Attributes:
        good: File -> footer.
        missing: Files that are not there.
        broken: File -> why it cannot be read.
    """

    good: Mapping[str, Footer]
    missing: Sequence[str]
    broken: Mapping[str, PrepError]


def read_footers(storage: Storage, paths: Sequence[str]) -> Footers:
    """Read the footer of every file once; a file that cannot be read hides no other."""
    good: dict[str, Footer] = {}
    missing: list[str] = []
    broken: dict[str, PrepError] = {}
    for rel in dict.fromkeys(paths):
        if not storage.exists(rel):
            missing.append(rel)
            continue
        try:
            file = storage.open_parquet(rel)
            schema = file.schema_arrow
            good[rel] = Footer(
                file.metadata.num_rows,
                dict(zip(schema.names, schema.types, strict=True)),
                _ranges(file),
            )
        except PrepError as fault:
            broken[rel] = fault
    return Footers(good, missing, broken)


def _ranges(file: pq.ParquetFile) -> dict[str, tuple[int, int]]:
    meta = file.metadata
    wanted = {
        meta.schema.column(i).path: i
        for i in range(meta.num_columns)
        if meta.schema.column(i).path in _COUNTERS
    }
    found: dict[str, tuple[int, int]] = {}
    for name, column in wanted.items():
        chunks = [meta.row_group(g).column(column).statistics for g in range(meta.num_row_groups)]
        if not chunks or any(c is None or not c.has_min_max for c in chunks):
            continue
        low, high = min(c.min for c in chunks), max(c.max for c in chunks)
        if isinstance(low, int) and isinstance(high, int):
            found[name] = (low, high)
    return found


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a column, within lists at any depth."""
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return kind


def list_width(kind: pa.DataType) -> int | None:
    """Return how many values a row holds, as far as the type says it: 1 for a plain column."""
    import pyarrow as pa

    width = 1
    while hasattr(kind, "value_type"):
        if not pa.types.is_fixed_size_list(kind):
            return None
        width *= kind.list_size
        kind = kind.value_type
    return width
