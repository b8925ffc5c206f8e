"""Frames of all features laid side by side, one matrix a dtype: few calls reduce them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.stats.columns import Layout
from opentau_prep.stats.moments import Moments, span_moments
from opentau_prep.stats.quantiles import SortedColumns, sort_columns, span_quantiles
from opentau_prep.stats.sketch import QuantileSketch

__all__ = ["Lanes", "SortedLanes", "join_lanes", "lanes_of"]

Floats = NDArray[np.float64]
Dims = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lanes:
    """N frames over D dims, in one matrix for each dtype.

    Attributes:
        dims: For each matrix, which of the D dims its columns are.
        matrices: (N, d) each; the d add up to D.
    """

    dims: tuple[Dims, ...]
    matrices: tuple[NDArray[Any], ...]

    @property
    def rows(self) -> int:
        """N."""
        return len(self.matrices[0])

    @property
    def _order(self) -> Dims:
        """Which column of the matrices laid side by side each dim is."""
        return np.argsort(np.concatenate(self.dims))

    def moments(self, spans: NDArray[np.int64]) -> Moments:
        """Return the moments (E, D) of E spans of rows."""
        parts = [span_moments(matrix, spans) for matrix in self.matrices]
        order = self._order
        return Moments(
            *(
                np.concatenate([getattr(part, field.name) for part in parts], axis=1)[:, order]
                for field in fields(Moments)
            )
        )

    def span_quantiles(self, spans: NDArray[np.int64], q: Sequence[float]) -> Floats:
        """Return the exact quantiles (E, Q, D) of E spans of rows."""
        parts = [span_quantiles(matrix, spans, q) for matrix in self.matrices]
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
        DataError: A column has another width.
    """
    by_dtype: dict[str, list[str]] = {}
    for column in layout.columns:
        found = columns[column.name]
        if found.shape[1] != column.dims:
            raise DataError(
                f"column {column.name!r} has {found.shape[1]} values a frame, expected"
                f" {column.dims} as in the rest of the dataset",
                where=where,
                hint="Every frame must have the same width.",
            )
        by_dtype.setdefault(found.dtype.str, []).append(column.name)
    slices = layout.slices
    dims, matrices = [], []
    for dtype, names in by_dtype.items():
        wide = [columns[name].view(np.uint8) if dtype == "|b1" else columns[name] for name in names]
        matrices.append(wide[0] if len(wide) == 1 else np.concatenate(wide, axis=1))
        spans = [np.arange(slices[name].start, slices[name].stop) for name in names]
        dims.append(np.concatenate(spans))
    return Lanes(tuple(dims), tuple(matrices))


def join_lanes(parts: Sequence[Lanes]) -> Lanes:
    """Put blocks of frames one after the other. Blocks of unlike dtypes become float64."""
    first = parts[0]
    alike = all(
        len(part.dims) == len(first.dims)
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
    return Lanes(parts[0].dims, tuple(np.concatenate(matrices) for matrices in columns))


def _widened(part: Lanes) -> Lanes:
    wide = [matrix.astype(np.float64) for matrix in part.matrices]
    order = np.argsort(np.concatenate(part.dims))
    return Lanes((np.arange(len(order)),), (np.concatenate(wide, axis=1)[:, order],))
