"""A folder as one artifact: a reader sees the old folder or the new one, never a mixture.

The files are written into a temporary folder beside the place, which then takes its place by one
rename; where a folder is there already, the two are exchanged. The provenance lies inside, in
`prep.json`, so that it moves with the files it describes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from opentau_prep.artifacts.atomic import folder_lock, make_folder, not_writable, write_atomic
from opentau_prep.artifacts.provenance import (
    Provenance,
    Recipe,
    record_of,
    sha256_of,
)
from opentau_prep.artifacts.store import Inspection, Outcome, OverwriteRefusedError, State, judge
from opentau_prep.artifacts.tempfiles import lock
from opentau_prep.errors import ArtifactError

__all__ = ["PROVENANCE_NAME", "FolderPlace", "inspect_folder", "publish_folder"]

PROVENANCE_NAME = "prep.json"

_SUFFIX = ".prep-tmp"
_IGNORED = frozenset({PROVENANCE_NAME, "__pycache__"})
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_BACKUP_DIGITS = 8


@dataclass(frozen=True)
class FolderPlace:
    """The place of a folder that the user named.

    Attributes:
        name: The artifact's name, such as `"tokenizer"`.
        path: The folder.
        schema_version: The version of its layout.
    """

    name: str
    path: Path
    schema_version: int = 1


def inspect_folder(place: FolderPlace, recipe: Recipe) -> Inspection:
    """Return the state of a folder against what it would be made of now; nothing is changed.

    An empty folder counts as missing. `content` is the manifest (names and hashes) of its files.

    Raises:
        ArtifactError: It is not a folder, or cannot be read.
    """
    manifest = _manifest(place.path)
    if manifest is None:
        return Inspection(State.MISSING, place.path)
    return judge(
        place.path, manifest, _provenance(place), recipe, schema_version=place.schema_version
    )


def publish_folder(
    place: FolderPlace,
    files: Mapping[str, bytes],
    recipe: Recipe,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Outcome:
    """Put a folder of files with its provenance in place, if that is allowed.

    A folder of ours that nobody has touched is replaced. Any other is replaced only with `force`,
    and is then kept beside it as `<name>.bak-<hash>`; one that is not ours and holds folders (a
    dataset, a home) is never replaced: it was named by mistake.

    Args:
        place: Where.
        files: File name -> content.
        recipe: What they were made of.
        force: Replace whatever is there.
        dry_run: Change nothing, only say what would happen.

    Raises:
        OverwriteRefusedError: The folder holds something else, or was edited.
        ArtifactError: It cannot be written.
    """
    found = inspect_folder(place, recipe)
    manifest = _manifest_of({name: sha256_of(content) for name, content in files.items()})
    theirs = found.state in (State.FOREIGN, State.EDITED)
    _check_replaceable(place, found)
    if theirs and not force:
        raise OverwriteRefusedError(found, manifest)
    if dry_run:
        return Outcome("would write", place.path, found.state, changes=found.changes)
    record = record_of(place.name, place.schema_version, manifest, recipe)
    content = {**files, PROVENANCE_NAME: record.to_bytes()}
    make_folder(place.path.parent)
    try:
        with folder_lock(place.path.parent):
            backup = _write(place.path, content, found if theirs or force else None)
    except PermissionError as error:
        raise not_writable(place.path) from error
    except OSError as error:
        raise ArtifactError(
            f"could not be written ({error.strerror or error}); the old folder is unchanged",
            where=str(place.path),
            hint="Free some space or fix the disk, then run the same command again.",
        ) from error
    return Outcome("written", place.path, found.state, backup, found.changes)


def _check_replaceable(place: FolderPlace, found: Inspection) -> None:
    if found.state is State.FOREIGN and any(child.is_dir() for child in place.path.iterdir()):
        raise ArtifactError(
            "holds folders that were not written by this tool; it is left alone",
            where=str(place.path),
            hint="Name another folder.",
        )


def _write(path: Path, files: Mapping[str, bytes], keep: Inspection | None) -> Path | None:
    backup = None
    with _temporary(path) as folder:
        for name, content in files.items():
            write_atomic(folder / name, content)
        if not path.is_dir() or not any(path.iterdir()):
            os.replace(folder, path)
        else:
            _exchange(folder, path)  # from here on `folder` is the old one
            if keep is not None and keep.content is not None:
                backup = _free_name(path, sha256_of(keep.content)[:_BACKUP_DIGITS])
                os.replace(folder, backup)
        _sync(path.parent)
    return backup


def _free_name(path: Path, digest: str) -> Path:
    backup = path.with_name(f"{path.name}.bak-{digest}")
    number = 2
    while backup.exists():
        backup = path.with_name(f"{path.name}.bak-{digest}-{number}")
        number += 1
    return backup


def _exchange(new: Path, old: Path) -> None:
    """Exchange two folders by one system call; by three renames where there is none."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if hasattr(libc, "renameat2"):
            names = (os.fsencode(new), os.fsencode(old))
            failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
            if not failed:
                return
            code = ctypes.get_errno()
            if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise OSError(code, os.strerror(code), str(old))
    aside = old.with_name(f"{new.name}.old")
    os.replace(old, aside)
    os.replace(new, old)
    os.replace(aside, new)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, held by a lock, so that leftovers can be told."""
    prefix = f".{path.name}."
    _sweep(path.parent, prefix)
    folder = path.parent / f"{prefix}{secrets.token_hex(6)}{_SUFFIX}"
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    try:
        lock(fd)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _sweep(parent: Path, prefix: str) -> None:
    """Remove what killed runs left: folders whose lock nobody holds."""
    for folder in parent.glob(f"{prefix}*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if lock(fd):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(fd)


def _manifest(path: Path) -> bytes | None:
    try:
        rels = [
            found.relative_to(path)
            for found in sorted(path.rglob("*"))
            if not found.is_dir() and not _IGNORED.intersection(found.relative_to(path).parts)
        ]
        if not path.exists() or not any(path.iterdir()):
            return None
        return _manifest_of({rel.as_posix(): sha256_of((path / rel).read_bytes()) for rel in rels})
    except NotADirectoryError as error:
        raise ArtifactError(
            "is a file, but a folder is to be written", where=str(path), hint="Name another place."
        ) from error
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _manifest_of(hashes: Mapping[str, str]) -> bytes:
    lines = (f"{name}\0{hashes[name]}\n" for name in sorted(hashes))
    return "".join(lines).encode("utf-8", "surrogateescape")


def _provenance(place: FolderPlace) -> Provenance | None:
    try:
        found = Provenance.from_bytes((place.path / PROVENANCE_NAME).read_bytes())
    except OSError:
        return None
    return found if found is not None and found.artifact == place.name else None


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
