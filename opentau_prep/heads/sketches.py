"""Quantiles of a head from the merged sketches of its members' frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import MetadataError, PrepError
from opentau_prep.heads.members import VECTOR_FEATURES
from opentau_prep.notices import warn

if TYPE_CHECKING:
    from opentau_prep.heads.build import Stats
    from opentau_prep.heads.members import HeadMember

__all__ = ["QuantileRanks", "Sketch", "head_sketches", "quantile_ranks", "with_sketch_quantiles"]

QUANTILES = (("q01", 0.01), ("q10", 0.10), ("q50", 0.50), ("q90", 0.90), ("q99", 0.99))
TAILS = (("q01", 0.01), ("q99", 0.99))
RANK_TOLERANCE = 0.005
# Quantiles pass through pooling and JSON; a value this close to an atom of the data is that atom.
_ROUNDING = 1e-6
_SKETCH_FILE = "meta/quantile_sketch.json"

Floats = NDArray[np.float64]


class Sketch(Protocol):
    """What is needed of a mergeable sketch of D dims."""

    def quantiles(self, q: Sequence[float]) -> Floats:
        """Return (Q, D) quantiles."""
        ...

    def ranks(self, values: Any) -> Floats:
        """Return (D,) ranks of (D,) values."""
        ...


@dataclass(frozen=True)
class QuantileRanks:
    """Where a head's pooled quantile really lies in its members' frames.

    Attributes:
        feature: `state` or `actions`.
        quantile: `q01` or `q99`.
        expected: The rank that it claims: 0.01 or 0.99.
        ranks: (D,) float64, the rank it has, the nearest one where the value occurs many times; NaN
            where there are no values.
    """

    feature: str
    quantile: str
    expected: float
    ranks: Floats

    @property
    def errors(self) -> Floats:
        """(D,) how far each rank is from the one claimed; 0 where there are no values."""
        return np.nan_to_num(np.abs(self.ranks - self.expected), nan=0.0)

    @property
    def dims_off(self) -> tuple[int, ...]:
        """The dims that are further off than half a percent."""
        return tuple(np.flatnonzero(self.errors > RANK_TOLERANCE).tolist())

    def as_json(self) -> dict[str, Any]:
        """Return the ranks JSON-ready."""
        return {
            "feature": self.feature,
            "quantile": self.quantile,
            "expected": self.expected,
            "ranks": self.ranks,
            "dims_off": list(self.dims_off),
        }
