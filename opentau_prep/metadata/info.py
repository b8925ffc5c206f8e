"""`meta/info.json`: typed reading of the fields that matter."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.records import Feature
from opentau_prep.notices import some_names

__all__ = [
    "DEFAULT_CHUNKS_SIZE",
    "INFO",
    "as_integer",
    "check_own",
    "chunks_size",
    "parse_dtypes",
    "parse_features",
    "parse_fps",
    "parse_version",
    "shown",
    "template_fields",
]

INFO = "meta/info.json"
DEFAULT_CHUNKS_SIZE = 1000
# Beyond these a number is damage, and sums of it would overflow.
MAX_INDEX = 2**40
MAX_FPS = 1e9
_MAX_NAMES_DEPTH = 4
# An info.json with none of these and no features was not written by any version of LeRobot.
_OWN_FIELDS = ("data_path", "total_episodes", "total_frames", "fps", "chunks_size")
# A field of a path template, and what it may hold: a plain name and an integer width.
FIELD = re.compile(r"\{([^{}]*)\}")
FIELD_BODY = re.compile(r"([a-z_]+)(?::(0?[0-9]{0,2})d?)?")


def as_integer(value: object) -> int | None:
    """Return a JSON number as an int when it is one, 3.0 included; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    number = int(value)
    return number if -MAX_INDEX <= number <= MAX_INDEX else None


def shown(value: object) -> str:
    """Return a JSON value as a message can hold it: on one line, and short."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, int) and abs(value) > MAX_INDEX:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_fps(info: Mapping[str, Any], where: str) -> int | float:
    """Return frames per second, int or float as it is written.

    Raises:
        MetadataError: `fps` is missing, or not a positive finite number.
    """
    fps = info.get("fps")
    if isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < MAX_FPS:
        return fps
    found = "is missing" if "fps" not in info else f"is {shown(fps)}"
    raise MetadataError(
        f"field `fps` {found}; expected a number above 0 and below {MAX_FPS:g}",
        where=where,
        hint="Put the recording's frame rate (Hz) there.",
    )


def parse_version(info: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return (major, minor) of `codebase_version`, or None when it is missing or not a version."""
    declared = info.get("codebase_version")
    return _version_of(str(declared)) if isinstance(declared, str | float) else None


def check_own(info: Mapping[str, Any], where: str) -> None:
    """Raise a `MetadataError` where info.json is another program's altogether."""
    if parse_version(info) in ((2, 0), (2, 1), (3, 0)):
        return
    features = info.get("features")
    own = [name for name in _OWN_FIELDS if name in info]
    if len(own) < 2 and not (isinstance(features, Mapping) and features):
        raise MetadataError(
            f"is not LeRobot's: its fields are {some_names(info) or 'none'}",
            where=where,
            hint="Convert the dataset to LeRobot's format, or restore its own info.json.",
        )


@functools.lru_cache(maxsize=64)  # a few versions for all the datasets there are
def _version_of(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"v?(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d+)*", text.strip(), re.ASCII)
    return (int(match.group(1)), int(match.group(2) or 0)) if match else None


def parse_features(info: Mapping[str, Any], where: str) -> dict[str, Feature]:
    """Return the features that info.json declares, in its order.

    Entries that are not objects are passed over: `validate` names them.

    Raises:
        MetadataError: `features` is there but not an object.
    """
    return {
        name: Feature(
            name, _text(entry.get("dtype")), _shape(entry.get("shape")), _names(entry.get("names"))
        )
        for name, entry in _entries(info, where)
    }


def parse_dtypes(info: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return the dtypes that info.json declares, by column and in its order; see `parse_features`.

    Raises:
        MetadataError: `features` is there but not an object.
    """
    return {
        name: dtype if type(dtype := entry.get("dtype")) is str else ""
        for name, entry in _entries(info, where)
    }


def _entries(info: Mapping[str, Any], where: str) -> list[tuple[str, Mapping[str, Any]]]:
    raw = info.get("features")
    if raw is None:
        return []
    if not isinstance(raw, dict):
        raise MetadataError(
            f"field `features` is {shown(raw)}; expected an object: column -> dtype, shape, names",
            where=where,
            hint="Is this another project's schema? Map the columns or convert the dataset.",
        )
    return [(name, entry) for name, entry in raw.items() if isinstance(entry, dict)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _names(value: object, depth: int = 0) -> tuple[str, ...]:
    """Return names that are written as a list, a list of lists, or a dict of lists."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping):
        listed = [v for v in value.values() if isinstance(v, list)]
        value = listed or list(value)
    if not isinstance(value, list) or depth == _MAX_NAMES_DEPTH:
        return ()
    return tuple(name for entry in value for name in _names(entry, depth + 1))


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    dims = [as_integer(v) for v in value]
    return tuple(d for d in dims if d is not None) if None not in dims else ()


def chunks_size(info: Mapping[str, Any], where: str) -> int:
    """Return how many episodes (v2.x) share a chunk folder, by default 1,000.

    Raises:
        MetadataError: `chunks_size` is there but not a whole number above 0.
    """
    declared = info.get("chunks_size")
    size = DEFAULT_CHUNKS_SIZE if declared is None else as_integer(declared)
    if size is None or size < 1:
        raise MetadataError(
            f"field `chunks_size` is {shown(declared)}; expected a whole number of 1 or more",
            where=where,
            hint=f"LeRobot's own is {DEFAULT_CHUNKS_SIZE}.",
        )
    return size


def template_fields(template: str) -> frozenset[str]:
    """Return the names of the well-formed fields of a path template."""
    bodies = (FIELD_BODY.fullmatch(body) for body in FIELD.findall(template))
    return frozenset(match.group(1) for match in bodies if match)
