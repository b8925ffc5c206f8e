"""What killed runs left in a folder: finished where that is possible, else removed.

An artifact and its provenance take their places one after the other. A process killed in between
leaves the finished provenance as a temporary file; without it the artifact would count as foreign.
A new folder has a backup's name for the instant before it is exchanged with the old one
(`folders`); a temporary file says so, and which inode it is, so that no other is taken for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from opentau_prep.artifacts.catalog import CATALOG
from opentau_prep.artifacts.marker import MARKER, finish_update
from opentau_prep.artifacts.tempfiles import (
    claim_leftover,
    is_temp_name,
    list_temps,
    remove,
    target_name,
)
from opentau_prep.storage import look

__all__ = ["may_hold_leftovers", "sweep", "sweep_once"]

_SUFFIXES = tuple(sorted({Path(spec.template).suffix for spec in CATALOG.values()}))
_swept: set[Path] = set()


def sweep(folder: Path) -> list[Path]:
    """Finish or remove what killed runs left in a folder; what a live process writes is let be.

    Returns:
        The removed files. A folder that cannot be read or written is left as it is.
    """
    removed = []
    for path in list_temps(folder):
        with claim_leftover(path) as leftover:
            if leftover and path.is_file() and not path.is_symlink():
                _remove_unwanted_folder(path)
                if _finished(path):
                    continue
            if leftover and remove(path):
                removed.append(path)
    if folder.name == "prep":
        finish_update(folder.parent)
    return removed


def may_hold_leftovers(folder: Path) -> bool:
    """Return whether `sweep` could find something to do, by a listing that a run makes anyway."""
    names = look.folder_names(folder)
    if folder.name == "prep" and MARKER.rpartition("/")[2] in names:
        return True
    return any(map(is_temp_name, names))


def sweep_once(folder: Path) -> None:
    """Sweep a folder before the first write of this process there."""
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)


def _finished(temp: Path) -> bool:
    """Put a complete provenance in place whose artifact is in place already."""
    from opentau_prep.artifacts.provenance import Provenance

    name = target_name(temp)
    if name is None or not name.endswith(".json"):
        return False
    target = temp.with_name(name)
    with contextlib.suppress(OSError):
        record = Provenance.from_bytes(temp.read_bytes())
        if record is None:
            return False
        current = Provenance.from_bytes(target.read_bytes()) if target.exists() else None
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in _artifacts_of(target)]
        if record.sha256 in hashes and (current is None or current.sha256 not in hashes):
            os.replace(temp, target)
            look.forget(target)
            return True
    return False


def _remove_unwanted_folder(temp: Path) -> None:
    """Remove the folder that has a backup's name without being one, as a journal says."""
    name = target_name(temp)
    try:
        record = json.loads(temp.read_bytes())
        backup = temp.with_name(record["backup"])
        found = os.lstat(backup)
        unwanted = [found.st_dev, found.st_ino] in record["unwanted"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    pattern = re.escape(str(name)) + r"(\.bak)?-[0-9a-f]{8}(-\d+)?"
    if unwanted and stat.S_ISDIR(found.st_mode) and re.fullmatch(pattern, backup.name):
        remove(backup)


def _artifacts_of(provenance: Path) -> Iterator[Path]:
    """Yield the files that a provenance file may be of, as far as they exist."""
    stem = provenance.name.removesuffix(".json")
    candidates = [provenance.with_name(f"{stem.removesuffix('.prep')}.json")]
    candidates.append(provenance.with_name(stem.removesuffix("-prep")))
    for above in provenance.parents:
        if above.name == "prep" and above.parent.name == "meta":
            below = provenance.parent.relative_to(above)
            candidates += [above.parent / below / f"{stem}{suffix}" for suffix in _SUFFIXES]
            break
    yield from (path for path in candidates if path != provenance and path.is_file())
