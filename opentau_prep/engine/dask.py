"""The dask engine: worker processes of a dask cluster, your own or one started for the run.

Dask cannot stop a function that runs. So each job marks its thread with the run's name, and to stop
is to ask every worker to raise in the threads of that name: the job unwinds, and a file being
written takes its temp file along. Of a cluster started for the run, what is left then is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import queue
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import CancelledError
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

from opentau_prep.engine.handshake import HANDSHAKE_S, check_dask
from opentau_prep.engine.local import GRACE_S, WORKER_ENV
from opentau_prep.engine.loop import WorkerDiedError, work
from opentau_prep.engine.remote import (
    CONNECT_S,
    PROBE,
    START_S,
    ClusterEngine,
    check_workers,
    engine_package,
    variables,
)
from opentau_prep.engine.signals import TooLate, at_most, sigint_held
from opentau_prep.errors import EngineError

__all__ = ["DaskEngine"]

# How soon Ctrl-C is noticed, and that all workers are lost.
_POLL_S = 2.0
_LOGGERS = ("distributed", "distributed.client", "tornado.application")
_NEVER = logging.CRITICAL + 1
# Read by dask in a worker.
_SILENT = {"DASK_LOGGING": "{'distributed': 'critical', 'tornado.application': 'critical'}"}
# Nannies put a worker's variables into the process they are in, and leave them there.
_LEFT_BEHIND = (*WORKER_ENV, *_SILENT, "PYTHONHASHSEED", "__DASK_PARENT_PID")


class DaskEngine(ClusterEngine):
    """Runs jobs on a dask cluster.

    Args:
        address: The scheduler, such as `tcp://10.0.0.1:8786`. Without one, a cluster of processes
            of this machine is started for the run, unless there is one worker or one job.
        workers: How many jobs run at once at most; by default as many as the cluster has threads,
            or `default_workers()` processes.

    Raises:
        EngineError: dask is not installed.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self._dask = engine_package("distributed", engine="dask")
        super().__init__(address, workers)

    @contextlib.contextmanager
    def pool(self, processes: int) -> Iterator[_Pool]:
        """See `ClusterEngine.pool`."""
        with _quiet(), contextlib.ExitStack() as stack:
            if self.address is None:
                client = stack.enter_context(_started(self._dask, processes))
                yield _Pool(self._dask, client, 1, processes)
            else:
                client = stack.enter_context(_connected(self._dask, self.address))
                yield _Pool(self._dask, client, 2, self.workers)


class _Pool:
    """A `Pool` of as many jobs as the cluster has threads, times `depth`, within `limit`."""

    def __init__(self, dask: Any, client: Any, depth: int, limit: int | None) -> None:
        self._dask, self._client, self._depth, self._limit = dask, client, depth, limit
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._run = f"opentau-prep-{uuid.uuid4().hex}"

    def slots(self) -> int:
        with _told():
            offered: int = max(1, self._depth * sum(self._client.nthreads().values()))
        return offered if self._limit is None else min(offered, self._limit)

    def submit(self, payload: bytes) -> Any:
        with _told():
            future = self._client.submit(_work, payload, self._run, pure=False, retries=0)
        future.add_done_callback(self._finished.put)
        return future

    def finished(self, futures: Collection[Any]) -> list[Any]:
        give_up = time.monotonic() + START_S
        while True:
            with contextlib.suppress(queue.Empty):
                return [self._finished.get(timeout=_POLL_S)]
            with _told():
                alive = self._client.nthreads()
            if alive:
                give_up = time.monotonic() + START_S
            elif time.monotonic() > give_up:
                raise EngineError("the dask cluster has lost all its workers", where="--engine")

    def result(self, future: Any) -> bytes:
        try:
            with _told():
                result: bytes = future.result(timeout=START_S)
        except self._dask.scheduler.KilledWorker as error:
            raise WorkerDiedError from error
        return result

    def stop(self, futures: Collection[Any]) -> None:
        deadline = time.monotonic() + GRACE_S
        with contextlib.suppress(OSError, CancelledError, self._dask.TimeoutError):
            self._client.cancel(list(futures))
            while time.monotonic() < deadline:
                if not any(_ask(self._client, GRACE_S, "ignore", _stop, self._run).values()):
                    return
                time.sleep(0.02)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn the loss of the scheduler into an error that says so."""
    try:
        yield
    except (CancelledError, OSError, asyncio.TimeoutError) as error:
        raise EngineError("lost the connection to the dask scheduler", where="--engine") from error


class _Stopped(BaseException):
    """Unwinds a job that is to end now."""


def _work(payload: bytes, run: str) -> bytes:
    """Run one job in a thread of a worker, which bears the run's name meanwhile."""
    thread = threading.current_thread()
    before, thread.name = thread.name, run
    try:
        return work(payload)
    finally:
        thread.name = before


