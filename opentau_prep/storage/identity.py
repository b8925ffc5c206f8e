"""What a store reports of a file's content, as one hash: nothing has to be downloaded for it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["FileFacts", "facts_of", "identity_of"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
# By content, the first of these that is there: GCS, the hub's Git, zip archives, S3, Azure.
_BY_CONTENT = ("md5Hash", "blob_id", "sha", "CRC", "ETag", "etag", "e_tag")
_BY_TIME = ("LastModified", "last_modified", "updated", "mtime", "modified", "modify", "created")


class FileFacts(NamedTuple):
    """What is kept of a listed file: there can be very many.

    Attributes:
        size: In bytes; None when the store does not tell.
        digest: See `identity_of`.
    """

    size: int | None
    digest: str | None


def facts_of(info: Mapping[str, Any]) -> FileFacts:
    """Return what is kept of a file's entry in an fsspec listing."""
    size = info.get("size")
    return FileFacts(size if isinstance(size, int) else None, identity_of(info))


def identity_of(info: Mapping[str, Any]) -> str | None:
    """Return 64 hexadecimal digits that change when a file's content does, if there are any.

    The content's own SHA-256 where the store reports it, as the Hugging Face hub does: the same as
    that of a local copy. Else a hash over the file's size and its checksum or ETag, or, where the
    store has none, over its size and time of modification: then a copy counts as changed.

    Args:
        info: A file's entry in an fsspec listing.
    """
    lfs = info.get("lfs")
    sha256 = lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None)
    if isinstance(sha256, str) and _SHA256.fullmatch(sha256):
        return sha256
    for name in (*_BY_CONTENT, *_BY_TIME):
        value = info.get(name)
        if value not in (None, "", b""):
            text = f"{info.get('size')}\0{name.lower()}\0{value}"
            return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return None
