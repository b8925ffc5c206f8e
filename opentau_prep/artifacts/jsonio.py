"""JSON that gives the same bytes for the same values, and gives every bit back.

Two dialects. Files of our own format are strict JSON: a number that is not finite is written as the
string `"NaN"`, `"Infinity"` or `"-Infinity"`. A text that happens to be one of those three words is
written with a backslash before it, so reading is never in doubt. Files that other tools read hold
only finite numbers, unless the writer was forced; then they are bare, as Python's readers
understand them.

Floats are written with the fewest digits that read back as the same float64; a float32 is written
as the float64 of the same value, so that casting it back is exact. Keys keep their order. What a
terminal would obey, and half a surrogate pair, is written as an escape (see `text.json_safe`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opentau_prep.errors import ArtifactError, MetadataError
from opentau_prep.text import json_safe

__all__ = [
    "dump_foreign",
    "dump_foreign_lines",
    "dump_own",
    "dump_own_lines",
    "load_own",
    "load_own_lines",
]

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_ESCAPABLE = re.compile(r"\\*(NaN|Infinity|-Infinity)")
_ESCAPED = re.compile(r"\\+(NaN|Infinity|-Infinity)")
_INDENT = "  "

# What becomes of a float that is not finite, and of a text; the place is there for a message.
_OnFloat = Callable[[float, str], Any]
_OnText = Callable[[str], str]


def dump_own(value: Any) -> bytes:
    """Return `value` as a document of our own format.

    Args:
        value: Mappings, sequences, numbers, texts, None; NumPy arrays and scalars anywhere.
            Mappings and lists of them are indented, a list of numbers stays on one line.

    Raises:
        TypeError: Something in it has no JSON form.
    """
    return _encode(_pretty(_plain(value, "$", _own_float, _own_text), ""))


def dump_own_lines(rows: Iterable[Any]) -> bytes:
    """Return one compact line a row, in our own format; see `dump_own`."""
    return b"".join(
        _encode(_compact(_plain(row, f"$[{i}]", _own_float, _own_text)))
        for i, row in enumerate(rows)
    )


def dump_foreign(value: Any, *, where: str, allow_non_finite: bool = False) -> bytes:
    """Return `value` as a document that other tools read.

    Args:
        value: As in `dump_own`.
        where: The file it is for, for the message.
        allow_non_finite: Whether numbers that are not finite may be written, bare.

    Raises:
        ArtifactError: A number is not finite; the message names its place.
    """
    on_float = _bare_float if allow_non_finite else _refusing(where)
    return _encode(_pretty(_plain(value, "$", on_float, _bare_text), ""))


def dump_foreign_lines(rows: Iterable[Any], *, where: str, allow_non_finite: bool = False) -> bytes:
    """Return one compact line a row, for other tools; see `dump_foreign`."""
    on_float = _bare_float if allow_non_finite else _refusing(where)
    return b"".join(
        _encode(_compact(_plain(row, f"$[{i}]", on_float, _bare_text)))
        for i, row in enumerate(rows)
    )


def load_own(data: bytes, *, where: str) -> Any:
    """Return the value of a document of our own format; arrays come back as lists.

    Args:
        data: The bytes of the file.
        where: The file they come from, for the message.

    Raises:
        MetadataError: It is not JSON.
    """
    value = _parse(data, where)
    # Nearly all files have nothing to restore: no word, no escape, and no encoding that hides them.
    plain = not any(each in data for each in (b"NaN", b"Infinity", b"\\", b"\0"))
    return value if plain else _restored(value)


def load_own_lines(data: bytes, *, where: str) -> list[Any]:
    """Return the values of a file of our own format with one JSON document a line.

    Raises:
        MetadataError: A line is not JSON; the message names it.
    """
    return [
        load_own(line, where=f"{where}:{number}")
        for number, line in enumerate(data.split(b"\n"), start=1)
        if line.strip()
    ]


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except RecursionError as error:
        raise MetadataError("is nested too deeply to be read", where=where) from error
    except ValueError as error:  # not JSON, not UTF-8, or a number with thousands of digits
        raise MetadataError(f"is not valid JSON ({error})", where=where) from error


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if isinstance(value, str):
        if value in _WORDS:
            return _WORDS[value]
        return value[1:] if _ESCAPED.fullmatch(value) else value
    return value


def _plain(value: Any, place: str, on_float: _OnFloat, on_text: _OnText) -> Any:
    """Return `value` in the types that JSON knows, with its floats and texts treated."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        value = _from_numpy(value)
    if isinstance(value, str):
        return on_text(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else on_float(value, place)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, Mapping):
        return _plain_mapping(value, place, on_float, on_text)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(v, f"{place}[{i}]", on_float, on_text) for i, v in enumerate(value)]
    raise TypeError(f"{place}: a {type(value).__name__} has no JSON form")


def _plain_mapping(
    value: Mapping[Any, Any], place: str, on_float: _OnFloat, on_text: _OnText
) -> dict[str, Any]:
    plain = {}
    for key, item in value.items():
        if not isinstance(key, (str, int)) or isinstance(key, bool):
            raise TypeError(f"{place}: a {type(key).__name__} cannot be a JSON key")
        if str(key) in plain:
            raise TypeError(f"{place}: the key {str(key)!r} occurs twice")
        plain[str(key)] = _plain(item, f"{place}.{key}", on_float, on_text)
    return plain


def _from_numpy(value: Any) -> Any:
    import numpy as np

    array = np.asarray(value)
    # float16, float32 and float64 fit a Python float; a wider or complex number would lose bits.
    if array.dtype.kind == "c" or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        raise TypeError(f"an array of {array.dtype} has no exact JSON form")
    return array.tolist()


def _own_float(value: float, place: str) -> str:
    del place
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _own_text(value: str) -> str:
    return f"\\{value}" if _ESCAPABLE.fullmatch(value) else value


def _bare_float(value: float, place: str) -> float:
    del place
    return value


def _bare_text(value: str) -> str:
    return value


def _refusing(where: str) -> _OnFloat:
    def refuse(value: float, place: str) -> Any:
        raise ArtifactError(
            f"{place.removeprefix('$').removeprefix('.')} would be {value}, not a finite number",
            where=where,
            hint="Fix the data or leave the feature out; --force writes it all the same.",
        )

    return refuse


def _pretty(value: Any, indent: str) -> str:
    inner = indent + _INDENT
    if isinstance(value, dict) and value:
        items = (f"{inner}{_compact(key)}: {_pretty(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and _holds_mapping(value):
        return "[\n" + ",\n".join(inner + _pretty(v, inner) for v in value) + f"\n{indent}]"
    return _compact(value)


def _holds_mapping(value: Any) -> bool:
    if isinstance(value, list):
        return any(_holds_mapping(item) for item in value)
    return isinstance(value, dict)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _encode(text: str) -> bytes:
    return (json_safe(text) + "\n").encode("utf-8")
