"""Reading the JSON and JSON lines that other people's tools wrote under `meta/`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonlines
import orjson

from opentau_prep.errors import MetadataError

if TYPE_CHECKING:
    from opentau_prep.storage import Storage

__all__ = ["read_json_lines", "read_json_object"]


def read_json_object(storage: Storage, rel: str) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises:
        MetadataError: The file is missing, is not JSON, or holds something else than an object.
    """
    where = f"{storage.url}/{rel}"
    text = _decode(storage.read_bytes(rel), where)
    try:
        value = _loads(text)
    except ValueError as error:
        raise MetadataError(f"is not valid JSON ({error})", where=where, hint=_HINT) from error
    if not isinstance(value, dict):
        found = _kind(value)
        raise MetadataError(f"must hold a JSON object, found {found}", where=where, hint=_HINT)
    return value


def read_json_lines(storage: Storage, rel: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a JSON-lines file, each with its 1-based line number.

    Blank lines are passed over.

    Raises:
        MetadataError: The file is missing, or a line is not a JSON object.
    """
    where = f"{storage.url}/{rel}"
    lines = _decode(storage.read_bytes(rel), where).split("\n")
    numbers = [i for i, line in enumerate(lines, 1) if line.strip()]
    reader = jsonlines.Reader((line for line in lines if line.strip()), loads=_loads)
    try:
        rows: list[tuple[int, Any]] = list(zip(numbers, reader, strict=True))
    except jsonlines.InvalidLineError as error:
        line = numbers[error.lineno - 1]
        raise MetadataError(
            "is not valid JSON (cut off, or edited by hand?)",
            where=f"{where}, line {line}",
            hint=_HINT,
        ) from error
    for line, row in rows:
        if not isinstance(row, dict):
            message = f"must hold a JSON object, found {_kind(row)}"
            raise MetadataError(message, where=f"{where}, line {line}", hint=_HINT)
    return rows


_HINT = "Restore the file from its source."


def _decode(data: bytes, where: str) -> str:
    if data[:27].startswith(b"version https://git-lfs"):
        raise MetadataError(
            "is a Git LFS pointer, not the file",
            where=where,
            hint="Run `git lfs pull` in the dataset, or download it from the hub.",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MetadataError("is not UTF-8 text", where=where, hint=_HINT) from error


def _loads(text: str | bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        # Python's own trainers write bare NaN and Infinity, which strict JSON does not know.
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
