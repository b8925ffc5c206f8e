"""Which storage a root is read with."""

from __future__ import annotations

import os

from opentau_prep.errors import ConfigError
from opentau_prep.storage.base import Storage
from opentau_prep.storage.local import LocalStorage
from opentau_prep.storage.look import current_look
from opentau_prep.storage.urls import refuse_secrets, scheme_of

__all__ = ["open_storage"]


def open_storage(root: str | os.PathLike[str]) -> Storage:
    """Return the storage of a root; nothing is opened yet.

    Args:
        root: A folder's path, `file://` in front of one, or the URL of a folder in a store that
            fsspec has a driver for (`s3://`, `gs://`, `hf://datasets/`, ...).

    Raises:
        ConfigError: The root is no path and no usable URL, or its store is not known.
        EngineError: The package that reads such URLs is not installed.
    """
    text = os.fspath(root)
    try:
        usable = "\0" not in text and bool(os.fsencode(text))
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise ConfigError(f"{text!r} cannot be a folder's name", hint="Correct the root.")
    scheme = scheme_of(text)
    if scheme is None:
        return LocalStorage(root)
    if scheme == "file":
        refuse_secrets(text)  # as a path, what is before the @ would be shown
        return LocalStorage(text[len("file://") :])
    from opentau_prep.storage.remote import RemoteStorage

    look, storage = current_look(), RemoteStorage(text)
    return storage if look is None else look.storages.setdefault(storage.url, storage)
