"""The marker of a dataset some of whose files are new and some old; see `together`."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.errors import MetadataError
from opentau_prep.notices import warn
from opentau_prep.storage.look import current_look, folder_names
from opentau_prep.storage.urls import shell_command

__all__ = [
    "MARKER",
    "finish_update",
    "has_marker",
    "sha256_at",
    "unfinished_update",
    "warn_of_update",
]

MARKER = "prep/updating.json"
"""Where the marker is, below `meta/`."""


def unfinished_update(meta: Path) -> list[str]:
    """Return which files below `meta` are not yet what a running or killed update makes of them.

    Empty when there is no marker, or when all of them are.
    """
    try:
        record = load_own((meta / MARKER).read_bytes(), where=MARKER)
        files = dict(record["files"])
    except (OSError, NotADirectoryError):
        return []
    except (MetadataError, KeyError, TypeError, ValueError):
        return [MARKER]
    return [rel for rel, digest in files.items() if sha256_at(meta / rel) != digest]


def warn_of_update(meta: Path, dataset: str) -> None:
    """Warn a reader of a dataset some of whose files are new and some old."""
    if has_marker(meta):
        files = unfinished_update(meta)
        if files:
            warn(
                "being_updated",
                f"{meta.parent} is being updated, or an update was interrupted ({len(files)} files"
                f" are old yet). If none is running: `{shell_command('stats', [meta.parent])}`",
                dataset=dataset,
            )


def has_marker(meta: Path) -> bool:
    """Return whether a marker is there; within a run by the listings that it makes anyway."""
    if current_look() is None:
        return os.path.lexists(f"{meta}/{MARKER}")
    folder, _, name = MARKER.partition("/")
    return folder in folder_names(meta) and name in folder_names(meta / folder)


def finish_update(meta: Path) -> None:
    """Remove the marker of an update that was killed after its last file."""
    if os.path.lexists(meta / MARKER) and not unfinished_update(meta):
        with contextlib.suppress(OSError):
            (meta / MARKER).unlink()


def sha256_at(path: Path) -> str:
    """Return the hash of a file's content in hex, "" where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
