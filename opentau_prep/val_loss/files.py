"""Per-sample loss files, one per rank: written by training, read block by block.

A file holds one row per sample, as JSONL (`.jsonl`, `.ndjson`: one object per line) or parquet:

| column | type | meaning |
| --- | --- | --- |
| `dataset_index` | integer | norm-head row; null or -1 for a dataset without a head |
| `dataset` | string | mixture-level name |
| `control_mode` | string or null | null, blank or `unknown` where training dropped it |
| `<LOSS>_sum`, `<LOSS>_count` | number | the sample's loss over its elements, and their number |

Both parts of a loss may be null (in JSONL also absent): the sample does not bring that loss. In
JSONL a non-finite number is `NaN`, `Infinity` or `-Infinity`, bare or as a string. Other columns
are ignored. A file without rows is a rank without samples.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.jsonio import dump_foreign_lines
from opentau_prep.errors import ConfigError, DataError
from opentau_prep.val_loss.exact import LossValues
from opentau_prep.val_loss.losses import GroupedLosses
from opentau_prep.val_loss.samples import (
    NO_HEAD,
    Cell,
    check_loss_name,
    check_parallel,
    kept_samples,
    loss_values,
    make_cell,
)

__all__ = ["Check", "read_losses", "write_losses"]

Check = Callable[[Cell], None]

_BLOCK_ROWS: Final = 65_536
_KEYS: Final = ("dataset_index", "dataset", "control_mode")
_FORMAT_HINT: Final = (
    "A row needs dataset_index, dataset, control_mode and <LOSS>_sum, <LOSS>_count pairs."
)
_NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read_losses(paths: Iterable[str | Path], *, check: Check | None = None) -> GroupedLosses:
    """Return the losses of all files together; which file holds which sample makes no difference.

    Memory is bounded by blocks of 65,536 rows and by the number of groups.

    Args:
        paths: JSONL or parquet files.
        check: Called with each place that samples come from, once per such place and block;
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
            "no samples", where=", ".join(map(str, seen)) or "loss files", hint=_FORMAT_HINT
        )
    return losses


def _blocks(path: Path) -> Iterator[tuple[pa.Table, int]]:
    if path.suffix in (".jsonl", ".ndjson"):
        return _jsonl_blocks(path)
    if path.suffix == ".parquet":
        return _parquet_blocks(path)
    raise DataError(
        f"{path.suffix or 'no'} suffix where .jsonl or .parquet is needed", where=str(path)
    )


def _parquet_blocks(path: Path) -> Iterator[tuple[pa.Table, int]]:
    first = 0
    try:
        with pq.ParquetFile(path) as file:
            wanted = [*_KEYS, *_loss_columns(file.schema_arrow.names, path)]
            for batch in file.iter_batches(batch_size=_BLOCK_ROWS, columns=wanted):
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
    """Return (cell of each row, (N,) int64; the distinct cells), computed on codes."""
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
    """Return (values, where null), 0 in place of null."""
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
        raise DataError(f"column {name}: {error}", where=str(path), hint=_FORMAT_HINT) from error


def _place(table: pa.Table, path: Path, row: int, first_row: int) -> str:
    if "line" in table.column_names:
        return f"{path}, line {table['line'][row].as_py()}"
    return f"{path}, row {first_row + row}"


def _loss_columns(names: list[str], path: Path) -> list[str]:
    """Return the `<LOSS>_sum` and `<LOSS>_count` columns, each next to its partner."""
    losses = [n.removesuffix("_sum") for n in names if n.endswith("_sum")]
    counts = [n.removesuffix("_count") for n in names if n.endswith("_count")]
    lonely = [f"{n}_sum" for n in losses if n not in counts]
    lonely += [f"{n}_count" for n in counts if n not in losses]
    missing = [key for key in _KEYS if key not in names]
    if missing or lonely or not losses:
        found = f"columns {', '.join(names)}"
        wrong = (
            f"no {', '.join(missing)}" if missing else f"{', '.join(lonely) or 'no loss'} unpaired"
        )
        raise DataError(f"{wrong} in {found}", where=str(path), hint=_FORMAT_HINT)
    return [f"{check_loss_name(n, str(path))}{part}" for n in losses for part in ("_sum", "_count")]


def _jsonl_blocks(path: Path) -> Iterator[tuple[pa.Table, int]]:
    """Yield (table with the rows and their `line` numbers, 0), up to 65,536 rows at a time.

    Raises:
        DataError: The file is missing, or a line is malformed (naming it).
    """
    try:
        with path.open("rb") as file:
            numbered = ((n, line) for n, line in enumerate(file, start=1) if line.strip())
            while block := list(islice(numbered, _BLOCK_ROWS)):
                yield _jsonl_table([_parse(line, path, n) for n, line in block], path, block), 0
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        # orjson is strict; Python's own writer puts bare NaN and Infinity.
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON ({error})", where=f"{path}, line {number}") from error
    if not isinstance(row, dict):
        raise DataError(
            f"{type(row).__name__} where an object is needed",
            where=f"{path}, line {number}",
            hint=_FORMAT_HINT,
        )
    return row


