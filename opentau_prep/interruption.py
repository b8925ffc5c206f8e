"""SIGINT and SIGTERM: one way to be interrupted, and blocks that are not.

The command line takes both signals for the whole process (`install`). Until a command's body runs,
nothing has been written, and a signal ends the process at once; in the body it raises
KeyboardInterrupt, so that everything unwinds. Blocks in which files change places hold signals back
(`signals_held`): they are short, and half of them would be worse than none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

__all__ = [
    "INTERRUPTED",
    "Terminated",
    "deferred",
    "exit_code",
    "ignore_signals",
    "install",
    "interrupt",
    "interruptible",
    "signals_held",
]

INTERRUPTED = "Interrupted: nothing half-written is left behind."

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM: what SLURM and Kubernetes send before they kill."""


class _State:
    """What a handler needs to know; only the main thread writes it, where handlers run."""

    raises = False
    held = 0
    waiting: int | None = None  # came while signals were held
    came: int | None = None  # came at all, since the block of `interruptible` began


def install() -> None:
    """Handle SIGINT and SIGTERM in this process; one that is ignored (`nohup`) stays ignored."""
    for each in _SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, interrupt)
    sys.unraisablehook = _not_lost


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Handle a signal: raise in a command's body, wait while signals are held, else end at once."""
    del frame
    if not _State.raises:
        _quit(signum)
    _State.came = signum
    if not deferred(signum):
        _raise(signum)


def deferred(signum: int) -> bool:
    """Return whether signals are held; then the signal is raised again when they no longer are."""
    if _State.held:
        _State.waiting = signum
    return _State.held > 0


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let signals raise KeyboardInterrupt in the block; `exit_code` says which it was."""
    before, _State.raises, _State.came = _State.raises, True, None
    try:
        yield
        # One that was swallowed (in a callback of a C library) still counts.
        if _State.came is not None:
            _raise(_State.came)
    finally:
        _State.raises = before


class signals_held:  # noqa: N801 - used like a function
    """Keep the handlers of `install` and of workers waiting until the block is done.

    Elsewhere (a library call under Python's own handler) it does nothing.
    """

    def __enter__(self) -> None:
        self._here = threading.current_thread() is threading.main_thread()
        if self._here:
            _State.held += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._here:
            _State.held -= 1
            if _State.waiting is not None and not _State.held:
                signum, _State.waiting = _State.waiting, None
                signal.raise_signal(signum)  # as whoever handles it now likes


def ignore_signals() -> None:
    """Ignore both signals from now on: what is left to do is to clean up and end."""
    if threading.current_thread() is threading.main_thread():
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)


def exit_code(error: KeyboardInterrupt) -> int:
    """Return 143 for SIGTERM and 130 for SIGINT, as shells report them."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def _raise(signum: int) -> NoReturn:
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


def _quit(signum: int) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + signum)


def _not_lost(unraisable: Any) -> None:
    """Raise an interruption again that came while Python ran a finalizer, where it is dropped."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        terminated = isinstance(unraisable.exc_value, Terminated)
        signal.raise_signal(signal.SIGTERM if terminated else signal.SIGINT)
    else:
        sys.__unraisablehook__(unraisable)
