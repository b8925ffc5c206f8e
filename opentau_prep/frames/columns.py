"""From Arrow columns to NumPy matrices, without copying where the layout allows it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from opentau_prep.errors import DataError
from opentau_prep.text import several

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ColumnError", "check_columns", "numpy_dtype", "to_matrix"]

_COLUMNS_SHOWN = 20


class ColumnError(DataError):
    """One column of a file that is no matrix of numbers; the others can be read.

    Attributes:
        column: Its name.
    """

    column = ""

    @classmethod
    def of(cls, error: DataError, column: str) -> ColumnError:
        """Return a fault of a column as this class."""
        made = cls(error.message, where=error.where, hint=error.hint)
        made.column = column
        return made


def check_columns(wanted: Sequence[str], present: Sequence[str], where: str) -> None:
    """Raise `DataError` unless a file has each column once, naming the nearest one that it has."""
    for name in wanted:
        number = present.count(name)
        if number == 1:
            continue
        if number:
            raise DataError(
                f"has {number} columns {name!r}", where=where, hint="Write the file again."
            )
        near = difflib.get_close_matches(name, present, n=1)
        more = f" and {len(present) - _COLUMNS_SHOWN} more" if len(present) > _COLUMNS_SHOWN else ""
        shown = ", ".join(map(repr, present[:_COLUMNS_SHOWN]))
        guess = f"Did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"has no column {name!r} (columns: {shown}{more})",
            where=where,
            hint=f"{guess}Map it with data_features_name_mapping.",
        )


def to_matrix(column: pa.ChunkedArray, where: str) -> npt.NDArray[Any]:
    """Return an Arrow column of N numbers or N equally long vectors as an (N, D) array.

    Scalars become D = 1; nested lists are flattened row-major; the dtype is kept. One chunk shares
    the column's memory where its layout allows, several are copied once. The result must not be
    written to.

    Args:
        column: Numbers, or `fixed_size_list`, `list` or `large_list` of them, nested at will.
        where: The file and column, for errors.

    Raises:
        DataError: Rows are null or differ in width, or the values are not numbers.
    """
    _check_numbers(column.type, where)
    parts: list[npt.NDArray[Any]] = []
    first_row = 0
    for chunk in column.chunks:
        if len(chunk):
            parts.append(_chunk_matrix(chunk, first_row, where))
        first_row += len(chunk)
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.empty((0, _width(column.type)), dtype=numpy_dtype(_leaf(column.type)))
    widths = [part.shape[1] for part in parts]
    if len(set(widths)) > 1:
        raise _ragged("row", widths, where)
    return np.concatenate(parts)


def is_vector(kind: pa.DataType) -> bool:
    """Return whether rows of an Arrow type are plain vectors: neither numbers nor matrices."""
    return _is_list(kind) and not _is_list(kind.value_type)


def numpy_dtype(kind: pa.DataType) -> np.dtype[Any]:
    """Return the NumPy dtype of an Arrow type of numbers.

    By converting nothing: pyarrow's own mapping needs pandas in some versions.
    """
    dtype: np.dtype[Any] = pa.array([], kind).to_numpy(zero_copy_only=False).dtype
    return dtype


def _chunk_matrix(array: pa.Array, first_row: int, where: str) -> npt.NDArray[Any]:
    rows = len(array)
    what = "row"
    while _is_list(array.type):
        _check_rows(array, what, first_row, where)
        array = _inner(array)
        what, first_row = "inner row", 0
    if array.null_count:
        raise DataError(
            f"has {several(array.null_count, 'null value')}",
            where=where,
            hint="Fill them, or drop the rows.",
        )
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.reshape(rows, len(values) // rows)


def _inner(array: pa.Array) -> pa.Array:
    """Return the values of a list array without nulls; `flatten()` at a fraction of its cost."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        return array.values.slice(array.offset * size, len(array) * size)
    first, last = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
    return array.values.slice(first, last - first)


def _check_rows(array: pa.Array, what: str, first_row: int, where: str) -> None:
    if array.null_count:
        first = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"has {array.null_count:,} null rows (the first is {what} {first_row + first:,})",
            where=where,
            hint="Fill them, or drop the rows.",
        )
    if pa.types.is_fixed_size_list(array.type):
        return
    offsets = array.offsets.to_numpy(zero_copy_only=False)
    widths = offsets[1:] - offsets[:-1]
    if (widths != widths[0]).any():
        raise _ragged(what, widths, where, first_row)


def _ragged(what: str, widths: Any, where: str, first_row: int = 0) -> DataError:
    other = int(np.flatnonzero(np.asarray(widths) != widths[0])[0])
    return DataError(
        f"is ragged: {what} {first_row + other:,} has {widths[other]} values,"
        f" {what} {first_row:,} has {widths[0]}",
        where=where,
        hint="Every frame must have the same width.",
    )


def _check_numbers(kind: pa.DataType, where: str) -> None:
    leaf = _leaf(kind)
    if not (pa.types.is_integer(leaf) or pa.types.is_floating(leaf) or pa.types.is_boolean(leaf)):
        raise DataError(f"holds {kind}, not numbers", where=where, hint="Choose another column.")


def _leaf(kind: pa.DataType) -> pa.DataType:
    while _is_list(kind):
        kind = kind.value_type
    return kind


def _width(kind: pa.DataType) -> int:
    """Return D as far as the type says it; 0 where it does not."""
    width = 1
    while _is_list(kind):
        width *= kind.list_size if pa.types.is_fixed_size_list(kind) else 0
        kind = kind.value_type
    return width


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
