"""The fingerprint of a dataset: what an artifact's provenance says it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.fingerprint import stored_inputs
from opentau_prep.storage.look import absolute, made_once

if TYPE_CHECKING:
    from opentau_prep.metadata.dataset import DatasetMetadata

__all__ = ["describe_inputs"]


def describe_inputs(
    meta: DatasetMetadata, *, data: bool = True, read: bool = True
) -> dict[str, Any]:
    """Return the fingerprint of a dataset's content.

    The tables are taken by meaning, not by bytes: adding stats columns to the episodes table does
    not change them. Data files are taken by their bytes, hashed once and remembered; in
    a store, by what that reports of their content.

    Args:
        meta: The dataset.
        data: Whether the frames belong to it, or the tables alone.
        read: Whether data files may be read to hash them; if not, and their hashes are not
            remembered, `data` has only `files` and `bytes`: compare it with a partial `Recipe`.

    Returns:
        JSON-ready: `episodes` (count, frames, sha256), `tasks` (count, sha256), and `data` (files,
        bytes, sha256, up to 1,000 files also the hash of each).

    Raises:
        MetadataError: A table is missing or malformed.
        DataError: A data file is there but cannot be read.
    """
    key = (
        "inputs",
        absolute(meta.root) if meta.storage.folder is not None else meta.root,
        data,
        read,
    )
    return dict(made_once(key, lambda: _describe(meta, data=data, read=read)))


def _describe(meta: DatasetMetadata, *, data: bool, read: bool) -> dict[str, Any]:
    table = meta.episodes
    tasks = meta.tasks
    rows = zip(table.episode_index.tolist(), table.length.tolist(), table.tasks, strict=True)
    found: dict[str, Any] = {
        "episodes": {"count": len(table), "frames": table.total_frames, "sha256": _hash(rows)},
        "tasks": {"count": len(tasks), "sha256": _hash(tasks.items())},
    }
    if data:
        files = list(dict.fromkeys(meta.data_paths))
        found["data"] = stored_inputs(meta.storage, files, read=read)
    return found


def _hash(rows: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode("ascii") + b"\n")
    return digest.hexdigest()
