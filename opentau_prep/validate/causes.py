"""The one true cause: faults that leave every other rule with nothing but their consequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentau_prep.errors import PrepError
from opentau_prep.metadata.info import as_integer, parse_version

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["is_aborted", "is_foreign", "only_cause", "other_storage"]

# An info.json with none of these was not written by any version of LeRobot.
_OWN_FIELDS = ("features", "data_path", "total_episodes", "total_frames", "fps", "chunks_size")
_VERSIONS = ((2, 0), (2, 1), (3, 0))


def only_cause(view: DatasetView) -> str | None:
    """Return the code of the rule that alone applies to a dataset; None when all of them do."""
    if view.info is None:
        return "F001"
    if is_foreign(view):
        return "F002"
    if other_storage(view) is not None:
        return "F017"
    if view.episodes is not None and not len(view.episodes):
        return "E002"
    return "E002" if is_aborted(view) else None


def is_foreign(view: DatasetView) -> bool:
    """Tell whether info.json is another program's altogether."""
    info = view.info
    if info is None or parse_version(info) in _VERSIONS:
        return False
    features = info.get("features")
    own = [name for name in _OWN_FIELDS if name in info and name != "features"]
    return len(own) < 2 and not (isinstance(features, Mapping) and features)


def other_storage(view: DatasetView) -> str | None:
    """Return the storage that holds the frames in the place of parquet files: `lance`."""
    declared = (view.info or {}).get("storage_format")
    if isinstance(declared, str) and declared.lower() not in ("", "parquet"):
        return declared
    # Looked for only where frames are missing: listing a whole dataset is not free in a store.
    if view.data_paths and view.storage.exists(view.data_paths[0]):
        return None
    try:
        tables = any(view.storage.list_files(f"{folder}frames.lance") for folder in ("", "data/"))
    except PrepError:
        return None
    return "lance" if tables else None


def is_aborted(view: DatasetView) -> bool:
    """Tell whether a recorder wrote info.json and ended before it saved an episode."""
    if view.info is None or view.episodes is not None:
        return False
    if as_integer(view.info.get("total_episodes", 0)) != 0:
        return False
    try:
        return not view.storage.list_files("data", ".parquet")
    except PrepError:
        return False
