"""Bugs put in on purpose: each breaks one promise, and `test_seeded.py` shows what catches it."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["BUGS", "WRITE_SITES", "apply"]

# Modules with a write of their own, the name they write by, and a scenario that gets there.
WRITE_SITES = {
    "opentau_prep.artifacts.store:write_all_atomic": "stats",
    "opentau_prep.artifacts.folders:_write_file": "fit-tokenizer",
    "opentau_prep.validate.fix:write_atomic": "validate --fix",
    "opentau_prep.validate.settings:write_atomic": "validate --write-baseline",
}


def _skip_fsync() -> None:
    from opentau_prep.artifacts import atomic

    atomic._fsync = lambda fd: None


def _fixed_temporary_name() -> None:
    from opentau_prep.artifacts import tempfiles

    tempfiles.secrets = type("S", (), {"token_hex": staticmethod(lambda n: "0" * 2 * n)})  # type: ignore[attr-defined]


def _no_rank_gate() -> None:
    from opentau_prep.artifacts.rank import Rank

    Rank.detect = classmethod(lambda cls, environ=None: cls())  # type: ignore[assignment, method-assign]


def _backup_after_replace() -> None:
    from opentau_prep.artifacts import atomic, together

    def commit_all(pending: Sequence[Any], keep: Mapping[Path, Path]) -> None:
        old = {path: path.read_bytes() for path in keep}
        for each in pending:
            each.commit()
        for path, backup in keep.items():
            with open(backup.with_name(f".{backup.name}.prep-tmp"), "wb") as file:
                file.write(old[path])
            os.replace(file.name, backup)

    atomic.commit_all = together.commit_all = commit_all


def _sweep_of_foreign_names() -> None:
    from opentau_prep.artifacts import leftovers, tempfiles

    tempfiles._TEMP_NAME = re.compile(r"\.(.+)\.()?(?:[0-9a-f]*)(?:prep-)?tmp", re.DOTALL)
    tempfiles._is_leftover = lambda fd, path: True
    assert leftovers


def _folder_by_a_temporary_name() -> None:
    from opentau_prep.artifacts import folders

    def exchange(folder: Path, path: Path, backup: Path) -> None:
        folders._exchanged(folder, path)
        os.rename(folder, backup)

    folders._exchange_keeping = exchange


def _no_marker() -> None:
    from opentau_prep.artifacts import together

    together.write_atomic = lambda path, data: None


def _no_clean_up() -> None:
    from opentau_prep.artifacts import tempfiles

    tempfiles.remove = lambda path: True
    tempfiles.remove_live = lambda: []
    for name in ("atomic", "folders", "leftovers"):
        importlib.import_module(f"opentau_prep.artifacts.{name}").remove = lambda path: True  # type: ignore[attr-defined]


def _no_exit_4() -> None:
    from opentau_prep.cli.session import Session

    Session.not_persisted = False  # type: ignore[assignment, method-assign]


def _provenance_not_finished() -> None:
    from opentau_prep.artifacts import leftovers

    leftovers._finished = lambda temp: False


BUGS: dict[str, Callable[[], None]] = {
    "skip the fsync": _skip_fsync,
    "fixed temporary name": _fixed_temporary_name,
    "no rank gate": _no_rank_gate,
    "backup after replace": _backup_after_replace,
    "sweep of foreign names": _sweep_of_foreign_names,
    "folder by a temporary name": _folder_by_a_temporary_name,
    "no marker": _no_marker,
    "no clean-up": _no_clean_up,
    "no exit 4": _no_exit_4,
    "provenance not finished": _provenance_not_finished,
}


def _in_place(site: str) -> None:
    module, _, name = site.partition(":")

    def write(*args: Any, **_: Any) -> None:
        for path, data in args[0] if isinstance(args[0], list) else [args[:2]]:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)

    setattr(importlib.import_module(module), name, write)


def apply(bug: str) -> None:
    """Put a bug into this process: one of `BUGS`, or a write site that is to write in place."""
    if bug in BUGS:
        BUGS[bug]()
    else:
        _in_place(bug)
