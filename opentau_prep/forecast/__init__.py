"""What a policy will see: a mixture's data under stats of any origin, before training.

Loaded on first use: `validate` reads the rules of this room, and nothing else of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentau_prep.forecast.prepare import make_forecast
    from opentau_prep.forecast.report import Forecast, ForecastOptions
    from opentau_prep.forecast.sets import StatsSource
    from opentau_prep.forecast.sources import load_stats_source

__all__ = ["Forecast", "ForecastOptions", "StatsSource", "load_stats_source", "make_forecast"]

_HOMES = {
    "Forecast": "report",
    "ForecastOptions": "report",
    "StatsSource": "sets",
    "load_stats_source": "sources",
    "make_forecast": "prepare",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
