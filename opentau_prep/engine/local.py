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
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from types import FrameType
from typing import Any

from opentau_prep.artifacts.tempfiles import remove_live
from opentau_prep.engine.jobs import Done, Failure, Job, died, perform, unexpected
from opentau_prep.engine.signals import sigint_held, sigterm_interrupts
from opentau_prep.errors import EngineError
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

_Drained = Generator[tuple[int, Done], None, list[Job]]


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
        """Yield each job's index and outcome as it finishes; see `Engine.run`.

        With `keep_going`, the jobs that were running when a worker died are run again, one at a
        time, so that only the one that kills its worker fails.
        """
        with sigterm_interrupts():
            workers = min(self.workers, len(jobs))
            if workers <= 1:
                for job in jobs:
                    yield job.index, perform(fn, job)
                return
            queue = deque(jobs)
            while queue:
                suspects = yield from _drain(fn, queue, workers)
                if suspects and not keep_going:
                    yield suspects[0].index, died(suspects)
                    return
                for job in suspects:
                    if (yield from _drain(fn, deque([job]), 1)):
                        yield job.index, died([job])


def _drain(fn: Callable[[Any], Any], queue: deque[Job], workers: int) -> _Drained:
    """Run the queue's jobs; return those that ran when a worker died, the others still queued."""
    pending: dict[Future[Done], Job] = {}
    with _pool(workers, pending) as submit:
        while queue or pending:
            while queue and len(pending) < workers:
                job = queue.popleft()
                try:
                    pending[submit(_work, fn, job)] = job
                except BrokenExecutor:  # a worker died before it got anything to do
                    pending[_broken()] = job
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            if any(isinstance(future.exception(), BrokenExecutor) for future in finished):
                return (yield from _after_break(pending))
            for future in finished:
                yield pending[future].index, _outcome(future, pending[future])
                del pending[future]
    return []


def _broken() -> Future[Done]:
    future: Future[Done] = Future()
    future.set_exception(BrokenExecutor())
    return future


def _after_break(pending: dict[Future[Done], Job]) -> _Drained:
    suspects = []
    wait(pending, timeout=GRACE_S)
    for future, job in pending.items():
        if future.done() and not isinstance(future.exception(), BrokenExecutor):
            yield job.index, _outcome(future, job)
        else:
            suspects.append(job)
    return sorted(suspects, key=lambda job: job.index)


def _outcome(future: Future[Done], job: Job) -> Done:
    error = future.exception()
    # `perform` lets nothing through, so this is the way there or back: something cannot be pickled.
    return future.result() if error is None else Done(failure=unexpected(job, error, str(error)))


@contextlib.contextmanager
def _pool(workers: int, pending: dict[Future[Done], Job]) -> Iterator[Callable[..., Future[Done]]]:
    """Yield the `submit` of a new pool, whose workers end with the block, if need be by force."""
    from multiprocessing import resource_tracker

    from joblib.externals.loky import ProcessPoolExecutor

    # Python before 3.12 unblocks SIGINT when it starts this helper, so it must not be started while
    # `submit` holds the signal.
    resource_tracker.ensure_running()
    pool = ProcessPoolExecutor(
        workers, initializer=_start_worker, initargs=(os.getpid(),), env=WORKER_ENV
    )

    def submit(*args: Any) -> Future[Done]:
        # Workers are started here and inherit the mask: Ctrl-C goes to the whole process group, and
        # only this process is to act on it, also while a worker is still importing.
        with sigint_held():
            future: Future[Done] = pool.submit(*args)
            return future

    try:
        yield submit
    except BaseException:
        with sigint_held():
            _stop(pool, pending)
        raise
    with sigint_held():
        pool.shutdown(wait=True, kill_workers=bool(pending))


def _stop(pool: Any, pending: dict[Future[Done], Job]) -> None:
    for pid in list(getattr(pool, "_processes", None) or ()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    wait(pending, timeout=GRACE_S)
    pool.shutdown(wait=True, kill_workers=True)


class _Stopped(BaseException):
    """Unwinds a job that is to end now."""


def _work(fn: Callable[[Any], Any], job: Job) -> Done:
    """Run one job in a worker. SIGTERM ends it, and means nothing to a worker that is idle."""
    try:
        signal.signal(signal.SIGTERM, _raise_stopped)
        return perform(fn, job)
    except _Stopped:
        remove_live()
        return Done(failure=Failure(job.label, EngineError("was stopped", where=job.label)))
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
