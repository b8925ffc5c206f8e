"""Statistics of a dataset's frames: exact where they fit in memory, mergeable elsewhere."""

from __future__ import annotations

from opentau_prep.stats.compute import prepare_stats
from opentau_prep.stats.delta import load_delta_stats
from opentau_prep.stats.load import load_sketches
from opentau_prep.stats.moments import Moments
from opentau_prep.stats.sketch import QuantileSketch

__all__ = ["Moments", "QuantileSketch", "load_delta_stats", "load_sketches", "prepare_stats"]
