"""Reading the JSON and JSON lines that other people's tools wrote under `meta/`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from opentau_prep.errors import MetadataError

if TYPE_CHECKING:
    from opentau_prep.storage import Storage

__all__ = ["JsonLines", "read_json_lines", "read_json_object"]

_HINT = "Restore the file from its source."
_LFS_MAGIC = b"version https://git-lfs"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class JsonLines:
    """The objects of a JSON-lines file.

    Attributes:
        where: The file, for messages.
        rows: One object a line; blank lines are passed over.
        numbers: The 1-based line of each of them.
    """

    where: str
    rows: Sequence[dict[str, Any]]
    numbers: Sequence[int]

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (line number, object)."""
        return zip(self.numbers, self.rows, strict=True)

    def place(self, row: int) -> str:
        """Return where a row is, for messages."""
        return f"{self.where}, line {self.numbers[row]}"


def read_json_object(storage: Storage, rel: str) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises:
        MetadataError: The file is missing, is not JSON, or holds something else than an object.
    """
    where = f"{storage.url}/{rel}"
    value = _loads(storage.read_bytes(rel), where)
    if not isinstance(value, dict):
        found = _kind(value)
        raise MetadataError(f"must hold a JSON object, found {found}", where=where, hint=_HINT)
    return value


def read_json_lines(
    storage: Storage, rel: str, pick: Callable[[Any], Any] = lambda row: row
) -> JsonLines:
    """Return the objects of a JSON-lines file.

    Args:
        storage: The dataset.
        rel: The file.
        pick: What is kept of a line. The rest is let go of before the next line is parsed, so that
            neither memory nor the garbage collector's rounds grow with it.

    Raises:
        MetadataError: The file is missing, or a line is not a JSON object.
    """
    where = f"{storage.url}/{rel}"
    lines = storage.read_bytes(rel).split(b"\n")
    numbers = [number for number, line in enumerate(lines, 1) if line and not line.isspace()]
    try:
        rows = [pick(orjson.loads(lines[number - 1])) for number in numbers]
    except orjson.JSONDecodeError:
        _check_text(lines[0], where)
        rows = [pick(_loads(lines[number - 1], f"{where}, line {number}")) for number in numbers]
    if set(map(type, rows)) <= {dict}:
        return JsonLines(where, rows, numbers)
    for number, row in zip(numbers, rows, strict=True):
        if not isinstance(row, dict):
            message = f"must hold a JSON object, found {_kind(row)}"
            raise MetadataError(message, where=f"{where}, line {number}", hint=_HINT)
    return JsonLines(where, rows, numbers)


def _loads(data: bytes, where: str) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    text = _check_text(data, where)
    try:
        # Python's own trainers write bare NaN and Infinity, which strict JSON does not know.
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetadataError(
            f"is not valid JSON ({_reason(error)})", where=where, hint=_HINT
        ) from error
    if _SURROGATE.search(text):
        _check_characters(value, where)
    return value


def _check_text(data: bytes, where: str) -> str:
    if data.startswith(_LFS_MAGIC):
        raise MetadataError(
            "is a Git LFS pointer, not the file",
            where=where,
            hint="Run `git lfs pull` in the dataset, or download it from the hub.",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MetadataError("is not UTF-8 text", where=where, hint=_HINT) from error


def _check_characters(value: object, where: str) -> None:
    """Raise for half of a surrogate pair: a string that no file and no terminal can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        message = "is not valid JSON (a string with half of a surrogate pair)"
        raise MetadataError(message, where=where, hint=_HINT) from error


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        if not error.doc.strip():
            return "it is empty"
        return f"{error.msg}: line {error.lineno} column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
