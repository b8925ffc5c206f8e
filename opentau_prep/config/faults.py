"""How a fault in a configuration file is reported: which file, which JSON path, which value.

Shared by the readers and the schema, so that every message about a configuration looks the same and
stays on one line whatever the file holds.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from opentau_prep.errors import ConfigError
from opentau_prep.text import printable

__all__ = [
    "Fault",
    "JsonPath",
    "fault_error",
    "format_path",
    "nearest",
    "place",
    "shown",
]

JsonPath = tuple["str | int", ...]

_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")
_SHOWN_CHARS = 60
_SHOWN_ITEMS = 20
_SHOWN_FAULTS = 50


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a configuration.

    Attributes:
        file: The file that holds the faulty value, or None when it came from no file.
        path: Keys and indices from the top of the resolved document.
        message: What was found and what was expected, on one line.
    """

    file: Path | None
    path: JsonPath
    message: str

    @property
    def where(self) -> str:
        """Return `file: path`, as far as both are known."""
        return place(self.file, self.path)


def place(file: Path | str | None, path: Sequence[str | int] = ()) -> str:
    """Return `file: path`, as far as both are known, on one line."""
    parts = [printable(str(file))] if file is not None else []
    return ": ".join([*parts, format_path(path)] if path else parts)


def format_path(path: Sequence[str | int]) -> str:
    """Return a JSON path as people write it.

    Example:
        >>> format_path(("datasets", 3, "state_index", 1))
        'datasets[3].state_index[1]'
        >>> format_path(("stats", "observation.state"))
        'stats["observation.state"]'
    """
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif _PLAIN_KEY.fullmatch(key):
            text += f".{key}" if text else key
        else:
            text += f"[{shown(key)}]"
    return text


def shown(value: object) -> str:
    """Return a JSON value on one line, shortened, with nothing a terminal could act on."""
    if isinstance(value, dict):
        pairs = itertools.islice(value.items(), _SHOWN_ITEMS)
        text = "{" + ", ".join(f"{_leaf(str(key))}: {_leaf(item)}" for key, item in pairs) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(_leaf, value[:_SHOWN_ITEMS])) + "]"
    else:
        text = _leaf(value)
    return printable(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "...")


def _leaf(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        brackets = "{}" if isinstance(value, dict) else "[]"
        return "...".join(brackets) if value else brackets
    if isinstance(value, str):
        value = value[:_SHOWN_CHARS]
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):  # not JSON, or an integer too long for Python to spell out
        return f"a {type(value).__name__}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was most likely meant to be, or None if none is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name[:200].lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def fault_error(faults: Sequence[Fault], *, file: Path | None) -> ConfigError:
    """Return one error for all faults: one is reported on one line, more each on a line of its own.

    Args:
        faults: At least one fault.
        file: The file the user named, which heads the list of several faults.
    """
    if len(faults) == 1:
        return ConfigError(faults[0].message, where=faults[0].where or None)
    lines = [f"{fault.where}: {fault.message}" for fault in faults[:_SHOWN_FAULTS]]
    if len(faults) > _SHOWN_FAULTS:
        lines.append(f"and {len(faults) - _SHOWN_FAULTS} more")
    head = f"{len(faults)} faults"
    return ConfigError("\n".join([head, *lines]), where=place(file) or None)
