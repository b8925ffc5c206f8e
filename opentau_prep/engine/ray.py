"""The ray engine: worker processes of a ray cluster, your own or one started for the run.

To stop, ray is asked to interrupt our tasks, which unwinds them, so that a file being written takes
its temp file along; after `GRACE_S` their workers are killed.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator
from typing import Any

from opentau_prep.engine.handshake import HANDSHAKE_S, check_ray
from opentau_prep.engine.local import GRACE_S, WORKER_ENV
from opentau_prep.engine.loop import WorkerDiedError, work
from opentau_prep.engine.remote import (
    PROBE,
    START_S,
    ClusterEngine,
    check_workers,
    engine_package,
    variables,
)
from opentau_prep.engine.signals import TooLate, at_most, sigint_held
from opentau_prep.errors import EngineError

__all__ = ["RayEngine"]

# How soon Ctrl-C is noticed.
_POLL_S = 2.0
# What ray reads where it starts a cluster: report no usage, and listen on loopback only (this name
# says systems for which that is the default; it is read on import).
_PRIVATE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# What ray puts into this process, and leaves there.
_LEFT_BEHIND = ("PYTHONBREAKPOINT", "RAY_AUTH_MODE")


class RayEngine(ClusterEngine):
    """Runs jobs on a ray cluster.

    Args:
        address: The cluster, such as `10.0.0.1:6379` or `auto`. Without one, a cluster of processes
            of this machine is started for the run, unless there is one worker or one job.
        workers: How many jobs run at once at most; by default as many as the cluster has CPUs, or
            `default_workers()` processes.

    Raises:
        EngineError: ray is not installed.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        with variables(_PRIVATE if address is None else {}):
            self._ray = engine_package("ray", engine="ray")
        super().__init__(address, workers)

    @contextlib.contextmanager
    def pool(self, processes: int) -> Iterator[_Pool]:
        """See `ClusterEngine.pool`."""
        with contextlib.ExitStack() as stack:
            # Ray prints there what the cluster says of dead workers, and cannot be reported not to.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            stack.enter_context(variables(dict.fromkeys(_LEFT_BEHIND)))
            if self.address is None:
                stack.enter_context(_started(self._ray, processes))
            else:
                stack.enter_context(_connected(self._ray, self.address))
            yield _Pool(self._ray, self.workers if self.address else None)


class _Pool:
    """A `Pool` of twice as many jobs as the cluster has CPUs, within `limit`."""

    def __init__(self, ray: Any, limit: int | None) -> None:
        self._ray, self._limit = ray, limit
        self._work = ray.remote(num_cpus=1, max_retries=0)(work)

    def slots(self) -> int:
        offered = max(1, 2 * int(self._ray.cluster_resources().get("CPU", 1)))
        return offered if self._limit is None else min(offered, self._limit)

    def submit(self, payload: bytes) -> Any:
        return self._work.remote(payload)

    def finished(self, futures: Collection[Any]) -> list[Any]:
        while True:
            ready, _ = self._ray.wait(list(futures), timeout=_POLL_S)
            if ready:
                return list(ready)

    def result(self, future: Any) -> bytes:
        errors = self._ray.exceptions
        try:
            result: bytes = self._ray.get(future)
        except errors.RayTaskError as error:
            raise error.cause from error
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
            raise WorkerDiedError from error
        except errors.RayError as error:
            raise EngineError(f"ray has failed: {error}", where="--engine ray") from error
        return result

    def stop(self, futures: Collection[Any]) -> None:
        for future in futures:
            self._ray.cancel(future)
        _, left = self._ray.wait(list(futures), num_returns=len(futures), timeout=GRACE_S)
        for future in left:
            self._ray.cancel(future, force=True)


@contextlib.contextmanager
def _started(ray: Any, processes: int) -> Iterator[None]:
    """Start a cluster of this machine that ends with the block."""
    folder = tempfile.TemporaryDirectory(prefix="prep-ray-", ignore_cleanup_errors=True)
    with folder as scratch, variables(_PRIVATE):
        options = {"num_cpus": processes, "num_gpus": 0, "include_dashboard": False}
        with _joined(ray, "--engine ray", START_S, address="local", _temp_dir=scratch, **options):
            yield


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Join somebody's cluster, whose workers are as they should be."""
    where = f"--engine-address {address}"
    check_ray(address, where)
    with _joined(ray, where, HANDSHAKE_S, address=address):
        check_workers(_ask_nodes(ray))
        yield


def _ask_nodes(ray: Any) -> dict[str, Any]:
    """Return what a worker of each node answers to `PROBE`, or the error that it raised."""
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    # By value: nodes need none of our modules to run it.
    ask = ray.remote(num_cpus=0, max_retries=0)(lambda text: eval(text))
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise EngineError("the ray cluster has no CPUs", where="--engine-address")
    asked = {
        node["NodeManagerAddress"]: ask.options(
            scheduling_strategy=affinity(node["NodeID"], soft=False)
        ).remote(PROBE)
        for node in nodes
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=START_S)
    return {node: _answer(ray, future) for node, future in asked.items()}


def _answer(ray: Any, future: Any) -> Any:
    try:
        return ray.get(future, timeout=0.1)
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RayError as error:
        return error


@contextlib.contextmanager
def _joined(ray: Any, where: str, seconds: float, **options: Any) -> Iterator[None]:
    """Make this process a driver of a cluster for the block."""
    if ray.is_initialized():
        message = "this process has joined a ray cluster already"
        raise EngineError(message, where=where, hint="Call ray.shutdown() before.")
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        _init(ray, where, seconds, {**options, **quiet, "runtime_env": {"env_vars": WORKER_ENV}})
        yield
    finally:
        with sigint_held():
            ray.shutdown()


def _init(ray: Any, where: str, seconds: float, options: dict[str, Any]) -> None:
    """Call `ray.init`, which would take SIGTERM from us and may wait for ever."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with at_most(seconds):
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise EngineError(f"ray cannot be joined ({error})", where=where) from error
    except TooLate:
        message = f"the ray cluster lets nobody in within {seconds:g} s"
        hint = "Does the cluster ask for a token (RAY_AUTH_MODE=token)?"
        raise EngineError(message, where=where, hint=hint) from None
    except SystemExit:  # ray's answer to SIGTERM
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
