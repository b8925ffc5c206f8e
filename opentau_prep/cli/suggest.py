"""What to type next, by what lies in the working directory."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

__all__ = ["suggested_commands"]

_TRY_IT = ("demo --out demo", "run --mixture-json demo/mixture.json")
# Enough to see what a folder is; a folder of thousands is not searched.
_LOOKED_AT = 200
_LARGEST_JSON = 1 << 20
_NAMED = 3


def suggested_commands(folder: Path) -> list[str]:
    """Return command lines that fit a folder: a dataset, mixtures, datasets, or nothing of these.

    A mixture is a JSON file with the key `datasets`, or a training config with `dataset_mixture`; a
    dataset holds `meta/info.json`, up to two folders down (`owner/name`).
    """
    if (folder / "meta/info.json").is_file():
        return _commands("stats .", "validate .", "run .")
    mixtures = [shlex.quote(str(path)) for path in islice(_mixtures(folder), _NAMED)]
    if mixtures:
        return _commands(
            *(f"run --mixture-json {path}" for path in mixtures),
            f"report --mixture-json {mixtures[0]}",
        )
    datasets = [shlex.quote(str(path)) for path in islice(_datasets(folder), _NAMED)]
    if datasets:
        words = " ".join(datasets)
        return _commands(f"stats {datasets[0]}", f"validate {words}", f"run {words}")
    return _commands(*_TRY_IT)


def _commands(*words: str) -> list[str]:
    return [f"opentau-prep {each}" for each in words]


def _mixtures(folder: Path) -> Iterator[Path]:
    for path in _entries(folder):
        if path.suffix == ".json" and _is_mixture(folder / path):
            yield path


def _is_mixture(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_JSON:
            return False
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    named = found.get("dataset_mixture", found) if isinstance(found, dict) else None
    return isinstance(named, dict) and isinstance(named.get("datasets"), list)


def _datasets(folder: Path) -> Iterator[Path]:
    for path in _entries(folder):
        if (folder / path / "meta/info.json").is_file():
            yield path
        elif (folder / path).is_dir():
            below = (path / each for each in _entries(folder / path))
            yield from (each for each in below if (folder / each / "meta/info.json").is_file())


def _entries(folder: Path) -> list[Path]:
    """Return names that are not hidden, sorted; none where the folder cannot be listed."""
    try:
        found = [Path(path.name) for path in islice(folder.iterdir(), _LOOKED_AT)]
    except OSError:
        return []
    return sorted(path for path in found if not path.name.startswith("."))
