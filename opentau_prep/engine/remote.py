"""What cluster engines share: jobs as bytes, a bounded number of them at once, clean stops.

A cluster engine is a `Pool`; `drain` is the loop around it. What travels is plain bytes, so that
whatever cannot be pickled, there or back, is the failure of one job.
"""

from __future__ import annotations

import abc
import contextlib
import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

from opentau_prep.engine.jobs import Done, Job, died, perform, unexpected
from opentau_prep.engine.local import LocalEngine, default_workers
from opentau_prep.engine.signals import sigint_held, sigterm_interrupts
from opentau_prep.errors import EngineError
from opentau_prep.extras import optional_package

__all__ = [
    "CONNECT_S",
    "PROBE",
    "START_S",
    "ClusterEngine",
    "Pool",
    "WorkerDiedError",
    "check_workers",
    "drain",
    "engine_package",
    "variables",
    "work",
]

CONNECT_S = 5.0
"""How long a cluster may take to answer."""
START_S = 30.0
"""How long workers may take to start, or to come back."""

PROBE = "[*__import__('sys').version_info[:2], __import__('opentau_prep').__version__]"
"""What a worker evaluates to say its versions. Text: another Python could not read our bytecode."""


class WorkerDiedError(Exception):
    """The worker of a job died; the job may be the reason, or not."""


class Pool(Protocol):
    """Something that runs `work` elsewhere."""

    def slots(self) -> int:
        """Return how many jobs may be handed out at once."""

    def submit(self, payload: bytes) -> Any:
        """Hand out `work(payload)`; return something hashable to ask about it."""

    def finished(self, futures: Collection[Any]) -> list[Any]:
        """Return those that are finished, after waiting for one; none when it takes long.

        Raises:
            EngineError: There is nobody left to finish them.
        """

    def result(self, future: Any) -> bytes:
        """Return the result of a finished one, or raise what it raised, or `WorkerDiedError`."""

    def stop(self, futures: Collection[Any]) -> None:
        """End these jobs, running or not, and return when they have ended, or soon after."""


class ClusterEngine(abc.ABC):
    """An engine that runs jobs in a cluster: your own, or one started for the run.

    Args:
        address: Where yours is.
        workers: How many jobs run at once at most.
    """

    def __init__(self, address: str | None, workers: int | None) -> None:
        self.address = address
        self.workers = workers

    @abc.abstractmethod
    def pool(self, processes: int) -> contextlib.AbstractContextManager[Pool]:
        """Return the cluster for the length of a run, in a context.

        Args:
            processes: How many a cluster that is started for the run has.

        Raises:
            EngineError: There is no such cluster, or it is not fit for the run.
        """

    def run(
        self, fn: Callable[[Any], Any], jobs: Sequence[Job], *, keep_going: bool
    ) -> Generator[tuple[int, Done], None, None]:
        """Yield each job's index and outcome as it finishes; see `Engine.run` and `drain`.

        No cluster is started for what one process can do as well.
        """
        processes = min(self.workers or default_workers(), len(jobs))
        if not jobs or (self.address is None and processes <= 1):
            yield from LocalEngine(1).run(fn, jobs, keep_going=keep_going)
            return
        with sigterm_interrupts(), self.pool(processes) as pool:
            yield from drain(pool, fn, jobs, keep_going=keep_going)


def engine_package(name: str, *, engine: str) -> Any:
    """Return a package that only one engine needs; see `optional_package`."""
    return optional_package(name, extra=engine, what=f"the {engine} engine", where="--engine")


@contextlib.contextmanager
def variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables for the block (None: leave as it is), and put them back after."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def check_workers(answers: Mapping[str, Any]) -> None:
    """Check what workers answered to `PROBE`: its value, or the error that it raised.

    Raises:
        EngineError: A worker has another Python or opentau-prep than this process, or none.
    """
    here = eval(PROBE)
    for worker, found in answers.items():
        if isinstance(found, BaseException):
            message = f"the worker cannot import opentau_prep ({found})"
        elif list(found) != here:
            message = f"the worker runs {_versions(found)}, and this process {_versions(here)}"
        else:
            continue
        raise EngineError(message, where=worker, hint="Install the same versions everywhere.")


def _versions(found: Sequence[Any]) -> str:
    return f"Python {found[0]}.{found[1]} with opentau-prep {found[2]}"


def drain(
    pool: Pool, fn: Callable[[Any], Any], jobs: Sequence[Job], *, keep_going: bool
) -> Generator[tuple[int, Done], None, None]:
    """Yield each job's index and outcome as it finishes; see `Engine.run`.

    With `keep_going`, the jobs whose worker died are run again, one at a time, so that only the one
    that kills its worker fails.
    """
    suspects = yield from _round(pool, fn, jobs, keep_going=keep_going)
    if suspects and not keep_going:
        yield suspects[0].index, died(suspects)
        return
    for job in suspects:
        if (yield from _round(pool, fn, [job], keep_going=True)):
            yield job.index, died([job])


def _round(
    pool: Pool, fn: Callable[[Any], Any], jobs: Sequence[Job], *, keep_going: bool
) -> Generator[tuple[int, Done], None, list[Job]]:
    """Run jobs; return those whose worker died, the first such ones only if not `keep_going`."""
    queue, pending, suspects = deque(jobs), dict[Any, Job](), list[Job]()
    try:
        while queue or pending:
            yield from _hand_out(pool, fn, queue, pending)
            for future in pool.finished(pending) if pending else ():
                job = pending.pop(future)
                done = _outcome(pool, future, job)
                if done is None:
                    suspects.append(job)
                else:
                    yield job.index, done
            if suspects and not keep_going:
                break
    finally:
        if pending:
            with sigint_held():
                pool.stop(pending)
    return sorted(suspects, key=lambda job: job.index)


def _hand_out(
    pool: Pool, fn: Callable[[Any], Any], queue: deque[Job], pending: dict[Any, Job]
) -> Generator[tuple[int, Done], None, None]:
    """Fill the pool from the queue; yield the jobs that cannot be pickled."""
    import cloudpickle

    for _ in range(min(len(queue), pool.slots() - len(pending))):
        job = queue.popleft()
        try:
            payload: bytes = cloudpickle.dumps((fn, job))
        except Exception as error:  # noqa: BLE001 - pickling runs code of any object
            yield job.index, Done(failure=unexpected(job, error, str(error)))
            continue
        pending[pool.submit(payload)] = job


def _outcome(pool: Pool, future: Any, job: Job) -> Done | None:
    import cloudpickle

    try:
        done: Done = cloudpickle.loads(pool.result(future))
    except WorkerDiedError:
        return None
    except EngineError:
        raise
    except Exception as error:  # noqa: BLE001 - `perform` lets none through: the way is at fault
        return Done(failure=unexpected(job, error, str(error)))
    return done


def work(payload: bytes) -> bytes:
    """Run a job in a worker: pickled function and job to pickled outcome."""
    import cloudpickle

    fn, job = cloudpickle.loads(payload)
    with _one_thread():
        result: bytes = cloudpickle.dumps(perform(fn, job))
    return result


def _one_thread() -> contextlib.AbstractContextManager[Any]:
    """Limit numeric libraries to one thread, in workers that were not started so."""
    if os.environ.get("OMP_NUM_THREADS") == "1":
        return contextlib.nullcontext()
    from threadpoolctl import threadpool_limits

    limits: contextlib.AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits
