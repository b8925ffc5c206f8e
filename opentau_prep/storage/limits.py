"""How large a metadata file may be: parsed, an object takes up to ten times its text."""

from __future__ import annotations

import math
import os

from opentau_prep.errors import ConfigError, MetadataError

__all__ = ["MAX_METADATA", "check_size", "metadata_limit"]

MAX_METADATA = "OPENTAU_PREP_MAX_METADATA_MB"
"""The environment variable that sets another limit."""

_MB = 1 << 20
_MAX_OBJECT_MB = 64
# The largest published tables of episode stats have some 3 kB per episode.
_MAX_LINES_MB = 512


def check_size(rel: str, size: int, where: str) -> None:
    """Raise `MetadataError` for a JSON file of more bytes than any real one has.

    Args:
        rel: The file; what is neither JSON nor JSON lines has no limit.
        size: Its size in bytes.
        where: What a message calls it.
    """
    if size <= _MB or not rel.endswith((".json", ".jsonl")):
        return
    limit = metadata_limit(rel)
    if size > limit:
        needed = math.ceil(size / _MB)
        raise MetadataError(
            f"is {size / _MB:,.0f} MB; more than {limit / _MB:,.0f} MB is not read",
            where=where,
            hint=f"Restore the file from its source, or set {MAX_METADATA}={needed}.",
        )


def metadata_limit(rel: str) -> int:
    """Return how many bytes a metadata file may have: a table of lines more than one object.

    Raises:
        ConfigError: The environment variable that sets it is not a positive number.
    """
    text = os.environ.get(MAX_METADATA, "")
    if not text:
        return (_MAX_LINES_MB if rel.endswith(".jsonl") else _MAX_OBJECT_MB) * _MB
    if text.isascii() and text.isdigit() and 0 < int(text) < _MB:
        return int(text) * _MB
    raise ConfigError(
        f"{MAX_METADATA} is {text!r}, expected a whole number of MB above 0", where="environment"
    )
