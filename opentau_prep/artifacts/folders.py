"""A folder as one artifact: a reader sees the old folder or the new one, never a mixture.

The files are written into a temporary folder next to the place, which then takes its place by one
rename. Where a folder is there that must be kept, the new one is first renamed to the backup's
name, and then the two are exchanged by one system call: the old folder goes from its own name to
its backup's, and has no other name in between. The provenance is inside, in `prep.json`, so that it
moves with the files it describes. Whether a folder may be replaced is decided by `store.publish`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opentau_prep.artifacts.atomic import not_writable, sync_folder
from opentau_prep.artifacts.place import FOLDER_PROVENANCE
from opentau_prep.artifacts.provenance import sha256_of
from opentau_prep.artifacts.tempfiles import create_temp, create_temp_folder, remove
from opentau_prep.errors import ArtifactError
from opentau_prep.interruption import signals_held
from opentau_prep.storage import look

__all__ = ["manifest_at", "manifest_of", "replace_folder"]

_IGNORED = frozenset({FOLDER_PROVENANCE, "__pycache__"})
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_BACKUP_DIGITS = 8


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """Return the names and hashes of some files, sorted: a folder's content in short."""
    return _manifest({name: sha256_of(content) for name, content in files.items()})


def manifest_at(path: Path) -> bytes | None:
    """Return the manifest of a folder without its provenance; None where it is missing or empty.

    Raises:
        ArtifactError: It is not a folder, or cannot be read.
    """
    try:
        rels = [
            found.relative_to(path)
            for found in sorted(path.rglob("*"))
            if not found.is_dir() and not _IGNORED.intersection(found.relative_to(path).parts)
        ]
        if not path.exists() or not any(path.iterdir()):
            return None
        return _manifest({rel.as_posix(): sha256_of((path / rel).read_bytes()) for rel in rels})
    except NotADirectoryError as error:
        raise ArtifactError(
            "is a file, but a folder goes here", where=str(path), hint="Name another place."
        ) from error
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _manifest(hashes: Mapping[str, str]) -> bytes:
    lines = (f"{name}\0{hashes[name]}\n" for name in sorted(hashes))
    return "".join(lines).encode("utf-8", "surrogateescape")


def replace_folder(
    path: Path, files: Mapping[str, bytes], old: bytes | None, *, ours: bool
) -> Path | None:
    """Put a folder of files in place; return where the old one is kept, if it is.

    Args:
        path: The folder.
        files: File name -> content, its provenance among them.
        old: The manifest of the folder that is there.
        ours: Whether it is our own, unedited: then it stays as `<name>-<hash>`, unless that version
            is there already; another stays as `<name>.bak-<hash>`.

    Raises:
        NotWritableError: It cannot be written.
        ArtifactError: The disk failed; the message says where the old folder is.
    """
    there = os.lstat(path) if path.exists() else None
    try:
        return _write(path, files, old, ours=ours)
    except PermissionError as error:
        raise not_writable(path) from error
    except OSError as error:
        raise ArtifactError(
            f"could not be written ({error.strerror or error}){_fate(path, there)}",
            where=str(path),
            hint="Free some space or fix the disk, then run the same command again.",
        ) from error


def _fate(path: Path, old: os.stat_result | None) -> str:
    """Return what has become of the old folder, as the end of a sentence."""
    if old is None:
        return ""
    if _is(path, old):
        return "; the old folder is unchanged"
    kept = [each for each in path.parent.iterdir() if _is(each, old)]
    return "".join(f"; the old folder is {each}" for each in kept)


def _write(path: Path, files: Mapping[str, bytes], old: bytes | None, *, ours: bool) -> Path | None:
    with _temporary(path) as folder:
        for name, content in files.items():
            _write_file(folder / name, content)
        sync_folder(folder)
        with signals_held():
            backup = _replace(path, folder, old, ours=ours)
            look.forget(path)
    try:
        sync_folder(path.parent)
    except OSError as error:
        raise ArtifactError(
            f"was replaced, but the disk did not confirm it ({error.strerror})",
            where=str(path),
            hint="Fix the disk, then run the same command again.",
        ) from error
    return backup


def _replace(path: Path, folder: Path, old: bytes | None, *, ours: bool) -> Path | None:
    if not path.is_dir() or not any(path.iterdir()):
        os.replace(folder, path)
        return None
    digest = sha256_of(old or b"")[:_BACKUP_DIGITS]
    version = path.with_name(f"{path.name}-{digest}")
    keep = not (ours and version.is_dir() and manifest_at(version) == old)
    backup = _free_name(version if ours else path.with_name(f"{path.name}.bak-{digest}"))
    unwanted = [folder] if keep else [folder, path]
    with _journal(path, backup, [os.lstat(each) for each in unwanted]):
        _exchange_keeping(folder, path, backup)
        if keep or manifest_at(backup) != old:  # edited meanwhile: kept after all
            return backup
        os.rename(backup, folder)
    return None


def _write_file(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _free_name(wanted: Path) -> Path:
    found, number = wanted, 2
    while os.path.lexists(found):
        found = wanted.with_name(f"{wanted.name}-{number}")
        number += 1
    return found


def _exchange_keeping(folder: Path, path: Path, backup: Path) -> None:
    """Put a new folder in place of an old one, which goes from its own name to its backup's."""
    new, old = os.lstat(folder), os.lstat(path)
    # What happened is read from the disk: a call may have done its work and failed all the same
    # (a network file system), or been interrupted right then.
    try:
        os.rename(folder, backup)
        if _exchanged(backup, path):
            return
    finally:
        if _is(backup, new):
            try:
                os.rename(backup, folder)
            except BaseException:
                remove(backup)
                raise
    try:
        os.rename(path, backup)
        os.rename(folder, path)
    finally:
        if _is(backup, old) and not os.path.lexists(path):
            os.rename(backup, path)


def _is(path: Path, known: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), known)
    except OSError:
        return False


@contextlib.contextmanager
def _journal(path: Path, backup: Path, unwanted: Sequence[os.stat_result]) -> Iterator[None]:
    """Let the next run know which folders are not wanted under a backup's name: see `leftovers`."""
    fd, journal = create_temp(path)
    try:
        inodes = [[each.st_dev, each.st_ino] for each in unwanted]
        os.write(fd, json.dumps({"backup": backup.name, "unwanted": inodes}).encode())
        os.fsync(fd)
        yield
    finally:
        remove(journal)
        os.close(fd)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders by one system call; returns False where there is none."""
    libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if not hasattr(libc, "renameat2"):
        return False
    names = (os.fsencode(one), os.fsencode(other))
    if not libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a new folder next to `path`; what has that name after the block is removed."""
    fd, folder = create_temp_folder(path)
    try:
        yield folder
    finally:
        remove(folder)
        os.close(fd)
