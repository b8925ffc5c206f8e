"""Frames of all features, one matrix per dtype with a row per dim: few calls reduce them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.frames.columns import ColumnError
from opentau_prep.stats.columns import Layout
from opentau_prep.stats.moments import Moments, column_moments
from opentau_prep.stats.quantiles import sort_spans
from opentau_prep.stats.sketch import QuantileSketch

__all__ = ["Lanes", "join_lanes", "lanes_of"]

Floats = NDArray[np.float64]
Dims = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lanes:
    """N frames over D dims, in one matrix for each dtype and number of vectors per frame.

    Attributes:
        dims: For each matrix, which of the D dims its rows are.
        matrices: (d, N * v) each, with v vectors per frame; the d add up to D.
        vectors: For each matrix, its v.
    """

    dims: tuple[Dims, ...]
    matrices: tuple[NDArray[Any], ...]
    vectors: tuple[int, ...]

    @property
    def rows(self) -> int:
        """N."""
        return int(self.matrices[0].shape[1]) // self.vectors[0]

    @property
    def _order(self) -> Dims:
        """Which row of the matrices, one below the other, each dim is."""
        return np.argsort(np.concatenate(self.dims))

    def moments(self, spans: NDArray[np.int64]) -> Moments:
        """Return the moments (E, D) of E spans of frames."""
        pairs = zip(self.matrices, self.vectors, strict=True)
        parts = [column_moments(matrix, spans * v) for matrix, v in pairs]
        order = self._order
        return Moments(
            *(
                np.concatenate([getattr(part, field.name) for part in parts], axis=1)[:, order]
                for field in fields(Moments)
            )
        )

    def span_quantiles(self, spans: NDArray[np.int64], q: Sequence[float]) -> Floats:
        """Return the exact quantiles (E, Q, D) of E spans of frames. Memory: one copy."""
        pairs = zip(self.matrices, self.vectors, strict=True)
        parts = [sort_spans(matrix.copy(), spans * v).quantiles(q) for matrix, v in pairs]
        return np.concatenate(parts, axis=2)[:, :, self._order]

    def summarize(self, q: Sequence[float], threads: int = 1) -> tuple[Floats, QuantileSketch]:
        """Return the exact quantiles (Q, D) and the sketch. The frames are out of order after."""
        parts = [sort_spans(matrix, None, threads) for matrix in self.matrices]
        order = self._order
        quantiles = np.concatenate([part.quantiles(q) for part in parts], axis=1)[:, order]
        sketches = [QuantileSketch.of_sorted(part) for part in parts]
        return quantiles, QuantileSketch.side_by_side(sketches).select(order.tolist())


def lanes_of(columns: Mapping[str, NDArray[Any]], layout: Layout, where: str) -> Lanes:
    """Copy the columns of a block, one dim below the other.

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
        owned = [np.arange(slices[name].start, slices[name].stop) for name in names]
        dims.append(np.concatenate(owned))
        rows = len(columns[names[0]]) * vectors
        matrix = np.empty((len(dims[-1]), rows), dtype=np.uint8 if dtype == "|b1" else dtype)
        ends = np.cumsum([len(each) for each in owned]).tolist()
        for name, end, each in zip(names, ends, owned, strict=True):
            matrix[end - len(each) : end] = columns[name].reshape(rows, len(each)).T
        matrices.append(matrix)
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
    joined = tuple(np.concatenate(matrices, axis=1) for matrices in columns)
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
        matrices.append(np.concatenate(wide)[order])
    return Lanes(tuple(dims), tuple(matrices), tuple(vectors))
