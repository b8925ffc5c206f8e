"""The options that a dataset's stats were made with, for a run in which nobody chose any."""

from __future__ import annotations

from dataclasses import replace

from opentau_prep.artifacts import Recipe
from opentau_prep.artifacts.place import Place
from opentau_prep.artifacts.store import inspect
from opentau_prep.errors import ConfigError
from opentau_prep.stats.options import StatsOptions

__all__ = ["recorded_stats_options"]


def recorded_stats_options(place: Place, options: StatsOptions) -> StatsOptions:
    """Return options with the quantiles that are on record beside a dataset's sketch.

    Args:
        place: The sketch.
        options: What holds where nothing is on record.
    """
    provenance = inspect(place, Recipe("stats", {})).provenance
    recorded = {} if provenance is None else provenance.parameters
    try:
        return replace(
            options,
            quantiles=tuple(float(q) for q in recorded["quantiles"]),
            episode_quantiles=recorded["episode_quantiles"],
            allow_partial=options.allow_partial or "partial" in recorded,
        )
    except (
        ConfigError,
        KeyError,
        TypeError,
        ValueError,
    ):  # a record that this tool did not write
        return options
