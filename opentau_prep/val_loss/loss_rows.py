"""The rows of per-sample loss files: what columns they have, and JSONL as blocks of Arrow columns.

`opentau_prep.val_loss.loss_files` describes the format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa

from opentau_prep.errors import DataError
from opentau_prep.val_loss.samples import check_loss_name

__all__ = ["BLOCK_ROWS", "FORMAT_HINT", "KEYS", "jsonl_blocks", "loss_columns"]

BLOCK_ROWS: Final = 65_536
KEYS: Final = ("dataset_index", "dataset", "control_mode")
FORMAT_HINT: Final = (
    "A row needs dataset_index, dataset, control_mode and <LOSS>_sum, <LOSS>_count pairs."
)
_NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def loss_columns(names: list[str], path: Path) -> list[str]:
    """Return the `<LOSS>_sum` and `<LOSS>_count` columns, each beside its partner."""
    losses = [n.removesuffix("_sum") for n in names if n.endswith("_sum")]
    counts = [n.removesuffix("_count") for n in names if n.endswith("_count")]
    lonely = [f"{n}_sum" for n in losses if n not in counts]
    lonely += [f"{n}_count" for n in counts if n not in losses]
    missing = [key for key in KEYS if key not in names]
    if missing or lonely or not losses:
        found = f"columns {', '.join(names)}"
        wrong = (
            f"no {', '.join(missing)}" if missing else f"{', '.join(lonely) or 'no loss'} unpaired"
        )
        raise DataError(f"{wrong} in {found}", where=str(path), hint=FORMAT_HINT)
    return [f"{check_loss_name(n, str(path))}{part}" for n in losses for part in ("_sum", "_count")]


def jsonl_blocks(path: Path) -> Iterator[tuple[pa.Table, int]]:
    """Yield (table with the rows and their `line` numbers, 0), up to 65,536 rows at a time.

    Raises:
        DataError: The file is missing, or a line is malformed (naming it).
    """
    try:
        with path.open("rb") as file:
            numbered = ((n, line) for n, line in enumerate(file, start=1) if line.strip())
            while block := list(islice(numbered, BLOCK_ROWS)):
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
            hint=FORMAT_HINT,
        )
    return row


def _jsonl_table(
    rows: list[dict[str, Any]], path: Path, block: list[tuple[int, bytes]]
) -> pa.Table:
    """Return the rows as a table with the line number of each, every value checked for its type."""
    lines = [number for number, _ in block]
    for number, row in zip(lines, rows, strict=True):
        if missing := [key for key in KEYS if key not in row]:
            raise DataError(
                f"no {', '.join(missing)}", where=f"{path}, line {number}", hint=FORMAT_HINT
            )
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {
        name: _jsonl_column([row.get(name) for row in rows], name, path, lines)
        for name in (*KEYS, *loss_columns(list(names), path))
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
