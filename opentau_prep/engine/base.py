"""Map a function over datasets: what every engine promises, whatever runs the work.

An engine only schedules. Order, notices, failures and progress are settled here, once: results come
in the order of the items, a worker's notices come from the caller's process in that order too,
and an error either stops everything or becomes a value.

A cluster engine is a class with the one method of `Engine`, and a line in `choose.get_engine`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

from opentau_prep import notices
from opentau_prep.engine.jobs import Done, Failure, Job
from opentau_prep.errors import PrepError
from opentau_prep.storage.look import forget

__all__ = ["Engine", "Failure", "map_ordered"]

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Something that can run jobs."""

    def run(
        self, fn: Callable[[Any], Any], jobs: Sequence[Job], *, keep_going: bool
    ) -> Generator[tuple[int, Done], None, None]:
        """Yield each job's index and `perform(fn, job)`, in any order; closing it stops the rest.

        Args:
            fn: The function; must be picklable (cloudpickle) for engines that use processes.
            jobs: The jobs.
            keep_going: Whether jobs should still be run after one took its worker down.
        """


def map_ordered(
    fn: Callable[[T], R],
    items: Sequence[T],
    *,
    labels: Sequence[str],
    engine: Engine,
    keep_going: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[R | Failure]:
    """Return `fn(item)` for every item, in order, whichever finishes first.

    Args:
        fn: The function; it and its results must be picklable.
        items: Its arguments.
        labels: The items' names, for messages; as many as items.
        engine: Who runs it; see `choose.get_engine`.
        keep_going: Whether a failed item becomes a `Failure` in the result rather than an
            exception.
        on_progress: Called after each item with (how many are done, how many there are, its label).

    Raises:
        PrepError: Without `keep_going`, the first error, its `where` naming the item; what was
            running is stopped at once. A fault of the tool, or a worker that died, is an
            `EngineError`.
        KeyboardInterrupt: SIGINT or SIGTERM; the workers are gone by then.
    """
    jobs = [Job(i, *pair) for i, pair in enumerate(zip(labels, items, strict=True))]
    results: dict[int, Done] = {}
    replay = _Replay(results)
    with contextlib.closing(engine.run(fn, jobs, keep_going=keep_going)) as running:
        for index, done in running:
            results[index] = done
            for path in done.written:
                forget(path)
            replay.said_so_far()
            if done.failure is not None and not keep_going:
                running.close()
                replay.everything()
                raise _labelled(done.failure)
            if on_progress is not None:
                on_progress(len(results), len(jobs), jobs[index].label)
    ordered = [results[index] for index in range(len(jobs))]
    return [done.value if done.failure is None else done.failure for done in ordered]


class _Replay:
    """Says the notices of finished jobs in the order of the jobs, each once."""

    def __init__(self, results: dict[int, Done]) -> None:
        self._results = results
        self._next = 0

    def said_so_far(self) -> None:
        while self._next in self._results:
            self._emit(self._next)
            self._next += 1

    def everything(self) -> None:
        for index in sorted(index for index in self._results if index >= self._next):
            self._emit(index)

    def _emit(self, index: int) -> None:
        for notice in self._results[index].notices:
            notices.emit(notice)


def _labelled(failure: Failure) -> PrepError:
    """Return the failure's error, its place led by the item's name if it is not in there."""
    error = copy.copy(failure.error)
    if failure.label not in str(error):
        error.where = f"{failure.label}: {error.where}" if error.where else failure.label
    return error