def _stop(run: str) -> int:
    """Raise in the threads that work for a run, once each; return how many still do."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(run)]
    for thread in threads:
        if thread.name == run:  # a second one must not break the unwinding
            thread.name = f"{run} is stopping"
            raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
            raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Stopped))
    return len(threads)


def _ask(
    client: Any, seconds: float, on_error: str, fn: Callable[..., Any], *args: Any
) -> dict[str, Any]:
    """Return what a function returns on every worker, next to its jobs.

    As `client.run`, which would wait for ever for a worker that is deaf.
    """
    ask = partial(client._run, fn, *args, on_error=on_error)
    answers: dict[str, Any] = client.sync(ask, callback_timeout=seconds)
    return answers


def _ask_versions(client: Any, where: str) -> dict[str, Any]:
    try:
        answers = _ask(client, START_S, "return", eval, PROBE)
    except (asyncio.TimeoutError, OSError) as error:
        raise EngineError("the workers of the dask cluster do not answer", where=where) from error
    if not answers:
        hint = "Start some with `dask worker`; for an adaptive cluster, set minimum=1."
        raise EngineError("the dask cluster has no workers", where=where, hint=hint)
    return answers


@contextlib.contextmanager
def _connected(dask: Any, address: str) -> Iterator[Any]:
    """Yield a client of somebody's cluster, whose workers are as they should be."""
    where = f"--engine-address {address}"
    hint = "Start one with `dask scheduler`, or leave --engine-address out."
    check_dask(address, where)
    try:
        dask.comm.resolve_address(address)  # of what cannot be one, the client makes a traceback
        with at_most(HANDSHAKE_S):
            client = dask.Client(address, timeout=CONNECT_S, set_as_default=False)
    # Of an answer that is no scheduler's, the client may reserve as much memory as it names.
    except (OSError, ValueError, TypeError, MemoryError, asyncio.TimeoutError) as error:
        raise EngineError(f"no dask scheduler answers ({error})", where=where, hint=hint) from error
    except TooLate:
        message = f"no dask scheduler answers within {HANDSHAKE_S:g} s"
        raise EngineError(message, where=where, hint=hint) from None
    try:
        check_workers(_ask_versions(client, where))
        yield client
    finally:
        with sigint_held():
            client.close(timeout=CONNECT_S)


@contextlib.contextmanager
def _started(dask: Any, processes: int) -> Iterator[Any]:
    """Yield a client of a cluster of this machine that ends with the block, if need be by force."""
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.work-stealing": False,
        "distributed.nanny.pre-spawn-environ": {**WORKER_ENV, **_SILENT},
    }
    config = engine_package("dask.config", engine="dask")
    with contextlib.ExitStack() as stack:
        stack.enter_context(config.set(settings))
        stack.enter_context(variables(dict.fromkeys(_LEFT_BEHIND)))
        scratch = tempfile.TemporaryDirectory(prefix="opentau-prep-", ignore_cleanup_errors=True)
        # Python before 3.12 unblocks SIGINT in the thread that starts this helper of workers.
        resource_tracker.ensure_running()
        with sigint_held():  # the cluster's threads start the workers, and inherit this
            cluster = dask.LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=0,
                local_directory=stack.enter_context(scratch),
            )
        stack.callback(_close, cluster)
        client = stack.enter_context(dask.Client(cluster, set_as_default=False))
        cluster.scale(processes)
        _await_workers(client, processes)
        yield client


def _close(cluster: Any) -> None:
    with sigint_held():
        cluster.sync(_close_workers, list(cluster.workers.values()))
        cluster.close()


def _await_workers(client: Any, processes: int) -> None:
    try:
        client.wait_for_workers(processes, timeout=START_S)
    except asyncio.TimeoutError as error:
        hint = "Is the machine overloaded? Try --engine local."
        raise EngineError(str(error), where="--engine dask", hint=hint) from error


async def _close_workers(nannies: list[Any]) -> None:
    await asyncio.gather(*(nanny.close(timeout=GRACE_S) for nanny in nannies))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence dask's own words in this process; what matters of them is decided by errors."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="distributed")
        try:
            for logger in loggers:
                logger.setLevel(_NEVER)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