def _jsonl_table(
    rows: list[dict[str, Any]], path: Path, block: list[tuple[int, bytes]]
) -> pa.Table:
    """Return the rows as a table with the line number of each, every value checked for its type."""
    lines = [number for number, _ in block]
    for number, row in zip(lines, rows, strict=True):
        if missing := [key for key in _KEYS if key not in row]:
            raise DataError(
                f"no {', '.join(missing)}", where=f"{path}, line {number}", hint=_FORMAT_HINT
            )
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {
        name: _jsonl_column([row.get(name) for row in rows], name, path, lines)
        for name in (*_KEYS, *_loss_columns(list(names), path))
    }
    return pa.table({**columns, "line": pa.array(lines, pa.int64())})


def _jsonl_column(values: list[Any], name: str, path: Path, lines: list[int]) -> pa.Array:
    types: tuple[type, ...]
    if name in ("dataset", "control_mode"):
        wanted, types, arrow = "a string", (str, type(None)), pa.string()
    elif name == "dataset_index":
        wanted, types, arrow = "an integer", (int, type(None)), pa.int64()
    else:
        wanted, types, arrow = "a number", (int, float, type(None)), pa.float64()
        values = [_NON_FINITE.get(v, v) if isinstance(v, str) else v for v in values]
    for value, line in zip(values, lines, strict=True):
        if not isinstance(value, types) or isinstance(value, bool):
            raise DataError(
                f"{name} is {value!r}, not {wanted}",
                where=f"{path}, line {line}",
            )
    try:
        return pa.array(values, arrow, from_pandas=False)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise DataError(
            f"{name} cannot be read ({error})", where=f"{path}, lines {lines[0]} to {lines[-1]}"
        ) from error


def write_losses(
    path: str | Path,
    *,
    dataset_index: Any,
    dataset: Sequence[str] | NDArray[Any],
    control_mode: Sequence[str | None] | NDArray[Any] | None = None,
    losses: Mapping[str, Any],
    weights: Any = None,
) -> None:
    """Write one rank's samples, whole or not at all, as `.jsonl` or `.parquet` by the suffix.

    Takes what `GroupedLosses.update` takes, datasets by name; reading the file back gives the same
    result to the last bit. Each rank writes a file of its own, such as `losses/rank-3.parquet`,
    once after the pass: a rank without samples writes a file without rows.

    Args:
        path: The file; one that is there is replaced.
        dataset_index: See `GroupedLosses.update`, as for the next four.
        dataset: N mixture-level names.
        control_mode: N control modes or nulls.
        losses: Loss name -> (sums, counts).
        weights: 0 for filler rows, which are not written.

    Raises:
        ConfigError: The suffix is another one, or there is no loss.
        DataError: A value is malformed, or values are not parallel.
        ArtifactError: The file cannot be written.
    """
    target = Path(path)
    if target.suffix not in (".jsonl", ".ndjson", ".parquet") or not losses:
        raise ConfigError(
            "a .jsonl or .parquet file and at least one loss are needed", where=str(target)
        )
    cells = [make_cell(*key) for key in check_parallel(dataset_index, dataset, control_mode)]
    if any(isinstance(cell.dataset, int) for cell in cells):
        raise DataError(
            "datasets are numbers where a file needs names",
            where=str(target),
            hint="Pass `dataset=[names[i] for i in ids]`.",
        )
    kept = kept_samples(weights, len(cells))
    columns: dict[str, pa.Array] = {
        "dataset_index": pa.array([cell.dataset_index for cell in cells], pa.int64()),
        "dataset": pa.array([cell.dataset for cell in cells], pa.string()),
        "control_mode": pa.array([cell.control_mode for cell in cells], pa.string()),
    }
    for name, values in loss_values(losses, len(cells)).items():
        columns[f"{name}_sum"] = pa.array(values.sums, pa.float64())
        columns[f"{name}_count"] = pa.array(values.counts, pa.float64())
    table = pa.table(columns)
    if kept is not None:
        table = table.filter(pa.array(kept))
    write_atomic(target, _encoded(table, target))


def _encoded(table: pa.Table, target: Path) -> bytes:
    if target.suffix != ".parquet":
        # Bare NaN, and texts as they are: a dataset may well be called "NaN".
        return dump_foreign_lines(table.to_pylist(), where=str(target), allow_non_finite=True)
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
