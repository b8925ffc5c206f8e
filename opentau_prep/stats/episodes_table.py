"""The v3.0 episodes table: stats as flattened columns of a parquet file."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from opentau_prep.errors import MetadataError
from opentau_prep.stats.documents import pool_elements
from opentau_prep.stats.stack import Stacked

__all__ = ["TableDocument"]

Floats = NDArray[np.float64]


class TableDocument:
    """One `meta/episodes/**/*.parquet`; columns that are not stats stay as they are.

    Args:
        content: The file.
        where: Its place, for errors.
    """

    def __init__(self, content: bytes, where: str) -> None:
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            self._table = file.read(use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise MetadataError("is not a whole parquet file", where=where) from error
        if file.metadata.num_row_groups:
            self._compression = file.metadata.row_group(0).column(0).compression
        else:
            self._compression = "SNAPPY"
        self.episodes: Sequence[int] = self._table.column("episode_index").to_pylist()

    def published(self, feature: str, stat: str, size: int) -> tuple[Floats, NDArray[np.bool_]]:
        """See `StatsDocument`."""
        out = np.full((len(self.episodes), size), np.nan)
        found = self._elements(feature, stat, size)
        if found is None:
            return out, np.zeros(len(out), dtype=bool)
        values, have = found
        if values is not None:
            means = self._elements(feature, "mean", size) if stat == "std" else None
            out[have] = pool_elements(stat, values, None if means is None else means[0])
        return out, have

    def is_per_element(self, feature: str, size: int) -> bool:
        """See `StatsDocument`."""
        found = self._elements(feature, "mean", size)
        return found is not None and found[0] is not None and found[0].shape[1] > 1

    def _elements(
        self, feature: str, stat: str, size: int
    ) -> tuple[Floats | None, NDArray[np.bool_]] | None:
        """Return (R, k, size) numbers of the rows that have a stat, if they are, and which do."""
        name = f"stats/{feature}/{stat}"
        if name not in self._table.column_names:
            return None
        array = self._table.column(name).combine_chunks()
        have = array.is_valid().to_numpy(zero_copy_only=False)
        values, rows = array.drop_null(), int(have.sum())
        while pa.types.is_nested(values.type):
            values = pc.list_flatten(values)
        if not rows or values.null_count or not len(values) or len(values) % (rows * size):
            return None, have
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        return numbers.reshape(rows, -1, size), have

    def merged(self, stacked: Stacked, episodes: Sequence[int], *, keep: bool) -> bytes:
        """See `StatsDocument`. A column that would hold stats of some rows only is left out."""
        rows = {episode: k for k, episode in enumerate(episodes)}
        source = np.array([rows.get(episode, -1) for episode in self.episodes], dtype=np.int64)
        table = self._table
        for feature, stats in stacked.items():
            for stat, values in stats.items():
                table = self._with(table, f"stats/{feature}/{stat}", values, source, keep=keep)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression=self._compression)
        content: bytes = sink.getvalue().to_pybytes()
        return content

    def _with(
        self, table: pa.Table, name: str, values: NDArray[Any], source: Any, *, keep: bool
    ) -> pa.Table:
        feature, stat = name.removeprefix("stats/").rsplit("/", 1)
        shape = values.shape[1:]
        old, have = self.published(feature, stat, int(np.prod(shape)))
        use = (source >= 0) & ~(have & keep)
        if not use.any() or not (use | have).all():
            return table
        block = old if not use.all() else np.empty_like(old)
        block[use] = values.reshape(len(values), -1)[source[use]]
        integers = values.dtype.kind == "i" and bool((block == np.rint(block)).all())
        array = _nested(block.astype(np.int64) if integers else block, shape)
        position = table.schema.get_field_index(name)
        if position < 0:
            return table.append_column(name, array)
        kind = table.schema.field(position).type
        with contextlib.suppress(pa.ArrowException):  # of another depth: the new type is right
            array = array.cast(kind)
        return table.set_column(position, name, array)


def _nested(block: NDArray[Any], shape: tuple[int, ...]) -> pa.Array:
    """Return (R, prod(shape)) numbers as a column of nested lists."""
    array: pa.Array = pa.array(block.ravel())
    for size in reversed(shape):
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array
