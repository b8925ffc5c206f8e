"""Metadata of many datasets in stores, read in two rounds rather than file after file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from opentau_prep.errors import PrepError
from opentau_prep.metadata import v2
from opentau_prep.metadata.info import INFO
from opentau_prep.metadata.paths import EPISODES_DIR, V3_TASKS
from opentau_prep.metadata.statsread import STATS
from opentau_prep.storage import is_remote, open_storage
from opentau_prep.storage.look import current_look
from opentau_prep.storage.remote import RemoteStorage

__all__ = ["read_ahead"]

# Requests that wait for an answer cost next to nothing, but each connection costs a handshake.
_MOST_AT_ONCE = 32
_FILES = (INFO, STATS, v2.EPISODES, v2.EPISODES_STATS, v2.TASKS, V3_TASKS)


def read_ahead(roots: Iterable[str | os.PathLike[str]]) -> None:
    """Read the listings and small tables of datasets in stores, many at once.

    Only within a run (`storage.look.one_look`), which remembers them, and each root once. Faults
    are left to whoever asks for the file.

    Args:
        roots: Datasets; folders of this machine are passed over.
    """
    look = current_look()
    if look is None:
        return
    storages = []
    for root in dict.fromkeys(os.fspath(root) for root in roots):
        with contextlib.suppress(PrepError):
            if is_remote(root) and root not in look.storages:
                storage = open_storage(root)
                if isinstance(storage, RemoteStorage) and storage.connect():
                    storages.append(storage)
    if not storages:
        return
    folders = [(storage, top) for storage in storages for top in ("meta", "data")]
    pool = ThreadPoolExecutor(min(_MOST_AT_ONCE, len(folders)))
    try:
        _all(pool, (_list(storage, top) for storage, top in folders))
        _all(pool, (_tables(storage) for storage in storages))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _all(pool: ThreadPoolExecutor, tasks: Iterable[Callable[[], object]]) -> None:
    for done in [pool.submit(task) for task in tasks]:
        with contextlib.suppress(PrepError):
            done.result()


def _list(storage: RemoteStorage, top: str) -> Callable[[], object]:
    return lambda: storage.list_files(top)


def _tables(storage: RemoteStorage) -> Callable[[], object]:
    def read() -> None:
        episodes = storage.list_files(EPISODES_DIR, ".parquet")
        storage.read_ahead([*_FILES, *episodes])

    return read
