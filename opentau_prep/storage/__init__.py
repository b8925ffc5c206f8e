"""Where bytes come from: every path of a dataset goes through one small layer."""

from opentau_prep.storage.base import Storage
from opentau_prep.storage.local import LocalStorage, open_storage

__all__ = ["LocalStorage", "Storage", "open_storage"]
