"""The local engine: processes of this machine, which never outlive the run.

Workers are fresh interpreters (loky, which comes with joblib), so a caller's threads and locks are
not forked into them. As many jobs are handed out as there are workers: when a worker dies, these
and no others are the suspects.

Stopping is in three steps, each for those that the one before did not reach: the workers are asked
by SIGTERM, which unwinds the job, so that a file being written takes its temp file along; after
`GRACE_S` they are killed; and a worker whose parent has vanished stops itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Future,
    TimeoutError,
    wait,
)
from types import FrameType
from typing import Any

from opentau_prep.artifacts.tempfiles import remove_live
from opentau_prep.engine.jobs import Done, Job, perform
from opentau_prep.engine.loop import WorkerDiedError, drain, work
from opentau_prep.engine.signals import sigint_held, sigterm_interrupts
from opentau_prep.interruption import deferred

__all__ = ["GRACE_S", "WORKER_ENV", "LocalEngine", "default_workers"]

# Workers that were interrupted remove their temporary files within this time, then are killed.
GRACE_S = 0.5

_IN_WORKER = "OPENTAU_PREP_IN_WORKER"
# A worker whose parent was killed outlives it by this much at most.
_PARENT_POLL_S = 0.5
# One thread a worker: the processes are the parallelism, and sums must not depend on the machine.
WORKER_ENV = dict.fromkeys(
    (
        _IN_WORKER,
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "RAYON_NUM_THREADS",
        "ARROW_IO_THREADS",
    ),
    "1",
)


def default_workers() -> int:
    """Return how many cores this process may use: affinity, cgroup and SLURM's share count."""
    if os.environ.get(_IN_WORKER):
        return 1
    from joblib import cpu_count

    share = os.environ.get("SLURM_CPUS_PER_TASK", "")
    cores = int(cpu_count())
    return min(cores, int(share)) if share.isascii() and share.isdigit() and int(share) else cores


class LocalEngine:
    """Runs jobs in processes of this machine; in this process when there is one worker or one job.

    Args:
        workers: How many processes at most; `default_workers()` by default.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = default_workers() if workers is None else workers

    def run(
        self, fn: Callable[[Any], Any], jobs: Sequence[Job], *, keep_going: bool
    ) -> Generator[tuple[int, Done], None, None]:
        """Yield each job's index and outcome as it finishes; see `Engine.run` and `drain`."""
        with sigterm_interrupts():
            workers = min(self.workers, len(jobs))
            if workers <= 1:
                for job in jobs:
                    yield job.index, perform(fn, job)
                return
            with _processes(workers) as pool:
                yield from drain(pool, fn, jobs, keep_going=keep_going)


class _Pool:
    """A `Pool` of processes. When one dies, loky gives up all of them: the next job has new ones.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._executor: Any = None

    def slots(self) -> int:
        return self._workers

    def submit(self, payload: bytes) -> Future[bytes]:
        from joblib.externals.loky import ProcessPoolExecutor

        if self._executor is None:
            # Outside of the block: loky starts a helper, which may unblock SIGINT in this thread.
            started = {"initializer": _start_worker, "initargs": (os.getpid(),)}
            self._executor = ProcessPoolExecutor(self._workers, env=WORKER_ENV, **started)
        # Workers are started here and inherit the mask: Ctrl-C goes to the whole process group, and
        # only this process is to act on it, also while a worker is still importing.
        with sigint_held():
            future: Future[bytes]
            try:
                future = self._executor.submit(_work, payload)
            except BrokenExecutor as error:  # a worker died before it got anything to do
                future = Future()
                future.set_exception(error)
        return future

    def finished(self, futures: Collection[Future[bytes]]) -> list[Future[bytes]]:
        done, _ = wait(futures, return_when=FIRST_COMPLETED)
        if not any(isinstance(future.exception(), BrokenExecutor) for future in done):
            return list(done)
        wait(futures, timeout=GRACE_S)
        self.close(kill=True)
        return list(futures)

    def result(self, future: Future[bytes]) -> bytes:
        try:
            return future.result(timeout=0)
        except (BrokenExecutor, CancelledError, TimeoutError) as error:
            raise WorkerDiedError from error

    def stop(self, futures: Collection[Future[bytes]]) -> None:
        for pid in list(getattr(self._executor, "_processes", None) or ()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        wait(futures, timeout=GRACE_S)
        self.close(kill=True)

    def close(self, *, kill: bool) -> None:
        """End the processes: when they have nothing to do, or by force."""
        with sigint_held():
            executor, self._executor = self._executor, None
            if executor is not None:
                executor.shutdown(wait=True, kill_workers=kill)


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[_Pool]:
    """Yield a pool whose processes end with the block."""
    from multiprocessing import resource_tracker

    # Python before 3.12 unblocks SIGINT when it starts this helper, so it must not be started while
    # `submit` holds the signal.
    resource_tracker.ensure_running()
    pool = _Pool(workers)
    try:
        yield pool
    except BaseException:
        with sigint_held():
            pool.stop(())
        raise
    pool.close(kill=False)


class _Stopped(BaseException):
    """Unwinds a job that is to end now."""


def _work(payload: bytes) -> bytes:
    """Run one job in a worker. SIGTERM ends it, and means nothing to a worker that is idle."""
    try:
        signal.signal(signal.SIGTERM, _raise_stopped)
        return work(payload)
    except _Stopped:
        remove_live()
        raise WorkerDiedError from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _raise_stopped(signum: int, frame: FrameType | None) -> None:
    if deferred(signum):
        return
    # Once is enough: a second one must not break the unwinding.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Stopped


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)
