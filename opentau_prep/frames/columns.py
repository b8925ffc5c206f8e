"""From Arrow columns to NumPy matrices, without copying where the layout allows it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from opentau_prep.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_columns", "to_matrix"]


def check_columns(wanted: Sequence[str], present: Sequence[str], where: str) -> None:
    """Raise `DataError` when a file lacks a column, naming the nearest one that it has."""
    missing = [name for name in wanted if name not in present]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], present, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "Map it with data_features_name_mapping."
    raise DataError(
        f"has no column {', '.join(map(repr, missing))} (columns: {', '.join(present)})",
        where=where,
        hint=hint,
    )


def to_matrix(column: pa.ChunkedArray, where: str) -> npt.NDArray[Any]:
    """Return an Arrow column of N numbers or N equally long vectors as an (N, D) array.

    Scalars become D = 1; nested lists are flattened row-major; the dtype is kept. The result may
    share the memory of the column and must not be written to.

    Args:
        column: Numbers, or `fixed_size_list`, `list` or `large_list` of them, nested at will.
        where: The file and column, for errors.

    Raises:
        DataError: Rows are null or differ in width, or the values are not numbers.
    """
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    rows = len(array)
    while _is_list(array.type):
        _check_rows(array, where)
        array = array.flatten()
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"holds {column.type}, not numbers", where=where)
    if array.null_count:
        raise DataError(
            f"has {array.null_count:,} null values",
            where=where,
            hint="Fill them, or drop the rows.",
        )
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.reshape(rows, -1) if rows else values.reshape(0, _width(column.type))


def _check_rows(array: pa.Array, where: str) -> None:
    if array.null_count:
        first = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"has {array.null_count:,} null rows (the first is row {first})",
            where=where,
            hint="Fill them, or drop the rows.",
        )
    if pa.types.is_fixed_size_list(array.type):
        return
    lengths = np.diff(array.offsets.to_numpy(zero_copy_only=False))
    if len(lengths) and (lengths != lengths[0]).any():
        row = int(np.flatnonzero(lengths != lengths[0])[0])
        raise DataError(
            f"is ragged: row {row} has {lengths[row]} values, row 0 has {lengths[0]}",
            where=where,
            hint="Every frame must have the same width.",
        )


def _width(kind: pa.DataType) -> int:
    width = 1
    while _is_list(kind):
        width *= kind.list_size if pa.types.is_fixed_size_list(kind) else 0
        kind = kind.value_type
    return width


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
