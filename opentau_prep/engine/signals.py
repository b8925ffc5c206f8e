"""Signals while workers run: one way to be interrupted, and blocks that are not."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["TooLate", "at_most", "sigint_held", "sigterm_interrupts"]


@contextlib.contextmanager
def sigint_held() -> Iterator[None]:
    """Keep SIGINT of this thread waiting until the block is done.

    Threads and processes started in the block inherit the mask for good: Ctrl-C goes to the whole
    process group, and only the caller is to act on it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, unless somebody else handles it already."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class TooLate(BaseException):
    """Ends a wait; no `Exception`, which a package may take for a reason to try again."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `TooLate` in the block when it takes longer, where signals can do that."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGALRM, _raise_too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _raise_too_late(signum: int, frame: FrameType | None) -> None:
    raise TooLate
