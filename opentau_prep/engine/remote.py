"""What cluster engines share: when a cluster is used at all, and whether its workers are fit."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from opentau_prep.engine.jobs import Done, Job
from opentau_prep.engine.local import LocalEngine, default_workers
from opentau_prep.engine.loop import Pool, drain
from opentau_prep.engine.signals import sigterm_interrupts
from opentau_prep.errors import EngineError
from opentau_prep.extras import optional_package

__all__ = [
    "CONNECT_S",
    "PROBE",
    "START_S",
    "ClusterEngine",
    "check_workers",
    "engine_package",
    "variables",
]

CONNECT_S = 5.0
"""How long a cluster may take to answer."""
START_S = 30.0
"""How long workers may take to start, or to come back."""

PROBE = "[*__import__('sys').version_info[:2], __import__('opentau_prep').__version__]"
"""What a worker evaluates to say its versions. Text: another Python could not read our bytecode."""


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
