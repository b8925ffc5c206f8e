"""The one loop around workers, in processes of this machine or in a cluster.

Each engine is a `Pool`; `drain` hands its jobs out. What travels is plain bytes, so that whatever
cannot be pickled, there or back, is the failure of one job.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, Protocol

from opentau_prep.engine.jobs import Done, Job, died, perform, unexpected
from opentau_prep.engine.signals import sigint_held
from opentau_prep.errors import EngineError

__all__ = ["Pool", "WorkerDiedError", "drain", "work"]


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
