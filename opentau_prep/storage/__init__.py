"""Where bytes come from: every path of a dataset goes through one small layer."""

from opentau_prep.storage.base import Storage
from opentau_prep.storage.choose import open_storage
from opentau_prep.storage.local import LocalStorage
from opentau_prep.storage.urls import is_remote, safe_url

__all__ = ["LocalStorage", "Storage", "is_remote", "open_storage", "safe_url"]
