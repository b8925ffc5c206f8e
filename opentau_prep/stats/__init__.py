"""Statistics of a dataset's frames: exact where they fit in memory, mergeable elsewhere."""

from __future__ import annotations

from opentau_prep.stats.histogram import NormStats, RunningStats
from opentau_prep.stats.moments import Moments
from opentau_prep.stats.sketch import QuantileSketch

__all__ = ["Moments", "NormStats", "QuantileSketch", "RunningStats"]
