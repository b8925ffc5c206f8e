"""Run a function over many datasets, in order, on this machine or on a cluster."""

from opentau_prep.engine.base import Engine, Failure, map_ordered
from opentau_prep.engine.choose import get_engine

__all__ = ["Engine", "Failure", "get_engine", "map_ordered"]
