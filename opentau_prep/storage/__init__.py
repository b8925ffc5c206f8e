"""Where bytes come from: every path of a dataset goes through one small layer."""

from opentau_prep.storage.base import Storage
from opentau_prep.storage.choose import open_storage
from opentau_prep.storage.local import LocalStorage
from opentau_prep.storage.urls import (
    absolute_root,
    command_at,
    is_remote,
    safe_url,
    shell_command,
)

__all__ = [
    "LocalStorage",
    "Storage",
    "absolute_root",
    "command_at",
    "is_remote",
    "open_storage",
    "safe_url",
    "shell_command",
]
