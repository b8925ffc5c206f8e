"""Row ranges of one parquet file as matrices, with each row group decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from opentau_prep.errors import DataError
from opentau_prep.frames.columns import ColumnError, check_columns, to_matrix

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from opentau_prep.metadata.records import IntArray
    from opentau_prep.storage import Storage

__all__ = ["RowWindow", "to_matrices"]


def to_matrices(
    table: pa.Table,
    names: Sequence[str],
    file: pq.ParquetFile,
    storage: Storage,
    rel: str,
) -> dict[str, npt.NDArray[Any]]:
    """Return column -> (N, D) of a table that was read from a file; see `to_matrix`.

    Raises:
        DataError: The file lacks a column.
        ColumnError: A column is not a matrix of numbers.
    """
    where = f"{storage.url}/{rel}"
    if sorted(table.column_names) != sorted(names):  # what is missing was passed over in silence
        check_columns(names, storage.column_names(rel, file), where)
    return {name: _matrix(table.column(name), name, where) for name in names}


def _matrix(column: pa.ChunkedArray, name: str, where: str) -> npt.NDArray[Any]:
    try:
        return to_matrix(column, f"{where}, column {name}")
    except DataError as error:
        raise ColumnError.of(error, name) from error


class RowWindow:
    """Some columns of an open file, read forwards.

    Attributes:
        num_rows: Rows in the file.
    """

    def __init__(
        self, storage: Storage, rel: str, file: pq.ParquetFile, columns: Sequence[str]
    ) -> None:
        self._storage, self._rel, self._file = storage, rel, file
        self._columns = list(dict.fromkeys(columns))
        self._where = f"{storage.url}/{rel}"
        metadata = file.metadata
        self.num_rows = int(metadata.num_rows)
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._edges: IntArray = np.cumsum([0, *sizes])
        if sizes and (min(sizes) < 0 or int(self._edges[-1]) != self.num_rows):
            raise self._damaged()
        # The last row group read: an episode may end in it and the next one begin there.
        self._kept: tuple[int, pa.Table] | None = None

    def rows_in_groups(self, lo: int, hi: int, *, after: int) -> int:
        """Return how many rows the row groups of rows lo..hi have, those up to `after` left out."""
        first, last = self._span(lo, hi)
        first = max(first, after + 1)
        return int(self._edges[last] - self._edges[first]) if last > first else 0

    def last_group(self, hi: int, before: int) -> int:
        """Return the row group that ends a read up to row `hi`, or `before` if that is later."""
        return max(before, int(np.searchsorted(self._edges, hi, side="left")) - 1)

    def read(self, rows: IntArray) -> dict[str, npt.NDArray[Any]]:
        """Return column -> (N, D) of some row ranges, one after the other.

        Args:
            rows: (E, 2) int64, first row and row after the last; in order, not before earlier ones.

        Raises:
            DataError: The file is damaged, or a column is not a matrix of numbers.
        """
        spans = [self._span(lo, hi) for lo, hi in rows.tolist() if hi > lo]
        groups = sorted({group for first, last in spans for group in range(first, last)})
        table = self._table(groups)
        sizes = np.diff(self._edges)[groups]
        if len(table) != int(sizes.sum()):
            raise self._damaged()
        starts = np.cumsum(sizes) - sizes  # of each group in the table
        filled = rows[rows[:, 1] > rows[:, 0]]
        first = np.searchsorted(groups, [first for first, _ in spans])
        local = filled - self._edges[groups][first, None] + starts[first, None] if spans else filled
        return self._matrices(table, local)

    def _matrices(self, table: pa.Table, local: IntArray) -> dict[str, npt.NDArray[Any]]:
        together = not len(local) or (local[1:, 0] == local[:-1, 1]).all()
        if together:
            lo, hi = (int(local[0, 0]), int(local[-1, 1])) if len(local) else (0, 0)
            table = table.slice(lo, hi - lo) if hi - lo != len(table) else table
        found = to_matrices(table, self._columns, self._file, self._storage, self._rel)
        if together:
            return found
        keep = np.concatenate([np.arange(lo, hi) for lo, hi in local])
        return {name: matrix[keep] for name, matrix in found.items()}

    def _table(self, groups: list[int]) -> pa.Table:
        if len(groups) == len(self._edges) - 1:
            return self._storage.read_table(self._rel, self._columns, file=self._file)
        parts = []
        if self._kept is not None and groups and groups[0] == self._kept[0]:
            parts.append(self._kept[1])
        fresh = groups[len(parts) :]
        if fresh or not parts:
            table = self._storage.read_table(
                self._rel, self._columns, row_groups=fresh, file=self._file
            )
            parts.append(table)
        if fresh:
            size = int(self._edges[fresh[-1] + 1] - self._edges[fresh[-1]])
            self._kept = fresh[-1], table.slice(max(len(table) - size, 0))
        return pa.concat_tables(parts) if len(parts) > 1 else parts[0]

    def _span(self, lo: int, hi: int) -> tuple[int, int]:
        """Return the first row group of rows lo..hi, and the one after the last."""
        first = int(np.searchsorted(self._edges, lo, side="right")) - 1
        return first, int(np.searchsorted(self._edges, hi, side="left"))

    def _damaged(self) -> DataError:
        return DataError(
            "is damaged: its row counts contradict each other",
            where=self._where,
            hint="Download or write it again.",
        )
