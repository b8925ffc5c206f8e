"""Where an artifact lies: in its dataset, below `--artifact-root`, or at `--out`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from opentau_prep.artifacts.catalog import CATALOG
from opentau_prep.errors import ArtifactError, ConfigError
from opentau_prep.storage import LocalStorage, Storage, is_remote, safe_url
from opentau_prep.storage.urls import check_written

__all__ = [
    "FOLDER_PROVENANCE",
    "Location",
    "Place",
    "StoredFile",
    "check_artifact_root",
    "dataset_place",
    "file_place",
    "files_beside",
    "folder_place",
    "safe_folder_name",
]

FOLDER_PROVENANCE = "prep.json"
"""The provenance of a folder, inside it."""

_SAFE_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNSAFE_RUN = re.compile(r"[^A-Za-z0-9._-]+")
_MANGLED = re.compile(r".*-[0-9a-f]{8}")


@dataclass(frozen=True)
class StoredFile:
    """A file of a dataset in a store, which is only ever read.

    Attributes:
        storage: The dataset.
        rel: The file, relative to its root.
    """

    storage: Storage
    rel: str

    def __str__(self) -> str:
        return f"{self.storage.url}/{self.rel}"

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return self.rel.rpartition("/")[2]

    def with_name(self, name: str) -> StoredFile:
        """Return another file of the same folder."""
        folder, slash, _ = self.rel.rpartition("/")
        return StoredFile(self.storage, f"{folder}{slash}{name}")

    def read_bytes(self) -> bytes:
        """Return the content; raise `FileNotFoundError` as a path does, or `PrepError`."""
        if not self.storage.exists(self.rel):
            raise FileNotFoundError(str(self))
        return self.storage.read_bytes(self.rel)


Location: TypeAlias = Path | StoredFile
"""Where a file was found: on a file system, or in a store."""


def files_beside(location: Location, prefix: str, suffix: str) -> Sequence[Location]:
    """Return the files of a location's folder whose names begin and end so, sorted by name."""
    if isinstance(location, Path):
        return sorted(location.parent.glob(f"{prefix}*{suffix}"))
    found = location.storage.list_files(location.rel.rpartition("/")[0], suffix)
    there = [location.with_name(rel.rpartition("/")[2]) for rel in found]
    return [file for file in there if file.rel in found and file.name.startswith(prefix)]


@dataclass(frozen=True)
class Place:
    """The place of one artifact of one dataset, or of one output file.

    Attributes:
        name: The artifact's name within its dataset, such as `"norm_heads/mix-0a1b2c3d4e5f"`.
        schema_version: The version of its layout.
        path: Where it is written, and looked for first.
        provenance_path: Where its provenance is written.
        fallback: The path and provenance path where it is looked for next: in the dataset
            itself, when it is written elsewhere.
        root: What a message calls the place: the dataset root, or the output file.
        dataset: The dataset's name, for notices.
        chosen: Whether the user named this place; then not being able to write there is an error.
        is_folder: Whether the artifact is a folder of files, with its provenance inside.
    """

    name: str
    schema_version: int
    path: Path
    provenance_path: Path
    root: Path
    fallback: tuple[Location, Location] | None = None
    dataset: str | None = None
    chosen: bool = False
    is_folder: bool = False


def dataset_place(
    artifact: str,
    root: Path | Storage,
    *,
    dataset: str | None = None,
    artifact_root: Path | None = None,
    **fields: str,
) -> Place:
    """Return the place of a dataset's artifact.

    Args:
        artifact: Its name in the catalog, such as `"speed_percentiles"`.
        root: The dataset root, or the way to its files.
        dataset: The dataset's name: for notices, and for its folder below `artifact_root`.
        artifact_root: Where artifacts go instead of the dataset; they are read from the dataset
            when they are not there.
        **fields: What the catalog's path template needs, such as `mixture_id`.

    Raises:
        ConfigError: A field cannot be part of a path.
        ArtifactError: The dataset lies in a store, and there is no `artifact_root`.
    """
    spec = CATALOG[artifact]
    rel, provenance_rel = spec.path(**fields), spec.provenance_path(**fields)
    name = str(provenance_rel.with_suffix("")).removeprefix("meta/prep/")
    storage: Storage = LocalStorage(root) if isinstance(root, Path) else root
    if artifact_root is None:
        folder = storage.folder
        if folder is None:
            raise _not_here(storage.url)
        inside = (folder / rel, folder / provenance_rel)
        return Place(name, spec.schema_version, *inside, root=folder, dataset=dataset)
    home = artifact_root / safe_folder_name(dataset or _folder_name(storage))
    return Place(
        name,
        spec.schema_version,
        home / rel,
        home / provenance_rel,
        root=home,
        fallback=(_inside(storage, rel), _inside(storage, provenance_rel)),
        dataset=dataset,
        chosen=True,
    )


def check_artifact_root(roots: Iterable[str], artifact_root: Path | None) -> None:
    """Raise `ArtifactError` when artifacts would have to be written into a store.

    Args:
        roots: Dataset roots: folders or URLs.
        artifact_root: Where artifacts go instead, if they do.
    """
    if artifact_root is None:
        for root in roots:
            if is_remote(root):
                raise _not_here(safe_url(root))


def _not_here(url: str) -> ArtifactError:
    return ArtifactError(
        "nothing is written into a store",
        where=url,
        hint="Say where artifacts go instead: --artifact-root DIR.",
    )


def _inside(storage: Storage, rel: PurePosixPath) -> Location:
    folder = storage.folder
    return StoredFile(storage, str(rel)) if folder is None else folder / rel


def _folder_name(storage: Storage) -> str:
    folder = storage.folder
    return storage.url.rpartition("/")[2] if folder is None else folder.resolve().name


def file_place(name: str, path: Path, *, schema_version: int = 1) -> Place:
    """Return the place of an output outside any dataset, with its provenance next to it.

    That of `x.json` is `x.prep.json`, that of any other file `x` is `x-prep.json`, so that no two
    files share one.

    Raises:
        ConfigError: The path is a folder, or was given as a URL.
    """
    check_written(path, "--out")
    if path.name in ("", "..") or path.is_dir():
        raise ConfigError("is a folder", where=str(path), hint="Name a file to write.")
    record = f"{path.stem}.prep.json" if path.suffix == ".json" else f"{path.name}-prep.json"
    provenance_path = path.with_name(record)
    return Place(name, schema_version, path, provenance_path, root=path, chosen=True)


def folder_place(name: str, path: Path, option: str) -> Place:
    """Return the place of a folder that the user named.

    Raises:
        ConfigError: It was given as a URL, as the value of `option`.
    """
    check_written(path, option)
    inside = path / FOLDER_PROVENANCE
    return Place(name, 1, path, inside, root=path, chosen=True, is_folder=True)


def safe_folder_name(dataset: str) -> str:
    """Return a relative folder for a dataset's name; different names never share one.

    Names such as `lerobot/aloha` are kept. Any other has its odd characters replaced and a hash of
    the whole name appended; a name that looks as if that had been done already is treated the same
    way.
    """
    parts = dataset.split("/")
    plain = len(parts) <= 2 and all(_SAFE_PART.fullmatch(part) for part in parts)
    # `meta` would fall together with the folder of artifacts of a dataset called like the first
    # part.
    if plain and "meta" not in (part.lower() for part in parts) and not _MANGLED.fullmatch(dataset):
        return dataset
    readable = _UNSAFE_RUN.sub("_", dataset).strip("._-")[:80] or "dataset"
    digest = hashlib.sha256(dataset.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{readable}-{digest}"
