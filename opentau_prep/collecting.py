"""Pauses of Python's garbage collector, for work that makes many objects and no cycles."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["paused_collection"]


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """Keep the garbage collector from running in the block, as it was before after it.

    What is parsed holds no cycles, but makes so many objects that the collector would walk through
    all of them again and again: a third of the time of reading a big file.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
