"""Frames of all features laid side by side, one matrix per dtype: few calls reduce them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.frames.columns import ColumnError
from opentau_prep.stats.columns import Layout
from opentau_prep.stats.moments import Moments, span_moments
from opentau_prep.stats.quantiles import SortedColumns, sort_columns, span_quantiles
from opentau_prep.stats.sketch import QuantileSketch

__all__ = ["Lanes", "SortedLanes", "join_lanes", "lanes_of"]

Floats = NDArray[np.float64]
Dims = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lanes:
    """N frames over D dims, in one matrix for each dtype and number of vectors per frame.

    Attributes:
        dims: For each matrix, which of the D dims its columns are.
        matrices: (N * v, d) each, with v vectors per frame; the d add up to D.
        vectors: For each matrix, its v.
    """

    dims: tuple[Dims, ...]
    matrices: tuple[NDArray[Any], ...]
    vectors: tuple[int, ...]

    @property
    def rows(self) -> int:
        """N."""
        return len(self.matrices[0]) // self.vectors[0]

    @property
    def _order(self) -> Dims:
        """Which column of the matrices laid side by side each dim is."""
        return np.argsort(np.concatenate(self.dims))

    def moments(self, spans: NDArray[np.int64]) -> Moments:
        """Return the moments (E, D) of E spans of rows."""
        pairs = zip(self.matrices, self.vectors, strict=True)
        parts = [span_moments(matrix, spans * v) for matrix, v in pairs]
        order = self._order
        return Moments(
            *(
                np.concatenate([getattr(part, field.name) for part in parts], axis=1)[:, order]
                for field in fields(Moments)
            )
        )

    def span_quantiles(self, spans: NDArray[np.int64], q: Sequence[float]) -> Floats:
        """Return the exact quantiles (E, Q, D) of E spans of rows."""
        pairs = zip(self.matrices, self.vectors, strict=True)
        parts = [span_quantiles(matrix, spans * v, q) for matrix, v in pairs]
        return np.concatenate(parts, axis=2)[:, :, self._order]

    def sort(self) -> SortedLanes:
        """Sort every dim. Memory: one copy."""
        return SortedLanes(self._order, tuple(sort_columns(matrix) for matrix in self.matrices))


@dataclass(frozen=True, eq=False)
class SortedLanes:
    """Frames with every dim sorted by itself.

    Attributes:
        order: Which column of the parts laid side by side each of the D dims is.
        parts: One for each dtype.
    """

    order: Dims
    parts: tuple[SortedColumns, ...]

    def quantiles(self, q: Sequence[float]) -> Floats:
        """Return the exact quantiles (Q, D)."""
        return np.concatenate([part.quantiles(q) for part in self.parts], axis=1)[:, self.order]

    def sketch(self) -> QuantileSketch:
        """Return the sketch of all D dims."""
        parts = [QuantileSketch.of_sorted(part) for part in self.parts]
        return QuantileSketch.side_by_side(parts).select(self.order.tolist())


def lanes_of(columns: Mapping[str, NDArray[Any]], layout: Layout, where: str) -> Lanes:
    """Lay the columns of a block side by side.

    Args:
        columns: name -> (N, d) in the file's own dtype.
        layout: The features and their widths.
        where: The file, for errors.

    Raises:
        ColumnError: A column has another width.
    """
    alike: dict[tuple[str, int], list[str]] = {}
    for column in layout.columns:
        found = columns[column.name]
        if found.shape[1] != column.dims * column.vectors:
            fault = DataError(
                f"column {column.name!r} has {found.shape[1]} values per frame, expected"
                f" {column.dims * column.vectors} as in the rest of the dataset",
                where=where,
                hint="Every frame must have the same width.",
            )
            raise ColumnError.of(fault, column.name)
        alike.setdefault((found.dtype.str, column.vectors), []).append(column.name)
    slices = layout.slices
    dims, matrices = [], []
    for (dtype, vectors), names in alike.items():
        wide = [columns[name].view(np.uint8) if dtype == "|b1" else columns[name] for name in names]
        if vectors > 1:
            wide = [np.reshape(m, (len(m) * vectors, m.shape[1] // vectors)) for m in wide]
        matrices.append(wide[0] if len(wide) == 1 else np.concatenate(wide, axis=1))
        spans = [np.arange(slices[name].start, slices[name].stop) for name in names]
        dims.append(np.concatenate(spans))
    return Lanes(tuple(dims), tuple(matrices), tuple(vectors for _, vectors in alike))


def join_lanes(parts: Sequence[Lanes]) -> Lanes:
    """Put blocks of frames one after the other. Blocks of unlike dtypes become float64."""
    first = parts[0]
    alike = all(
        part.vectors == first.vectors
        and all(
            np.array_equal(a, b) and m.dtype == n.dtype
            for a, b, m, n in zip(part.dims, first.dims, part.matrices, first.matrices, strict=True)
        )
        for part in parts
    )
    if not alike:
        parts = [_widened(part) for part in parts]
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(part.matrices for part in parts), strict=True)
    joined = tuple(np.concatenate(matrices) for matrices in columns)
    return Lanes(parts[0].dims, joined, parts[0].vectors)


def _widened(part: Lanes) -> Lanes:
    dims, matrices = [], []
    vectors = sorted(set(part.vectors))
    for v in vectors:
        mine = [k for k, each in enumerate(part.vectors) if each == v]
        owned = np.concatenate([part.dims[k] for k in mine])
        order = np.argsort(owned)
        wide = [part.matrices[k].astype(np.float64) for k in mine]
        dims.append(owned[order])
        matrices.append(np.concatenate(wide, axis=1)[:, order])
    return Lanes(tuple(dims), tuple(matrices), tuple(vectors))
