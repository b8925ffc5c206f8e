"""Reads a JSON file and replaces each `{"$ref": "other.json"}` in it by that file's content.

Rules: a target is relative to the file that holds the reference (an absolute path stays one; `~` is
an ordinary character, as in training); references chain, at any depth and in lists; keys next to
`$ref` deep-merge over the object that was loaded, and win (lists are replaced).

What Python's own reader takes is taken: a byte-order mark, UTF-16 and UTF-32, and bare NaN, because
training configurations are written by it. A key that occurs twice counts with its last value, as in
training, and a warning says so.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from opentau_prep.config.faults import JsonPath, place, shown
from opentau_prep.errors import ConfigError
from opentau_prep.notices import warn
from opentau_prep.storage.limits import check_size
from opentau_prep.text import printable

__all__ = ["Document", "Origin", "load_document", "resolve_refs"]

# Far deeper than any configuration, far shallower than Python's stack.
_MAX_DEPTH = 100
# A file that loads the next one several times, and so on, grows exponentially: stop it early.
_MAX_VALUES = 5_000_000


@dataclass(frozen=True)
class Origin:
    """Which file a value came from.

    Attributes:
        file: The file that holds the value, or None when it was made without one.
        children: The same for those keys and indices below that came from elsewhere.
    """

    file: Path | None
    children: Mapping[str | int, Origin] = field(default_factory=dict)

    def child(self, key: str | int) -> Origin:
        """Return the origin of the value at `key`."""
        return self.children.get(key) or Origin(self.file)

    def at(self, path: JsonPath) -> Origin:
        """Return the origin of the value at `path` below this one."""
        origin = self
        for key in path:
            origin = origin.child(key)
        return origin


@dataclass(frozen=True)
class Document:
    """A resolved JSON document.

    Attributes:
        value: The JSON value with every reference replaced; shares nothing with any other document.
        origin: Which file each part came from.
        files: Every file that was read, the named one first.
    """

    value: object
    origin: Origin
    files: tuple[Path, ...]


def resolve_refs(path: str | os.PathLike[str]) -> object:
    """Return the content of a JSON file with every `$ref` replaced.

    Args:
        path: The JSON file.

    Raises:
        ConfigError: Naming the file, when one cannot be found, read or understood, when references
            form a cycle (the chain is shown), when `$ref` is not a string, or when keys are
            next to a reference to something that is not an object.
    """
    return load_document(path).value


def load_document(path: str | os.PathLike[str], *, only: str | None = None) -> Document:
    """Return what `resolve_refs` does, with the files it came from; the same errors.

    Args:
        path: The JSON file.
        only: A top-level key. Where the document has it, the keys next to it are left out, and
            references in them are not followed: they may lead to files of another machine.
    """
    return _Resolver(only).document(Path(path))


@dataclass(frozen=True)
class _Spot:
    """Where the resolver is: in which file, at which path in it, how deep, through which files."""

    file: Path
    path: JsonPath
    depth: int
    chain: tuple[tuple[str, Path], ...]
    is_top: bool = False

    def below(self, key: str | int) -> _Spot:
        return _Spot(self.file, (*self.path, key), self.depth + 1, self.chain)

    def error(self, message: str) -> ConfigError:
        return ConfigError(message, where=place(self.file, self.path))


class _Resolver:
    """One resolution: reads each file once, and remembers which."""

    def __init__(self, only: str | None) -> None:
        self._only = only
        self._content: dict[str, _Content] = {}
        self._files: dict[Path, None] = {}
        self._n_values = 0

    def document(self, file: Path) -> Document:
        value, origin = self._load(file, _Spot(file, (), 0, (), is_top=True), "")
        return Document(value, origin, tuple(self._files))

    def _load(self, file: Path, holder: _Spot, via: str) -> tuple[Any, Origin]:
        """Load and resolve a file; `via` says, in an error, how it came to be loaded."""
        try:
            identity = os.path.realpath(file)
            if any(identity == seen for seen, _ in holder.chain):
                links = " -> ".join(str(link) for _, link in (*holder.chain, (identity, file)))
                raise holder.error(f'"$ref" forms a cycle: {printable(links)}')
            if identity not in self._content:
                self._content[identity] = _parse(_read(file, regular=bool(via)), file, via)
        except ConfigError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a name no file can have, such as NUL
            raise holder.error(_unreadable(file, error, via)) from error
        self._files[file] = None
        spot = _Spot(file, (), holder.depth, (*holder.chain, (identity, file)), holder.is_top)
        content = self._content[identity]
        if content.is_plain and not holder.chain:
            return self._part(content.value, spot), Origin(file)
        return self._visit(content.value, spot)

    def _part(self, value: Any, spot: _Spot) -> Any:
        """Return what is looked at of the object that a document is."""
        if spot.is_top and self._only in value:
            return {key: value[key] for key in value if key in (self._only, "$ref")}
        return value

    def _visit(self, value: Any, spot: _Spot) -> tuple[Any, Origin]:
        self._n_values += 1
        if self._n_values > _MAX_VALUES:
            raise spot.error(f'"$ref" expands to more than {_MAX_VALUES:,} values')
        if isinstance(value, dict | list) and spot.depth >= _MAX_DEPTH:
            raise spot.error(f"nested more than {_MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            value = self._part(value, spot)
            return self._follow(value, spot) if "$ref" in value else self._mapping(value, spot)
        if isinstance(value, list):
            return self._sequence(value, spot)
        if isinstance(value, str):
            _check_text(value, spot)
        return value, Origin(spot.file)

    def _mapping(self, value: dict[str, object], spot: _Spot) -> tuple[dict[str, Any], Origin]:
        resolved: dict[str, Any] = {}
        children: dict[str | int, Origin] = {}
        for key, item in value.items():
            _check_text(key, spot)
            resolved[key], origin = self._visit(item, spot.below(key))
            if origin.children or origin.file != spot.file:
                children[key] = origin
        return resolved, Origin(spot.file, children)

    def _sequence(self, value: list[object], spot: _Spot) -> tuple[list[Any], Origin]:
        resolved: list[Any] = []
        children: dict[str | int, Origin] = {}
        for index, item in enumerate(value):
            element, origin = self._visit(item, spot.below(index))
            resolved.append(element)
            if origin.children or origin.file != spot.file:
                children[index] = origin
        return resolved, Origin(spot.file, children)

    def _follow(self, value: dict[str, object], spot: _Spot) -> tuple[Any, Origin]:
        target = value["$ref"]
        if not isinstance(target, str):
            raise spot.error(f'"$ref" must be a file name (a string), found {shown(target)}')
        _check_text(target, spot)
        file = spot.file.parent / target
        via = f'loaded by "$ref" in {place(spot.file)}'
        holder = replace(spot.below("$ref"), is_top=spot.is_top)
        loaded, origin = self._load(file, holder, via)
        others = {key: item for key, item in value.items() if key != "$ref"}
        if not others:
            return loaded, origin
        if not isinstance(loaded, dict):
            raise spot.error(
                f'the keys {shown(list(others))} are next to "$ref", but {place(file)} holds '
                f"{shown(loaded)}, and only an object can be merged with keys"
            )
        siblings, sibling_origin = self._mapping(others, spot)
        return _merge(loaded, siblings, origin, sibling_origin)


def _merge(
    base: dict[str, Any], over: dict[str, Any], base_origin: Origin, over_origin: Origin
) -> tuple[dict[str, Any], Origin]:
    """Deep-merge `over` over `base`; the keys of `base` come first, in their order."""
    merged = dict(base)
    children: dict[str | int, Origin] = {key: base_origin.child(key) for key in base}
    for key, value in over.items():
        origin = over_origin.child(key)
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key], children[key] = _merge(merged[key], value, children[key], origin)
        else:
            merged[key], children[key] = value, origin
    # The file that holds the siblings is where the object is put together: a key that is
    # missing is missing there.
    return merged, Origin(over_origin.file, children)


def _read(file: Path, *, regular: bool) -> bytes:
    # What a reference names must be a regular file: a pipe would block and a device never ends.
    # The file that the user names may be a pipe: `<(jq ...)` is one.
    if regular and file.exists() and not file.is_file() and not file.is_dir():
        raise OSError(None, "not a regular file")
    if file.is_file():
        check_size(f"{file.name}.json", file.stat().st_size, shown(str(file)))
    return file.read_bytes()


def _unreadable(file: Path, error: OSError | ValueError, via: str) -> str:
    name = f"{shown(str(file))}: " if via else ""
    if isinstance(error, FileNotFoundError):
        tilde = ' ("~" is not expanded in "$ref")' if via and "~" in file.parts else ""
        return f"{name}file not found{tilde}"
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"{name}cannot be read: {reason or error}"


@dataclass(frozen=True)
class _Content:
    """What a JSON file holds.

    Attributes:
        value: The JSON value.
        is_plain: Whether it is an object in which there is nothing to replace and nothing that a
            look at each value could find wrong.
    """

    value: object
    is_plain: bool


def _parse(data: bytes, file: Path, via: str) -> _Content:
    """Return the content of a JSON file, every fault of it an error that names the file."""
    repeated: dict[str, None] = {}
    has_reference = False

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal has_reference
        content = dict(pairs)
        has_reference = has_reference or "$ref" in content
        if len(content) < len(pairs):
            times = Counter(key for key, _ in pairs)
            repeated.update((key, None) for key, count in times.items() if count > 1)
        return content

    try:
        text = _decode(data)
        value: object = json.loads(text, object_pairs_hook=collect)
    except (RecursionError, ValueError) as error:
        reason = _not_json(error) if data.strip() else "the file is empty"
        suffix = f" ({via})" if via else ""
        raise ConfigError(f"{reason}{suffix}", where=place(file)) from error
    _warn_repeated(list(repeated), file)
    is_plain = isinstance(value, dict) and not has_reference and _is_ascii(text)
    return _Content(value, is_plain and _is_shallow(value))


def _is_ascii(text: str) -> bool:
    return text.isascii() and "\\u" not in text


def _is_shallow(value: Any) -> bool:
    """Return whether a value is nested no deeper than may be."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        below = (v.values() if type(v) is dict else v for v in level)
        level = [v for v in chain.from_iterable(below) if type(v) in (dict, list)]
        if not level:
            return True
    return False


def _not_json(error: RecursionError | ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"not valid JSON: byte {error.start} is not {error.encoding.upper()} text"
    if isinstance(error, RecursionError):
        return f"nested more than {_MAX_DEPTH} levels deep"
    return f"not usable JSON: {error}"  # an integer of more digits than Python converts


def _decode(data: bytes) -> str:
    text = data.decode(json.detect_encoding(data))
    return text.removeprefix("\ufeff")


def _warn_repeated(keys: list[str], file: Path) -> None:
    if keys:
        warn(
            "duplicate_json_key",
            f"{place(file)}: an object holds the same key more than once: {shown(keys)}; "
            "the last value counts, as in training",
            file=str(file),
            keys=keys,
        )


def _check_text(text: str, spot: _Spot) -> None:
    # A lone surrogate (an escape such as "\ud800") cannot be written to any file again.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise spot.error(f"{shown(text)} is not valid Unicode text") from error
