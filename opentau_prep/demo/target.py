"""Where a demo goes: a folder that appears whole or not at all, and never replaces other files."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from opentau_prep.artifacts.leftovers import sweep
from opentau_prep.artifacts.tempfiles import create_temp_folder, remove
from opentau_prep.demo.encode import write_json
from opentau_prep.errors import ArtifactError

__all__ = ["MARKER", "check_folder", "write_folder"]

MARKER = "demo.json"
_LAYOUT = 1  # raised when what is written changes, so that an older demo is not taken for this one


def write_folder(out: Path, write: Callable[[Path], None], *, made_as: str) -> Path:
    """Fill a temporary folder next to `out`, then rename it to `out`; return its mixture file.

    A folder that holds the same demo already is left as it is.

    Args:
        out: The folder; must not exist, be empty, or hold the same demo.
        write: Writes the content, `mixture.json` among it, into the folder it is given.
        made_as: What distinguishes this demo from other variants; kept in the folder's `demo.json`.

    Raises:
        ArtifactError: `out` holds something else, or cannot be written.
    """
    out = Path(os.path.abspath(out))
    marker = _marker(made_as)
    try:
        if _is_ours(out, marker):
            return out / "mixture.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(out) as folder:
            write(folder)
            write_json(folder / MARKER, marker)
            _rename(folder, out, marker)
    except OSError as error:
        raise ArtifactError(
            f"cannot write the demo ({error.strerror or error})",
            where=str(out),
            hint="Choose a folder that can be written.",
        ) from error
    return out / "mixture.json"


def check_folder(out: Path, *, made_as: str) -> Path:
    """Return the mixture file that `write_folder` would give; nothing is written.

    Raises:
        ArtifactError: `out` holds something else.
    """
    out = Path(os.path.abspath(out))
    _is_ours(out, _marker(made_as))
    return out / "mixture.json"


def _marker(made_as: str) -> dict[str, object]:
    return {"made_by": "opentau-prep demo", "made_as": made_as, "layout": _LAYOUT}


def _is_ours(out: Path, marker: dict[str, object]) -> bool:
    """Return whether the same demo is there already; False where nothing is.

    Raises:
        ArtifactError: Something else is there.
    """
    if not os.path.lexists(out):
        return False
    if not out.is_dir():
        raise ArtifactError("there is a file of this name", where=str(out), hint=_HINT)
    if not any(out.iterdir()):
        return False
    found = None
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((out / MARKER).read_text(encoding="utf-8"))
    if found == marker and (out / "mixture.json").exists():
        return True
    what = "another or an incomplete demo" if isinstance(found, dict) else "files of something else"
    raise ArtifactError(f"the folder holds {what}", where=str(out), hint=_HINT)


_HINT = "Choose another folder, or remove this one."


def _rename(folder: Path, out: Path, marker: dict[str, object]) -> None:
    try:
        os.replace(folder, out)  # takes an empty folder's place, but never a filled one's
    except OSError:
        if not _is_ours(out, marker):  # another process may have finished the same demo meanwhile
            raise


@contextlib.contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    sweep(out.parent)
    fd, folder = create_temp_folder(out)
    try:
        yield folder
    finally:
        remove(folder)
        os.close(fd)
