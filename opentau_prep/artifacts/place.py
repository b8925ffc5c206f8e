"""Where an artifact lies: in its dataset, below `--artifact-root`, or at `--out`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from opentau_prep.artifacts.catalog import CATALOG
from opentau_prep.errors import ConfigError

__all__ = ["Place", "dataset_place", "file_place", "safe_folder_name"]

_SAFE_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNSAFE_RUN = re.compile(r"[^A-Za-z0-9._-]+")
_MANGLED = re.compile(r".*-[0-9a-f]{8}")


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
    """

    name: str
    schema_version: int
    path: Path
    provenance_path: Path
    root: Path
    fallback: tuple[Path, Path] | None = None
    dataset: str | None = None
    chosen: bool = False


def dataset_place(
    artifact: str,
    root: Path,
    *,
    dataset: str | None = None,
    artifact_root: Path | None = None,
    **fields: str,
) -> Place:
    """Return the place of a dataset's artifact.

    Args:
        artifact: Its name in the catalog, such as `"speed_percentiles"`.
        root: The dataset root.
        dataset: The dataset's name: for notices, and for its folder below `artifact_root`.
        artifact_root: Where artifacts go instead of the dataset; they are read from the dataset
            when they are not there.
        **fields: What the catalog's path template needs, such as `mixture_id`.

    Raises:
        ConfigError: A field cannot be part of a path.
    """
    spec = CATALOG[artifact]
    rel, provenance_rel = spec.path(**fields), spec.provenance_path(**fields)
    name = str(provenance_rel.with_suffix("")).removeprefix("meta/prep/")
    inside = (root / rel, root / provenance_rel)
    if artifact_root is None:
        return Place(name, spec.schema_version, *inside, root=root, dataset=dataset)
    home = artifact_root / safe_folder_name(dataset or root.resolve().name)
    return Place(
        name,
        spec.schema_version,
        home / rel,
        home / provenance_rel,
        root=home,
        fallback=inside,
        dataset=dataset,
        chosen=True,
    )


def file_place(name: str, path: Path, *, schema_version: int = 1) -> Place:
    """Return the place of an output outside any dataset, with its provenance beside it.

    That of `x.json` is `x.prep.json`, that of any other file `x` is `x-prep.json`, so that no two
    files share one.

    Raises:
        ConfigError: The path is a folder.
    """
    if path.name in ("", "..") or path.is_dir():
        raise ConfigError("is a folder", where=str(path), hint="Name a file to write.")
    record = f"{path.stem}.prep.json" if path.suffix == ".json" else f"{path.name}-prep.json"
    provenance_path = path.with_name(record)
    return Place(name, schema_version, path, provenance_path, root=path, chosen=True)


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
