"""What the footers of the data files say, and two small columns: who lies in which file."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.artifacts.fingerprint import MISSING, known_hashes, remember, remembered
from opentau_prep.errors import PrepError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from opentau_prep.storage import Storage

__all__ = ["Footer", "Footers", "list_width", "read_footers", "value_type"]

_FOOTERS = "footers"
_COUNTERS = ("episode_index", "task_index")
# After so many rows of a dataset its counters are read with `--deep` only.
MAX_COUNTED_ROWS = 2_000_000


@dataclass(frozen=True)
class Footer:
    """One parquet file's footer.

    Attributes:
        rows: How many rows it holds.
        types: Column -> Arrow type.
        ranges: Smallest and largest episode_index and task_index, as far as they were read.
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
    """Read the footer of every file once; a file that cannot be read hides no other.

    Of the first `MAX_COUNTED_ROWS` rows the columns episode_index and task_index are read as well.
    """
    good: dict[str, Footer] = {}
    missing: list[str] = []
    broken: dict[str, PrepError] = {}
    rows = 0
    memory = _Memory(storage, list(dict.fromkeys(paths)))
    for rel in memory.rels:
        known = memory.footer(rel, counted=rows < MAX_COUNTED_ROWS)
        if known is not None:
            good[rel] = known
            rows += known.rows
            continue
        if not storage.exists(rel):
            missing.append(rel)
            continue
        try:
            file = storage.open_parquet(rel)
            schema = file.schema_arrow
            good[rel] = Footer(
                file.metadata.num_rows,
                dict(zip(schema.names, schema.types, strict=True)),
                _ranges(storage, rel, file) if rows < MAX_COUNTED_ROWS else {},
            )
            memory.learn(rel, schema, good[rel], counted=rows < MAX_COUNTED_ROWS)
            rows += file.metadata.num_rows
        except PrepError as fault:
            broken[rel] = fault
    memory.keep()
    return Footers(good, missing, broken)


class _Memory:
    """The footers of files whose content is known by its hash, kept in this user's cache.

    Args:
        storage: The dataset.
        rels: Its data files.
    """

    def __init__(self, storage: Storage, rels: Sequence[str]) -> None:
        self.rels = rels
        self._storage = storage
        try:
            self._hashes = known_hashes(storage, rels)
        except PrepError:
            self._hashes = {}
        # Hash of the content -> [rows, ranges or None, schema].
        self._known = remembered(_FOOTERS, storage) if self._hashes else {}
        self._learned: dict[str, list[Any]] = {}

    def footer(self, rel: str, *, counted: bool) -> Footer | None:
        """Return a file's footer if it is known, with the ranges if they are wanted."""
        try:
            rows, ranges, schema = self._known[self._hashes[rel]]
            if counted and ranges is None:
                return None
            spans = {name: (int(low), int(high)) for name, (low, high) in (ranges or {}).items()}
            return Footer(int(rows), _types(schema), spans)
        except (KeyError, TypeError, ValueError, OSError):  # unknown, or damaged
            return None

    def learn(self, rel: str, schema: pa.Schema, footer: Footer, *, counted: bool) -> None:
        """Remember what was read of a file."""
        digest = self._hashes.get(rel)
        if digest is not None and digest != MISSING:
            text = base64.b64encode(schema.remove_metadata().serialize()).decode("ascii")
            ranges = {name: list(span) for name, span in footer.ranges.items()}
            self._learned[digest] = [footer.rows, ranges if counted else None, text]

    def keep(self) -> None:
        """Write what was learned; what is known of other content is dropped."""
        if self._learned:
            known = {h: self._known[h] for h in self._hashes.values() if h in self._known}
            remember(_FOOTERS, self._storage, {**known, **self._learned})


@functools.lru_cache(maxsize=64)  # one per dataset at most, and the same in many
def _types(schema: str) -> Mapping[str, pa.DataType]:
    import pyarrow as pa

    found = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(schema, validate=True)))
    return dict(zip(found.names, found.types, strict=True))


def _ranges(storage: Storage, rel: str, file: pq.ParquetFile) -> dict[str, tuple[int, int]]:
    # Read, not taken from the footer's statistics: pyarrow ends the process when it decodes those
    # of a damaged footer.
    import pyarrow as pa

    from opentau_prep.metadata.arrow import plain_numpy

    schema = file.schema_arrow
    wanted = [f.name for f in schema if f.name in _COUNTERS and pa.types.is_integer(f.type)]
    if not wanted or len(set(schema.names)) < len(schema.names):
        return {}
    table = storage.read_table(rel, wanted, file=file)
    found = {}
    for name in wanted:
        column = table.column(name)
        # Not by pyarrow.compute, which is slow to import; nulls are rare, and worth it.
        whole = column.drop_null() if column.null_count else column
        chunks = [plain_numpy(chunk) for chunk in whole.chunks]
        values = np.concatenate(chunks) if chunks else np.zeros(0)
        if len(values):
            found[name] = (int(values.min()), int(values.max()))
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
