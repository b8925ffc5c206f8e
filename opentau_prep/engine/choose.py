"""Which engine runs the work."""

from __future__ import annotations

from opentau_prep.engine.base import Engine
from opentau_prep.engine.local import LocalEngine
from opentau_prep.errors import ConfigError

__all__ = ["get_engine"]


def get_engine(
    name: str = "local", address: str | None = None, *, workers: int | None = None
) -> Engine:
    """Return an engine.

    Args:
        name: `"local"`: processes of this machine; `"dask"` or `"ray"`: a cluster's, or those of
            one that is started for the run.
        address: Where a cluster's scheduler listens; for cluster engines only.
        workers: How many processes; by default as many as this process may use cores, or as the
            cluster at `address` has.

    Raises:
        ConfigError: An unknown name, an address for the local engine, or less than one worker.
        EngineError: The engine's package is not installed.
    """
    if name not in ("local", "dask", "ray"):
        hint = "Use local, dask or ray."
        raise ConfigError(f"unknown engine {name!r}", where="--engine", hint=hint)
    if workers is not None and workers < 1:
        raise ConfigError(f"must be at least 1 (found {workers})", where="--workers")
    if name == "dask":
        from opentau_prep.engine.dask import DaskEngine

        return DaskEngine(address, workers)
    if name == "ray":
        from opentau_prep.engine.ray import RayEngine

        return RayEngine(address, workers)
    if address is not None:
        raise ConfigError(
            f"the local engine has no address (found {address!r})",
            where="--engine-address",
            hint="Leave it out, or choose --engine dask or ray.",
        )
    return LocalEngine(workers)
