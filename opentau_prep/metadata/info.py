"""`meta/info.json`: typed reading of the fields that matter, and safe path templates."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from opentau_prep.errors import MetadataError, PrepError
from opentau_prep.metadata.records import Feature
from opentau_prep.storage.base import check_relative

__all__ = [
    "DEFAULT_CHUNKS_SIZE",
    "DEFAULT_DATA_PATH",
    "INFO",
    "as_integer",
    "fill_template",
    "parse_features",
    "parse_fps",
    "parse_version",
    "template_fields",
]

INFO = "meta/info.json"
DEFAULT_CHUNKS_SIZE = 1000
DEFAULT_DATA_PATH = {
    "v2": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "v3": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELD_BODY = re.compile(r"([a-z_]+)(?::(0?[0-9]{0,2})d?)?")


def as_integer(value: object) -> int | None:
    """Return a JSON number as an int when it is one, 3.0 included; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    number = int(value)
    return number if -(2**63) <= number < 2**63 else None


def parse_fps(info: Mapping[str, Any], where: str) -> int | float:
    """Return frames a second, int or float as it is written.

    Raises:
        MetadataError: `fps` is missing, or not a positive finite number.
    """
    fps = info.get("fps")
    ok = isinstance(fps, (int, float)) and not isinstance(fps, bool)
    if ok and math.isfinite(fps) and fps > 0:  # type: ignore[arg-type, operator]
        return fps  # type: ignore[return-value]
    found = "is missing" if "fps" not in info else f"is {fps!r}"
    raise MetadataError(
        f"field `fps` {found}; expected a positive number",
        where=where,
        hint="Put the recording's frame rate (Hz) there.",
    )


def parse_version(info: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return (major, minor) of `codebase_version`, or None when it is missing or not a version."""
    match = re.fullmatch(
        r"v?(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d+)*", str(info.get("codebase_version"))
    )
    return (int(match.group(1)), int(match.group(2) or 0)) if match else None


def parse_features(info: Mapping[str, Any], where: str) -> dict[str, Feature]:
    """Return the features that info.json declares, in its order.

    Entries that are not objects are passed over: `validate` names them.

    Raises:
        MetadataError: `features` is there but not an object.
    """
    raw = info.get("features", {})
    if not isinstance(raw, Mapping):
        raise MetadataError("field `features` must be an object", where=where)
    return {
        str(name): Feature(str(name), str(entry.get("dtype")), _shape(entry.get("shape")))
        for name, entry in raw.items()
        if isinstance(entry, Mapping)
    }


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    dims = [as_integer(v) for v in value]
    return tuple(d for d in dims if d is not None) if None not in dims else ()


def template_fields(template: str) -> frozenset[str]:
    """Return the names of the fields of a path template."""
    bodies = (_FIELD_BODY.fullmatch(body) for body in _FIELD.findall(template))
    return frozenset(match.group(1) for match in bodies if match)


def fill_template(template: str, fields: Mapping[str, int], where: str) -> str:
    """Fill a path template such as `data/chunk-{episode_chunk:03d}/...` from integers.

    The template is untrusted: only plain field names with an integer width are known, so that
    nothing like `{x.__class__}` is ever looked up, and the result must stay below the root.

    Raises:
        MetadataError: A field is unknown or malformed, or the path leaves the dataset.
    """

    def fill(match: re.Match[str]) -> str:
        body = _FIELD_BODY.fullmatch(match.group(1))
        if body is None or body.group(1) not in fields:
            known = ", ".join(sorted(fields))
            raise MetadataError(
                f"path template {template!r} has the unknown field {{{match.group(1)}}}",
                where=where,
                hint=f"Known fields here: {known}; with a width such as :03d.",
            )
        return format(fields[body.group(1)], f"{body.group(2) or ''}d")

    path = _FIELD.sub(fill, template)
    if "{" in path or "}" in path:
        raise MetadataError(f"path template {template!r} has an unpaired brace", where=where)
    try:
        return check_relative(path)
    except PrepError as error:
        raise MetadataError(
            f"path template {template!r} leads outside the dataset",
            where=where,
            hint="It must be relative, without `..`.",
        ) from error
