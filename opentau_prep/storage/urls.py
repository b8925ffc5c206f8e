"""Roots that are URLs: distinguished from folders, checked, and shown without secrets."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from opentau_prep.errors import ConfigError
from opentau_prep.text import without_secrets

__all__ = [
    "absolute_root",
    "check_url",
    "check_written",
    "command_at",
    "is_remote",
    "refuse_secrets",
    "safe_url",
    "scheme_of",
    "shell_command",
]

# `s3://`, or the first link of a chain such as `simplecache::s3://`. One letter is a drive.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)(?:://|::)", re.IGNORECASE)
_WAS_URL = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
_TOKEN_SCHEMES = ("http", "https")


def scheme_of(root: str | os.PathLike[str]) -> str | None:
    """Return a URL's scheme in small letters; None for a folder's path."""
    text = os.fspath(root)
    match = _SCHEME.match(text) if "://" in text else None
    return match.group(1).lower() if match is not None else None


def is_remote(root: str | os.PathLike[str]) -> bool:
    """Tell whether a root is read through a store's driver: a URL, but not `file://`."""
    return scheme_of(root) not in (None, "file")


def absolute_root(root: str | os.PathLike[str]) -> str:
    """Return a root as any working directory understands it; a URL as it is."""
    return os.fspath(root) if is_remote(root) else os.path.abspath(root)


def shell_command(name: str, roots: Iterable[str | os.PathLike[str]], *options: object) -> str:
    """Return a command of this tool on datasets, ready to paste into a shell in any folder."""
    return shlex.join(["opentau-prep", name, *map(absolute_root, roots), *map(str, options)])


def command_at(name: str, where: str, *options: object) -> str:
    """Return a command on the dataset whose file below `meta/` an error names.

    Where it names another file, the dataset is for the user to add.
    """
    root = where.rpartition("/meta/")[0]
    return shell_command(name, [root] if root else [], *options)


def check_url(url: str) -> str:
    """Return the URL of a remote root without a slash at its end.

    Raises:
        ConfigError: It holds credentials or a query, names no folder, or cannot be listed.
    """
    where = safe_url(url)
    if scheme_of(url) in _TOKEN_SCHEMES:
        raise ConfigError(
            "a web server's folders cannot be listed",
            where=where,
            hint="Use the store's own URL, such as hf://datasets/OWNER/NAME or s3://BUCKET/NAME.",
        )
    refuse_secrets(url)
    if any(ord(char) < 32 or char == "\x7f" for char in url):
        raise ConfigError("has characters that no URL should have", where=repr(where))
    bare = url.rstrip("/")
    if bare.endswith(":"):
        raise ConfigError("names no folder", where=where, hint="Expected such as s3://BUCKET/NAME.")
    if ".." in bare.split("/"):
        raise ConfigError("must not hold `..`", where=where, hint="Correct the root.")
    return bare


def refuse_secrets(url: str) -> None:
    """Raise `ConfigError` where a URL holds credentials, a query or a fragment."""
    where = safe_url(url)
    if where != url:
        raise ConfigError(
            "a root must hold no credentials, query or fragment",
            where=where,
            hint="Put credentials where the store's driver looks for them: its environment"
            " variables, its login, or fsspec's configuration files.",
        )


def check_written(path: Path, what: str) -> Path:
    """Return a place that something will be written to.

    Raises:
        ConfigError: It was given as a URL: as a path, `s3://b/x` has become `s3:/b/x`.
    """
    match = _WAS_URL.match(str(path))
    if match is None:
        return path
    if match.group(1).lower() == "file":
        hint = "Give the path without file://."
    else:
        hint = "Name a folder or file of this machine, and upload it afterwards."
    raise ConfigError(f"{what} is a URL, but only paths are written to", hint=hint)


def safe_url(text: str) -> str:
    """Return a URL, or a text with one in it, as it may be shown; see `text.without_secrets`."""
    return without_secrets(text)
