"""Listings of many datasets in stores, asked for at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from opentau_prep.errors import PrepError
from opentau_prep.storage.choose import open_storage
from opentau_prep.storage.remote import RemoteStorage
from opentau_prep.storage.urls import is_remote

__all__ = ["all_at_once", "list_together"]

# Requests that wait for an answer cost next to nothing, but each connection costs a handshake.
_MOST_AT_ONCE = 32


def list_together(
    roots: Iterable[str | os.PathLike[str]], tops: Sequence[str]
) -> list[RemoteStorage]:
    """Return the datasets among some roots that lie in stores, each top folder listed once.

    Faults are left to whoever asks for a file, as are stores that answer one request at a time.
    """
    storages = []
    for root in dict.fromkeys(os.fspath(root) for root in roots):
        with contextlib.suppress(PrepError):
            storage = open_storage(root) if is_remote(root) else None
            # In this thread: drivers keep one connection per thread.
            if isinstance(storage, RemoteStorage) and storage.connect():
                storages.append(storage)
    all_at_once(partial(storage.list_files, top) for storage in storages for top in tops)
    return storages


def all_at_once(tasks: Iterable[Callable[[], object]]) -> None:
    """Carry out requests in threads; those that fail are left."""
    pool = ThreadPoolExecutor(_MOST_AT_ONCE)
    try:
        for done in [pool.submit(task) for task in tasks]:
            with contextlib.suppress(PrepError):
                done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
