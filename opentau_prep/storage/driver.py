"""The stores' drivers: fsspec and the packages it loads, and what their errors mean."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from opentau_prep.errors import ConfigError, EngineError, PrepError
from opentau_prep.extras import optional_package
from opentau_prep.storage.base import storage_error
from opentau_prep.storage.urls import safe_url
from opentau_prep.text import printable

__all__ = ["connect", "told"]

_MAX_REASON = 200
_NO_ACCESS = re.compile(r"credential|auth|forbidden|denied|login|gated", re.IGNORECASE)
_NO_ANSWER = re.compile(r"timeout|timedout|connect|endpoint|dns|network|resolv", re.IGNORECASE)


def connect(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a checked URL, and the root's path in it.

    Raises:
        EngineError: fsspec, or the package it needs for this kind of URL, is not installed.
        ConfigError: No driver is known for this kind of URL.
        MetadataError: The driver cannot be set up: no credentials, no answer.
    """
    need = partial(optional_package, extra="remote", what="a root that is a URL", where=url)
    core, registry = need("fsspec.core"), need("fsspec.registry")
    for protocol in _protocols(url):
        _check_driver(registry, protocol, url)
    with told("meta/", url):
        fs, path = core.url_to_fs(url)
    return fs, str(path).rstrip("/")


def _protocols(url: str) -> list[str]:
    """Return the protocols of a URL, or of each link of a chain of them."""
    links = url.split("::")
    return [link.split("://", 1)[0] for link in links]


def _check_driver(registry: Any, protocol: str, url: str) -> None:
    try:
        registry.get_filesystem_class(protocol)
    except ValueError as error:
        raise ConfigError(
            f"no driver is known for {protocol}://",
            where=url,
            hint="Correct it; known are such as s3://, gs://, abfs:// and hf://datasets/.",
        ) from error
    except ImportError as error:
        known = registry.known_implementations.get(protocol, {})
        package = str(known.get("class", "")).split(".", 1)[0]
        needs = f"the package {package}" if package not in ("", "fsspec") else "another package"
        hint = f"Install it: pip install {package}."
        if package in ("", "fsspec"):
            hint = f"{known.get('err') or error}".strip()
        raise EngineError(f"{protocol}:// needs {needs}", where=url, hint=hint) from error


@contextlib.contextmanager
def told(rel: str, where: str) -> Iterator[None]:
    """Turn what a driver raises into a `PrepError` that says where; one driver call a block."""
    try:
        yield
    except PrepError:
        raise
    # A driver raises the errors of its own HTTP and credential packages, which have no common base.
    except Exception as error:
        raise _explained(rel, where, error) from error


def _explained(rel: str, where: str, error: Exception) -> PrepError:
    reason = _reason(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError) or _status(error) == 404:
        bucket = re.search(r"\b(bucket|container|repository)\s", reason, re.IGNORECASE)
        found = f"cannot be found ({reason})" if bucket else "file is missing"
        return storage_error(
            rel, found, where=where, hint="Correct the root, or upload the file again."
        )
    kind = type(error).__name__
    refused = isinstance(error, PermissionError) or _status(error) in (401, 403)
    if refused or _NO_ACCESS.search(kind):
        return storage_error(
            rel,
            f"no access ({reason})",
            where=where,
            hint="Log in, or set the store's credentials as its own tools expect them.",
        )
    hint = None
    if isinstance(error, ConnectionError | TimeoutError) or _NO_ANSWER.search(kind):
        hint = "Check the network and the store's endpoint, then run it again."
    return storage_error(rel, f"cannot be read ({reason})", where=where, hint=hint)


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error carries, under any of the usual names."""
    answer = getattr(error, "response", None)
    for holder in (error, answer):
        for name in ("status", "status_code", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    return None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    line = next(iter(str(text).strip().splitlines()), "")
    return printable(safe_url(line))[:_MAX_REASON].rstrip(". ") or type(error).__name__
