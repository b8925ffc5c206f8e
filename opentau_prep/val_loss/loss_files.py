"""Reads per-sample loss files, one a rank, block by block.

A file holds one row a sample, as JSONL (`.jsonl`, `.ndjson`: one object a line) or parquet:

| column | type | meaning |
| --- | --- | --- |
| `dataset_index` | integer | norm-head row; null or -1 for a dataset without a head |
| `dataset` | string | mixture-level name |
| `control_mode` | string or null | null, blank or `unknown` where training dropped it |
| `<LOSS>_sum`, `<LOSS>_count` | number | the sample's loss summed over its elements, and their
number |

Both parts of a loss may be null (in JSONL also absent): the sample does not bring that loss. In
JSONL a non-finite number is `NaN`, `Infinity` or `-Infinity`, bare or as a string. Other columns
are ignored. A file without rows is a rank without samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.val_loss.accumulate import GroupedLosses
from opentau_prep.val_loss.loss_rows import (
    BLOCK_ROWS,
    FORMAT_HINT,
    KEYS,
    jsonl_blocks,
    loss_columns,
)
from opentau_prep.val_loss.samples import NO_HEAD, Cell, LossValues, make_cell

__all__ = ["read_losses"]


Check = Callable[[Cell], None]


def read_losses(paths: Iterable[str | Path], *, check: Check | None = None) -> GroupedLosses:
    """Return the losses of all files together; which file holds which sample makes no difference.

    Memory is bounded by blocks of 65,536 rows and by the number of groups.

    Args:
        paths: JSONL or parquet files.
        check: Called with where samples say they come from, once for each such place a block;
            raises `DataError` where that cannot be.

    Raises:
        DataError: A file is missing or malformed (naming the file, and the line or column and row),
            a row does not pass the check, a file is given twice, or no file has a row.
    """
    losses = GroupedLosses()
    seen: set[Path] = set()
    rows = 0
    for path in map(Path, paths):
        if (real := path.resolve()) in seen:
            raise DataError("given twice", where=str(path), hint="Its samples would count double.")
        seen.add(real)
        for table, first_row in _blocks(path):
            rows += table.num_rows
            _add_block(losses, table, path, first_row, check)
    if not rows:
        raise DataError(
            "no samples", where=", ".join(map(str, seen)) or "loss files", hint=FORMAT_HINT
        )
    return losses


def _blocks(path: Path) -> Iterator[tuple[pa.Table, int]]:
    if path.suffix in (".jsonl", ".ndjson"):
        return jsonl_blocks(path)
    if path.suffix == ".parquet":
        return _parquet_blocks(path)
    raise DataError(
        f"{path.suffix or 'no'} suffix where .jsonl or .parquet is needed", where=str(path)
    )


def _parquet_blocks(path: Path) -> Iterator[tuple[pa.Table, int]]:
    first = 0
    try:
        with pq.ParquetFile(path) as file:
            wanted = [*KEYS, *loss_columns(file.schema_arrow.names, path)]
            for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=wanted):
                yield pa.Table.from_batches([batch]), first
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot be read as parquet ({error})", where=str(path)) from error


def _add_block(
    losses: GroupedLosses, table: pa.Table, path: Path, first_row: int, check: Check | None
) -> None:
    of_sample, cells = _cells(table, path, first_row, check)
    for name in (n.removesuffix("_sum") for n in table.column_names if n.endswith("_sum")):
        sums, no_sum = _numbers(table, f"{name}_sum", path)
        counts, no_count = _numbers(table, f"{name}_count", path)
        odd = (no_sum != no_count) | ((counts < 0) & np.isfinite(counts))
        if odd.any():
            row = int(np.argmax(odd))
            wrong = "is negative" if no_sum[row] == no_count[row] else "and its sum: one is null"
            raise DataError(f"{name}_count {wrong}", where=_place(table, path, row, first_row))
        kept = ~no_sum
        values = LossValues(sums[kept], counts[kept])
        losses.add_grouped(of_sample[kept], cells, {name: values})


def _cells(
    table: pa.Table, path: Path, first_row: int, check: Check | None
) -> tuple[NDArray[np.int64], list[Cell]]:
    """Return (cell of each row, (N,) int64; the distinct cells), worked out on codes."""
    rows, no_head = _column(table, "dataset_index", pa.int64(), path)
    rows = np.where(no_head, NO_HEAD, rows)
    datasets, dataset_code = _coded(table, "dataset", path)
    modes, mode_code = _coded(table, "control_mode", path)
    _, head_code = np.unique(rows, return_inverse=True)
    together = (head_code.reshape(-1) * len(datasets) + dataset_code) * len(modes) + mode_code
    _, firsts, of_sample = np.unique(together, return_index=True, return_inverse=True)
    cells = []
    for row in firsts.tolist():
        try:
            cell = make_cell(int(rows[row]), datasets[dataset_code[row]], modes[mode_code[row]])
            if check is not None:
                check(cell)
            cells.append(cell)
        except DataError as error:
            place = _place(table, path, row, first_row)
            raise DataError(error.message, where=place, hint=error.hint) from error
    return of_sample.reshape(-1).astype(np.int64), cells


def _coded(table: pa.Table, name: str, path: Path) -> tuple[list[Any], NDArray[np.int64]]:
    column = _cast(table, name, pa.string(), path).dictionary_encode(null_encoding="encode")
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    labels = array.dictionary.to_pylist()
    return labels, array.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _numbers(table: pa.Table, name: str, path: Path) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    return _column(table, name, pa.float64(), path)


def _column(
    table: pa.Table, name: str, dtype: pa.DataType, path: Path
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return (values, where null), nulls standing as 0."""
    column = _cast(table, name, dtype, path)
    null = column.is_null().to_numpy()
    values = column.fill_null(0).to_numpy()
    return values, null


def _cast(table: pa.Table, name: str, dtype: pa.DataType, path: Path) -> pa.ChunkedArray:
    column = table[name]
    textual = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    textual = textual or pa.types.is_dictionary(column.type)
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    fits = textual if dtype == pa.string() else numeric
    if dtype == pa.int64():
        fits = pa.types.is_integer(column.type)
    try:
        if not (fits or pa.types.is_null(column.type)):
            raise pa.ArrowInvalid(f"{column.type} where {dtype} is needed")
        # safe=False lets an integer beyond 2^53 become the nearest float64, as it would in a list.
        return column.cast(dtype, safe=dtype != pa.float64())
    except pa.ArrowException as error:
        raise DataError(f"column {name}: {error}", where=str(path), hint=FORMAT_HINT) from error


def _place(table: pa.Table, path: Path, row: int, first_row: int) -> str:
    if "line" in table.column_names:
        return f"{path}, line {table['line'][row].as_py()}"
    return f"{path}, row {first_row + row}"
