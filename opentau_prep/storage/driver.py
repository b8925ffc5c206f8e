"""The stores' drivers: fsspec and the packages it loads, and what their errors mean.

Drivers retry by themselves, some for minutes, and a store that takes requests and sends nothing
would keep them waiting. So every request, retries included, has `STORE_TIMEOUT_S` in all.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from opentau_prep.errors import ConfigError, EngineError, PrepError
from opentau_prep.extras import optional_package
from opentau_prep.storage.base import storage_error
from opentau_prep.storage.urls import safe_url
from opentau_prep.text import printable

__all__ = ["Store", "connect", "is_silence", "store_timeout"]

T = TypeVar("T")

_TIMEOUT = "OPENTAU_PREP_STORE_TIMEOUT_S"
_DEFAULT_TIMEOUT_S = 60.0
_MAX_REASON = 200
_NO_ACCESS = re.compile(r"credential|auth|forbidden|denied|login|gated", re.IGNORECASE)
_NO_ANSWER = re.compile(r"timeout|timedout|connect|endpoint|dns|network|resolv", re.IGNORECASE)


class Store:
    """A root in a store, to be asked by whole requests.

    Attributes:
        fs: The fsspec file system.
        base: The root's path in it.
        concurrent: Whether it can send several requests at once.
    """

    def __init__(self, fs: Any, base: str, url: str, seconds: float) -> None:
        self.fs, self.base = fs, base
        self.concurrent: bool = getattr(fs, "async_impl", False)
        self._name, self._seconds = _host(url), seconds

    def ask(self, rel: str, where: str, request: Callable[[Any], T]) -> T:
        """Return what a request to the driver gives.

        Args:
            rel: What is asked for: decides which error is raised.
            where: The same, for messages.
            request: Asks the file system, once.

        Raises:
            PrepError: It fails, or takes too long.
        """
        with _explaining(rel, where):
            return _within(self._seconds, self._name, partial(request, self.fs))


class _SilentError(TimeoutError):
    """A request that took too long, or went to a store that has just been silent."""


# Store -> when it was last found silent, and when it last answered.
_silent_since: dict[str, float] = {}
_answered: dict[str, float] = {}


def _within(seconds: float, name: str, request: Callable[[], T]) -> T:
    """Return what a request gives, unless it takes longer.

    A store that has not answered one request in time, nor any other meanwhile, is not waited for
    again within the same limit: a thousand datasets would each take it in full.
    """
    started = time.monotonic()
    if started - _silent_since.get(name, -seconds) < seconds:
        raise _silence(seconds)
    outcome: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((True, request()))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            outcome.put((False, error))

    # A daemon: a thread that hangs in a driver must not keep the process from ending.
    threading.Thread(target=run, name="store request", daemon=True).start()
    try:
        done, value = outcome.get(timeout=seconds)
    except Empty:
        if _answered.get(name, -1.0) < started:
            _silent_since[name] = time.monotonic()
        raise _silence(seconds) from None
    _answered[name] = time.monotonic()
    _silent_since.pop(name, None)
    if not done:
        raise value
    result: T = value
    return result


def _silence(seconds: float) -> _SilentError:
    return _SilentError(f"no answer within {seconds:g} s")


def store_timeout() -> float:
    """Return how many seconds a request to a store may take: `$OPENTAU_PREP_STORE_TIMEOUT_S`.

    Raises:
        ConfigError: The variable is not a positive number.
    """
    text = os.environ.get(_TIMEOUT, "")
    try:
        seconds = float(text) if text else _DEFAULT_TIMEOUT_S
    except ValueError:
        seconds = -1.0
    if 0 < seconds < threading.TIMEOUT_MAX:
        return seconds
    raise ConfigError(
        f"{_TIMEOUT} is {text!r}, expected a number of seconds above 0", where="environment"
    )


def is_silence(error: PrepError) -> bool:
    """Return whether an error says that the store did not answer in time."""
    return isinstance(error.__cause__, _SilentError)


def _host(url: str) -> str:
    """Return the scheme and bucket of a URL: what is silent or not as one."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def connect(url: str, seconds: float) -> Store:
    """Return the store of a checked URL.

    Args:
        url: The root.
        seconds: How long a request may take; see `store_timeout`.

    Raises:
        EngineError: fsspec, or the package it needs for this kind of URL, is not installed.
        ConfigError: No driver is known for this kind of URL.
        MetadataError: The driver cannot be set up: no credentials, no answer.
    """
    need = partial(optional_package, extra="remote", what="a root that is a URL", where=url)
    core, registry = need("fsspec.core"), need("fsspec.registry")
    for protocol in _protocols(url):
        _check_driver(registry, protocol, url)
    with _explaining("meta/", url):
        # In this thread: drivers keep one connection for all roots, but per thread.
        fs, path = core.url_to_fs(url)
    return Store(fs, str(path).rstrip("/"), url, seconds)


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
def _explaining(rel: str, where: str) -> Iterator[None]:
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
    if isinstance(error, _SilentError):
        return storage_error(
            rel,
            f"the store gives {reason}",
            where=where,
            hint=f"Check the network and the store's endpoint; {_TIMEOUT} sets the limit.",
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
