"""Columns of the parquet tables under `meta/` as arrays and strings, whoever wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.info import MAX_INDEX
from opentau_prep.metadata.records import IntArray

__all__ = ["integers", "plain_numpy", "string_lists", "strings", "values_block"]

_HINT = "Restore the file from its source."
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def integers(table: pa.Table, column: str, where: str) -> IntArray:
    """Return a column of whole numbers of 0 or more as (N,) int64.

    Floats that hold whole numbers, which pandas makes of them, count.

    Raises:
        MetadataError: The column is missing, or holds something else.
    """
    values = _column(table, column, where)
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)) or values.null_count:
        nulls = f" with {values.null_count} nulls" if values.null_count else ""
        raise _fault(column, f"found {kind}{nulls}", where)
    numbers = plain_numpy(_one_chunk(values))
    whole = numbers.dtype.kind in "iu" or bool((np.floor(numbers) == numbers).all())
    if not whole or (len(numbers) and not 0 <= numbers.min() <= numbers.max() <= MAX_INDEX):
        raise _fault(column, "found negative, fractional or huge numbers", where)
    return np.asarray(numbers, dtype=np.int64)


def strings(table: pa.Table, preferred: Sequence[str], where: str) -> list[str]:
    """Return the first column of strings, `preferred` ones before others; null becomes empty.

    Raises:
        MetadataError: There is no such column, or it is not UTF-8.
    """
    found = [name for name in table.column_names if _is_string(table.schema.field(name).type)]
    name = next((name for name in preferred if name in found), found[0] if found else None)
    if name is None:
        columns = ", ".join(map(repr, table.column_names))
        raise MetadataError(
            f"has no column of task strings (columns: {columns})", where=where, hint=_HINT
        )
    return [text or "" for text in _to_python(_column(table, name, where), name, where)]


def string_lists(table: pa.Table, column: str, where: str) -> list[tuple[str, ...]]:
    """Return a column of strings or lists of them; a column of anything else as empty tuples.

    Raises:
        MetadataError: The strings are not UTF-8.
    """
    if column not in table.column_names:
        return [()] * len(table)
    values = _column(table, column, where)
    if _is_string(values.type):
        return [(t,) if t is not None else () for t in _to_python(values, column, where)]
    if not _is_list(values.type) or not _is_string(values.type.value_type):
        return [()] * len(table)
    rows = _to_python(values, column, where)
    return [tuple(text for text in row or () if text is not None) for row in rows]


def values_block(table: pa.Table, column: str, where: str) -> tuple[Any, IntArray | None]:
    """Return a column of numbers, or of nested lists of one shape, as (n, *shape), n >= 1 axes.

    Returns:
        The values of the rows that are not null, and those rows; None for all of them.

    Raises:
        MetadataError: Rows differ in shape, or do not hold numbers.
    """
    array = _one_chunk(_column(table, column, where))
    if pa.types.is_null(array.type):
        return np.zeros((0, 1)), np.zeros(0, dtype=np.int64)
    rows = _valid_rows(array) if array.null_count else None
    shape = [len(array) if rows is None else len(rows)]
    if rows is not None and not _is_list(array.type):
        array = array.drop_null()
    while _is_list(array.type):
        sizes = _list_sizes(array)
        if rows is not None and len(shape) == 1:
            sizes = sizes[rows]  # `flatten` leaves out what null rows hold
        elif array.null_count:
            raise _fault(column, "rows differ in shape", where, expected="numbers")
        size = sizes[0] if len(sizes) else 0
        if (sizes != size).any():
            raise _fault(column, "rows differ in shape", where, expected="numbers")
        shape.append(int(size))
        array = _flattened(array)
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros((0, 1)), np.zeros(0, dtype=np.int64)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise _fault(column, f"found {kind}", where, expected="numbers")
    values = plain_numpy(array)
    block = values.reshape(shape if len(shape) > 1 else (shape[0], 1))
    block.setflags(write=False)
    return block, rows


def plain_numpy(array: pa.Array) -> Any:
    """Return an array's values; numbers without asking for pandas, which is slow to import."""
    numeric = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    if not numeric or array.null_count or not len(array):
        return array.to_numpy(zero_copy_only=False)
    kind = str(array.type)
    whole = np.frombuffer(array.buffers()[1], dtype=_FLOATS.get(kind, kind))
    return whole[array.offset : array.offset + len(array)]


def _valid_rows(array: pa.Array) -> IntArray:
    """Return the rows that are not null; not by pyarrow.compute, which is slow to import."""
    bits = np.frombuffer(array.buffers()[0], dtype=np.uint8)
    valid = np.unpackbits(bits, bitorder="little")[array.offset : array.offset + len(array)]
    return np.flatnonzero(valid)


def _flattened(array: pa.Array) -> pa.Array:
    """Return the values of a list's rows that are not null; `flatten` imports pyarrow.compute."""
    if array.null_count:
        return array.flatten()
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        return array.values.slice(array.offset * size, len(array) * size)
    if not len(array):
        return array.values.slice(0, 0)
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return array.values.slice(first, last - first)


def _list_sizes(array: pa.Array) -> Any:
    """Return how many values each row holds; not by pyarrow.compute, which is slow to import."""
    if pa.types.is_fixed_size_list(array.type):
        return np.full(len(array), array.type.list_size)
    return np.diff(array.offsets.to_numpy())


def _column(table: pa.Table, column: str, where: str) -> pa.ChunkedArray:
    number = table.column_names.count(column)
    if number != 1:
        found = "no column" if number == 0 else f"{number} columns"
        raise MetadataError(f"has {found} `{column}`", where=where, hint=_HINT)
    values = table.column(column)
    if pa.types.is_dictionary(values.type):
        try:
            return values.cast(values.type.value_type)
        except pa.ArrowException as error:
            raise _fault(column, "found damage", where, expected="values") from error
    return values


def _one_chunk(values: pa.ChunkedArray) -> pa.Array:
    if values.num_chunks == 1:
        return values.chunk(0)
    return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)


def _to_python(values: pa.ChunkedArray, column: str, where: str) -> list[Any]:
    try:
        rows: list[Any] = values.to_pylist()
    except UnicodeDecodeError as error:
        raise _fault(column, "found other bytes", where, expected="UTF-8 text") from error
    return rows


def _fault(
    column: str, found: str, where: str, *, expected: str = "whole numbers of 0 or more"
) -> MetadataError:
    return MetadataError(
        f"column `{column}` must hold {expected}, {found}", where=where, hint=_HINT
    )


def _is_string(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
