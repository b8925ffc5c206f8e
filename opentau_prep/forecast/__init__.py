"""What a policy will see: a mixture's data under stats of any origin, before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentau_prep.lazy import names_of

if TYPE_CHECKING:
    from opentau_prep.forecast.prepare import make_forecast
    from opentau_prep.forecast.report import Forecast, ForecastOptions
    from opentau_prep.forecast.sets import StatsSource
    from opentau_prep.forecast.sources import load_stats_source

__all__ = ["Forecast", "ForecastOptions", "StatsSource", "load_stats_source", "make_forecast"]

__getattr__ = names_of(
    __name__,
    {
        "Forecast": ".report",
        "ForecastOptions": ".report",
        "StatsSource": ".sets",
        "load_stats_source": ".sources",
        "make_forecast": ".prepare",
    },
)
