"""Which columns of a dataset have stats, and where their dims lie side by side."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from opentau_prep.errors import DataError
from opentau_prep.frames.columns import ColumnError, numpy_dtype, to_matrix

if TYPE_CHECKING:
    from opentau_prep.frames.rows import DataPart
    from opentau_prep.metadata.dataset import DatasetMetadata

__all__ = ["INDEX_COLUMNS", "Column", "Layout", "declared_features", "find_layout"]

INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class Column:
    """A numeric feature.

    Attributes:
        name: The column.
        shape: Of its stats; its product is the number of dims.
        dtype: NumPy name of what the data holds, such as `float32`; `bool` counts as 0 and 1.
        vectors: Vectors of that shape per frame. LeRobot's stats of a feature with several axes are
            over all but the last: of shape (4, 3), a frame is 4 vectors and the stats are (3,).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    vectors: int = 1

    @property
    def dims(self) -> int:
        """Values per vector."""
        return math.prod(self.shape)

    @property
    def is_integer(self) -> bool:
        """Whether min and max are whole numbers."""
        return np.dtype(self.dtype).kind in "iub"

    @property
    def itemsize(self) -> int:
        """Bytes a value."""
        return np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Layout:
    """The numeric features of a dataset, their dims laid side by side: D in all."""

    columns: tuple[Column, ...]

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each feature's dims lie among the D."""
        ends = np.cumsum([0, *(column.dims for column in self.columns)]).tolist()
        return {c.name: slice(a, b) for c, a, b in zip(self.columns, ends, ends[1:], strict=False)}

    @property
    def names(self) -> list[str]:
        """The features, in order."""
        return [column.name for column in self.columns]

    @property
    def dims(self) -> int:
        """D."""
        return sum(column.dims for column in self.columns)

    @property
    def row_bytes(self) -> int:
        """Bytes a frame."""
        return sum(c.vectors * c.dims * c.itemsize for c in self.columns)

    def as_json(self) -> list[list[object]]:
        """Return the layout JSON-ready."""
        return [[c.name, list(c.shape), c.dtype, c.vectors] for c in self.columns]

    @classmethod
    def from_json(cls, record: Sequence[Sequence[Any]]) -> Layout:
        """Rebuild what `as_json` gave."""
        return cls(tuple(Column(n, tuple(s), t, int(v)) for n, s, t, v in record))


def _plan_columns(meta: DatasetMetadata, schema: pa.Schema) -> Layout:
    """Return the features of info.json that the data holds as numbers, then the index columns.

    Args:
        meta: The dataset.
        schema: Of one of its data files.
    """
    declared = [name for name, feature in meta.features.items() if not feature.is_camera]
    wanted = dict.fromkeys([*declared, *INDEX_COLUMNS])
    columns = []
    for name in wanted:
        if name not in schema.names:
            continue
        shape = meta.features[name].shape if name in meta.features else ()
        column = _column(name, schema.field(name).type, shape)
        if column is not None:
            columns.append(column)
    return Layout(tuple(columns))


def _missing_columns(meta: DatasetMetadata, schema: pa.Schema) -> list[str]:
    """Return the numeric features that info.json declares and the data lacks.

    Index columns and `next.*` are left out: many published datasets do without them.
    """
    numeric = [
        name
        for name, feature in meta.features.items()
        if not feature.is_camera and feature.dtype not in ("string", "language")
    ]
    return [
        name
        for name in numeric
        if name not in schema.names and name not in INDEX_COLUMNS and not name.startswith("next.")
    ]


def declared_features(meta: DatasetMetadata) -> dict[str, list[object]]:
    """Return the features that stats are of, as info.json declares them: dtype and shape."""
    return {
        name: [feature.dtype, *feature.shape]
        for name, feature in meta.features.items()
        if not feature.is_camera
    }


def find_layout(
    meta: DatasetMetadata,
    parts: Sequence[DataPart],
    *,
    keep_going: bool,
    without: Collection[str] = (),
) -> tuple[Layout, list[str]]:
    """Plan the columns from the first file that has all of them, or else the first readable one.

    Args:
        meta: The dataset.
        parts: Its data files.
        keep_going: Whether files that cannot be opened are passed over.
        without: Columns to leave out.

    Returns:
        The layout, and the declared numeric features that no file has.

    Raises:
        DataError: A file cannot be opened, there is none, or none has a numeric column.
        ColumnError: The width of a column cannot be found.
    """
    best: tuple[Layout, list[str]] | None = None
    fault: DataError | None = None
    for part in parts:
        try:
            schema = meta.storage.open_parquet(part.rel).schema_arrow
        except DataError as error:
            if not keep_going:
                raise
            fault = fault or error
            continue
        missing = _missing_columns(meta, schema)
        if best is None or len(missing) < len(best[1]):
            planned = _plan_columns(meta, schema).columns
            planned = tuple(column for column in planned if column.name not in without)
            best = _sized(meta, Layout(planned), part), missing
        if not best[1]:
            break
    if best is None:
        raise fault or DataError("the dataset has no data files", where=meta.root)
    if not best[0].columns:
        raise DataError("the data has no numeric column", where=meta.root)
    return best


def _sized(meta: DatasetMetadata, layout: Layout, part: DataPart) -> Layout:
    """Look up the width of list columns that neither their type nor info.json gives."""
    columns = []
    for column in layout.columns:
        if column.dims < 0:
            table = meta.storage.read_table(part.rel, [column.name])
            where = f"{meta.root}/{part.rel}, column {column.name}"
            try:
                width = to_matrix(table.column(0), where).shape[1]
            except DataError as error:
                raise ColumnError.of(error, column.name) from error
            columns.append(Column(column.name, (width,), column.dtype))
        else:
            columns.append(column)
    return Layout(tuple(columns))


def _column(name: str, kind: pa.DataType, shape: Sequence[int]) -> Column | None:
    width: int | None = 1
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_fixed(kind):
        width = width * kind.list_size if _is_fixed(kind) and width is not None else None
        kind = kind.value_type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not numeric or pa.types.is_float16(kind):
        return None
    declared = int(np.prod(shape)) if shape else None
    dims = width if width is not None else declared
    # A list column says nothing about its width, and info.json may be silent: the data decides.
    if len(shape) > 1 and declared == dims:
        return Column(name, (shape[-1],), numpy_dtype(kind).name, math.prod(shape[:-1]))
    known = tuple(shape) if shape and declared == dims else (dims if dims is not None else -1,)
    return Column(name, known, numpy_dtype(kind).name)


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))
