"""Which engine runs the work."""

from __future__ import annotations

from opentau_prep.engine.base import Engine
from opentau_prep.engine.local import LocalEngine
from opentau_prep.errors import ConfigError, EngineError

__all__ = ["get_engine"]

_CLUSTER_ENGINES = ("dask", "ray")


def get_engine(
    name: str = "local", address: str | None = None, *, workers: int | None = None
) -> Engine:
    """Return an engine.

    Args:
        name: `"local"`: processes of this machine.
        address: Where a cluster's scheduler listens; for cluster engines only.
        workers: How many processes; by default as many as this process may use cores.

    Raises:
        ConfigError: An unknown name, an address for the local engine, or less than one worker.
        EngineError: An engine that this version does not have.
    """
    if name in _CLUSTER_ENGINES:
        raise EngineError(
            f"the {name} engine is not in this version",
            where="--engine",
            hint="Use --engine local.",
        )
    if name != "local":
        raise ConfigError(f"unknown engine {name!r}", where="--engine", hint="Use --engine local.")
    if address is not None:
        raise ConfigError(
            f"the local engine has no address (found {address!r})",
            where="--engine-address",
            hint="Leave it out.",
        )
    if workers is not None and workers < 1:
        raise ConfigError(f"must be at least 1 (found {workers})", where="--workers")
    return LocalEngine(workers)
