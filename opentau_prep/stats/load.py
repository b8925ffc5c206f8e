"""Reading the sketches that `stats` left with a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.artifacts.catalog import CATALOG
from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.artifacts.place import Location, StoredFile, dataset_place
from opentau_prep.errors import DataError, MetadataError
from opentau_prep.stats.sketch import QuantileSketch, decode_sketches
from opentau_prep.storage import is_remote, open_storage
from opentau_prep.storage.look import file_bytes
from opentau_prep.storage.urls import command_at

if TYPE_CHECKING:
    from opentau_prep.metadata.dataset import DatasetMetadata

__all__ = ["decode_sketch_file", "load_sketches"]


def _again(where: str) -> str:
    return f"Recompute it: `{command_at('stats', where, '--force')}`."


def load_sketches(
    dataset: DatasetMetadata | str | os.PathLike[str],
    *,
    name: str | None = None,
    artifact_root: Path | None = None,
) -> dict[str, QuantileSketch] | None:
    """Return column -> sketch of the whole dataset's frames; None when there is no file.

    Args:
        dataset: The dataset, its root, or the sketch file itself.
        name: The dataset's name below `artifact_root`; by default its repo id or folder.
        artifact_root: Where artifacts lie when not in the dataset; that is looked at next.

    Raises:
        MetadataError: The file cannot be read, or is damaged.
    """
    candidates: list[Location]
    if (
        isinstance(dataset, str | os.PathLike)
        and not is_remote(dataset)
        and Path(dataset).is_file()
    ):
        candidates = [Path(dataset)]
    else:
        candidates = _candidates(dataset, name, artifact_root)
    for path in candidates:
        try:
            return decode_sketch_file(
                file_bytes(path) if isinstance(path, Path) else path.read_bytes(), str(path)
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise MetadataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    return None


def _candidates(
    dataset: DatasetMetadata | str | os.PathLike[str], name: str | None, artifact_root: Path | None
) -> list[Location]:
    if isinstance(dataset, str | os.PathLike):
        storage, called = open_storage(dataset), name
    else:
        storage, called = dataset.storage, name or dataset.repo_id
    if artifact_root is None and storage.folder is None:
        return [StoredFile(storage, str(CATALOG["quantile_sketch"].path()))]
    place = dataset_place("quantile_sketch", storage, dataset=called, artifact_root=artifact_root)
    return [place.path, *(place.fallback[:1] if place.fallback else ())]


def decode_sketch_file(data: bytes, where: str) -> dict[str, QuantileSketch]:
    """Return column -> sketch from a sketch file's bytes.

    Raises:
        MetadataError: They are damaged.
    """
    document = load_own(data, where=where)
    if not isinstance(document, Mapping):
        raise MetadataError("holds no sketches", where=where, hint=_again(where))
    try:
        return decode_sketches(document)
    except DataError as error:
        raise MetadataError(error.message, where=where, hint=_again(where)) from error
