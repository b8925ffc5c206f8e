"""What a policy will see: a mixture's data under stats of any origin, before training."""

from opentau_prep.forecast.prepare import make_forecast
from opentau_prep.forecast.report import Forecast, ForecastOptions
from opentau_prep.forecast.sources import StatsSource, load_stats_source

__all__ = ["Forecast", "ForecastOptions", "StatsSource", "load_stats_source", "make_forecast"]
