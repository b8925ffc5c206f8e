"""How each trainer normalizes a dim: a center that becomes 0, and a half range that becomes 1.

Every formula is affine per dim, so `(x - center) / half` covers all of them, but for rounding.
What differs is what each does with a range (or std) of zero, which is where values explode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from opentau_prep.normalization import Convention

if TYPE_CHECKING:
    from opentau_prep.normalization import Mode

__all__ = ["BOUNDS", "FORMULAS", "STATS_OF_MODE", "Affine", "Formula", "Normalization", "affine"]

Floats = NDArray[np.float64]

BOUNDS = (1.0, 2.0, 5.0)
"""Shares of normalized values are counted beyond these."""
Formula = Literal["opentau", "lerobot", "openpi", "openvla"]
Normalization = Literal["min_max", "quantile", "quantile10", "mean_std"]

STATS_OF_MODE: Mapping[Normalization, tuple[str, str]] = MappingProxyType(
    {
        "min_max": ("min", "max"),
        "quantile": ("q01", "q99"),
        "quantile10": ("q10", "q90"),
        "mean_std": ("mean", "std"),
    }
)


@dataclass(frozen=True)
class Affine:
    """What normalization does to D dims: (x - center) / half.

    Attributes:
        center: (D,) float64, dataset units; NaN where a stat is not finite.
        half: (D,) float64, the same.
    """

    center: Floats
    half: Floats

    def normalize(self, values: Floats) -> Floats:
        """Return (..., D) values in normalized units."""
        return np.asarray((values - self.center) / self.half)

    def raw(self, normalized: float) -> Floats:
        """Return (D,) the dataset's value that becomes `normalized`."""
        return np.asarray(self.center + normalized * self.half)


def affine(formula: Formula, mode: Normalization, first: Floats, second: Floats) -> Affine:
    """Return what a trainer's formula does, from its two stats.

    Args:
        formula: Whose formula.
        mode: Which stats: see `STATS_OF_MODE`.
        first: (D,) float64, minimum, low quantile or mean.
        second: (D,) float64, maximum, high quantile or std.
    """
    finite = np.isfinite(first) & np.isfinite(second)
    known = np.where(finite, first, 0.0), np.where(finite, second, 1.0)
    center, half = FORMULAS[formula](mode, *known)
    return Affine(np.where(finite, center, np.nan), np.where(finite, half, np.nan))


def _opentau(mode: Normalization, first: Floats, second: Floats) -> tuple[Floats, Floats]:
    # The 10 % quantiles are LeRobot's alone; OpenTau's rule is the same for any pair of ends.
    named = {"quantile10": "QUANTILE"}.get(mode, mode.upper())
    return Convention.of(cast("Mode", named)).affine(first, second)


def _openpi(mode: Normalization, first: Floats, second: Floats) -> tuple[Floats, Floats]:
    # Source: openpi 15a9616, `Normalize` in src/openpi/transforms.py: nothing guards a zero range.
    if mode == "mean_std":
        return first, second + 1e-6
    width = second - first + 1e-6
    return first + width / 2, width / 2


def _lerobot(mode: Normalization, first: Floats, second: Floats) -> tuple[Floats, Floats]:
    # Source: LeRobot 7427f31, `_apply_transform` in src/lerobot/processor/normalize_processor.py.
    if mode == "mean_std":
        return first, second + 1e-8
    width = np.where(second == first, 1e-8, second - first)
    return first + width / 2, width / 2


def _openvla(mode: Normalization, first: Floats, second: Floats) -> tuple[Floats, Floats]:
    # What its loader clips to [-1, 1] afterwards is lost, so the values before that are judged.
    if mode == "mean_std":
        return first, second + 1e-8
    width = second - first + 1e-8
    return first + width / 2, width / 2


_Ends = Callable[["Normalization", Floats, Floats], tuple[Floats, Floats]]
FORMULAS: Mapping[Formula, _Ends] = MappingProxyType(
    {"opentau": _opentau, "lerobot": _lerobot, "openpi": _openpi, "openvla": _openvla}
)
