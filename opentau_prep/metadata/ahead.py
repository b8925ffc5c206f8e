"""Metadata of many datasets in stores, read in two rounds rather than file after file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial

from opentau_prep.metadata import v2
from opentau_prep.metadata.info import INFO
from opentau_prep.metadata.paths import EPISODES_DIR, V3_TASKS
from opentau_prep.metadata.statsread import STATS
from opentau_prep.storage import is_remote
from opentau_prep.storage.listings import all_at_once, list_together
from opentau_prep.storage.look import current_look
from opentau_prep.storage.remote import RemoteStorage

__all__ = ["read_ahead"]

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
    new = {os.fspath(root) for root in roots if is_remote(root)} - look.read_ahead
    if new:
        look.read_ahead |= new
        storages = list_together(sorted(new), ("meta", "data"))
        all_at_once(partial(_read_tables, storage) for storage in storages)


def _read_tables(storage: RemoteStorage) -> None:
    storage.read_ahead([*_FILES, *storage.list_files(EPISODES_DIR, ".parquet")])
