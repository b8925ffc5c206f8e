"""Loads a mixture: from its JSON file, or made up from plain dataset roots."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from opentau_prep.config.faults import JsonPath, nearest, place, shown
from opentau_prep.config.refs import Origin, load_document
from opentau_prep.config.schema import DatasetEntry, Mixture, MixtureSource
from opentau_prep.config.training import training_settings
from opentau_prep.errors import ConfigError
from opentau_prep.notices import warn
from opentau_prep.storage.urls import check_url, is_remote
from opentau_prep.text import printable

__all__ = ["load_mixture", "mixture_from_roots", "mixture_sha256"]

_KEY = "dataset_mixture"
_ID_DIGITS = 12
_HUB_URL = "hf://datasets/"
_HUB_SNAPSHOT = re.compile(r"datasets--(?P<org>[^/]+?)--(?P<name>[^/]+)/snapshots/[^/]+$")
_MAX_STEM = 100


def load_mixture(path: str | os.PathLike[str]) -> Mixture:
    """Return the mixture that a JSON file holds, with every `$ref` replaced.

    The file is the mixture itself, or any object with the key `dataset_mixture` holding it (a whole
    training config, whose other keys are not looked at).

    Args:
        path: The JSON file.

    Raises:
        ConfigError: Naming file, JSON path, the value and what was expected. Several faults are
            reported in one error: their number first, then one `where: message` per line.
    """
    file = Path(path)
    document = load_document(file, only=_KEY)
    value, at = _find(document.value, file)
    sha256 = mixture_sha256(value)
    source = MixtureSource(
        path=file,
        files=document.files,
        sha256=sha256,
        training=training_settings(file) if at else {},
        mixture_id=f"{_safe_stem(file)}-{sha256[:_ID_DIGITS]}",
    )
    return _build(value, document.origin.at(at), at, source)


def mixture_from_roots(roots: Sequence[str | os.PathLike[str]]) -> Mixture:
    """Return a mixture of plain dataset folders, in the order given.

    Each `repo_id` is the folder's name (of a snapshot in the hub's cache: the hub id); folders of
    one name take as many parent folders with them as tell them apart (`a/pick`, `b/pick`). A
    folder given twice counts once, with a warning. `mixture_id` is `roots-<hash>`.

    Args:
        roots: Dataset folders, each kept in its entry's `root` as given.

    Raises:
        ConfigError: When there are none, or one cannot be a folder's name.
    """
    kept = _distinct_roots([os.fspath(root) for root in roots])
    if not kept:
        raise ConfigError("no dataset root was given")
    names = _root_names(list(kept))
    entries = [{"repo_id": n, "root": given} for n, given in zip(names, kept.values(), strict=True)]
    sha256 = mixture_sha256({"datasets": entries})
    source = MixtureSource(sha256=sha256, mixture_id=f"roots-{sha256[:_ID_DIGITS]}")
    return _build({"datasets": entries}, Origin(None), (), source)


def mixture_sha256(value: object) -> str:
    """Return the SHA-256 of what a resolved mixture is, in hexadecimal.

    It is over `json.dumps` with sorted keys, the separators `,` and `:`, and everything beyond
    ASCII escaped: the order of keys, blanks and how the mixture is cut into files do not count.
    Nor does the `root` of an entry: the same data in another folder or store has the same hash, and
    so the same artifact names.
    """
    text = json.dumps(
        _without_roots(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True
    )
    return hashlib.sha256(text.encode("ascii", errors="backslashreplace")).hexdigest()


def _without_roots(value: object) -> object:
    entries = value.get("datasets") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(entries, list):
        return value
    kept = [
        {key: field for key, field in entry.items() if key != "root"}
        if isinstance(entry, dict)
        else entry
        for entry in entries
    ]
    return {**value, "datasets": kept}


def _find(value: object, file: Path) -> tuple[object, JsonPath]:
    """Return the mixture in a document, and its path there."""
    if isinstance(value, dict) and _KEY in value:
        return value[_KEY], (_KEY,)
    if isinstance(value, dict) and "datasets" in value:
        return value, ()
    keys = list(value) if isinstance(value, dict) else []
    meant = next((key for key in keys if nearest(key, ["datasets", _KEY])), None)
    tip = f"; did {shown(meant)} mean one of them?" if meant is not None else ""
    raise ConfigError(
        f'found {shown(value)}, expected a mixture: an object with "datasets", or one that holds '
        f'such an object under "{_KEY}"{tip}',
        where=place(file),
    )


def _build(value: object, origin: Origin, path: JsonPath, source: MixtureSource) -> Mixture:
    mixture = Mixture.parse(
        value, family=(Mixture, DatasetEntry), origin=origin, path=path, file=source.path
    )
    return mixture.bind(origin, path, source)


def _safe_stem(file: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", file.stem).lstrip(".")
    return stem[:_MAX_STEM] or "mixture"


def _distinct_roots(roots: list[str]) -> dict[str, str]:
    """Return absolute path -> root as given, without those that name a folder again."""
    kept: dict[str, str] = {}
    seen: set[str] = set()
    for root in roots:
        if "\0" in root or not root:
            raise ConfigError(f"found {shown(root)}, expected a dataset folder")
        url = check_url(root) if is_remote(root) else None
        real = url or os.path.realpath(root)
        if real in seen:
            warn("duplicate_root", f"{printable(root)} was given more than once; it counts once")
            continue
        seen.add(real)
        kept[url or os.path.abspath(root)] = root
    return kept


def _root_names(paths: list[str]) -> list[str]:
    """Return for each absolute path the shortest ending, in folders, that no other one has."""
    split = [_name_parts(path) for path in paths]
    lengths = [least for _, least in split]
    while True:
        names = [
            "/".join(parts[-length:]) for (parts, _), length in zip(split, lengths, strict=True)
        ]
        times = Counter(names)
        clashing = [
            index
            for index, name in enumerate(names)
            if times[name] > 1 and lengths[index] < len(split[index][0])
        ]
        if not clashing:
            return names
        for index in clashing:
            lengths[index] += 1


def _name_parts(path: str) -> tuple[list[str], int]:
    """Return the folders of a path, as an id may hold them, and how many the id needs at least."""
    if path.startswith(_HUB_URL):
        owner_and_name = path.removeprefix(_HUB_URL).split("/")[:2]
        return owner_and_name, len(owner_and_name)
    text, n_snapshots = _HUB_SNAPSHOT.subn(r"\g<org>/\g<name>", Path(path).as_posix())
    parts = [
        "".join(char if char.isprintable() and char not in "\\:" else "_" for char in part)
        for part in text.split("/")
        if part
    ]
    return (parts, 1 + n_snapshots) if parts else (["root"], 1)
