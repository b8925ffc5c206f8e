"""Whether a dataset's frames are parquet files."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from opentau_prep.errors import MetadataError, PrepError

if TYPE_CHECKING:
    from opentau_prep.metadata.dataset import DatasetMetadata

__all__ = ["check_parquet", "other_storage"]


def other_storage(meta: DatasetMetadata) -> str | None:
    """Return the storage that holds the frames in place of parquet files: `lance`."""
    declared = meta.info.get("storage_format")
    if isinstance(declared, str) and declared.lower() not in ("", "parquet"):
        return declared
    # Looked for only where frames are missing: listing a whole dataset is not free in a store.
    with contextlib.suppress(PrepError):
        paths = meta.data_paths
        if not (paths and meta.storage.exists(paths[0])):
            tables = (meta.storage.list_files(f"{top}frames.lance") for top in ("", "data/"))
            return "lance" if any(tables) else None
    return None


def check_parquet(meta: DatasetMetadata) -> None:
    """Raise a `MetadataError` where the frames are no parquet files."""
    # In a store, what info.json does not declare is not worth a request for each dataset.
    here = meta.storage.folder is not None or "storage_format" in meta.info
    storage = other_storage(meta) if here else None
    if storage is not None:
        raise MetadataError(
            f"frames are stored as {storage[:40]!r}, not as parquet files",
            where=meta.info_path,
            hint="Export the dataset as parquet with the tool that wrote it.",
        )
