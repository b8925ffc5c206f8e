"""What listens at a cluster's address: asked before its own client, which may wait for ever.

A client of dask takes the first bytes of any answer for the length of the next message, and a
client of ray retries for a minute. So the address is connected to once, and what answers is named.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Callable

from opentau_prep.errors import EngineError

__all__ = ["HANDSHAKE_S", "check_dask", "check_ray"]

HANDSHAKE_S = 15.0
"""How long it may take until a cluster lets this process in, or is known to be none."""

_CONNECT_S = 5.0
_ANSWER_S = 3.0
# A scheduler's first message names its versions: a few hundred bytes.
_MAX_DASK_MESSAGE = 1 << 24
_WEB_REQUEST = b"GET / HTTP/1.0\r\n\r\n"
# RFC 9113, 3.4: the connection preface and an empty SETTINGS frame, which a server answers in kind.
_HTTP2_REQUEST = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_ADDRESS = re.compile(r"(?:[a-z]+://)?(\[[^\]]+\]|[^:/\[\]]+):([0-9]+)/?")


def check_dask(address: str, where: str) -> None:
    """Raise `EngineError` unless a dask scheduler listens at a plain TCP address.

    Addresses of other kinds (`tls://`, `ws://`, ...) are left to dask's client.
    """
    if address.startswith("tcp://") or "://" not in address:
        _check(address, where, b"", _is_dask, "dask scheduler", "dask scheduler")


def check_ray(address: str, where: str) -> None:
    """Raise `EngineError` unless a gRPC server, as a ray cluster's, listens at a `host:port`."""
    if address.startswith("ray://") or "://" not in address:
        _check(address, where, _HTTP2_REQUEST, _is_grpc, "ray cluster", "ray start --head")


def _check(
    address: str,
    where: str,
    request: bytes,
    is_right: Callable[[bytes], bool],
    what: str,
    starts_with: str,
) -> None:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return
    host, port = match[1].strip("[]"), int(match[2])
    hint = f"Start one with `{starts_with}`, or leave --engine-address out."
    try:
        answer = _answer(host, port, request)
        # Asked second, since web servers may speak gRPC's HTTP/2 too, and name themselves here.
        web = b"" if request == b"" and is_right(answer) else _answer(host, port, _WEB_REQUEST)
        if is_right(answer) and not web.startswith(b"HTTP/"):
            return
        other = web if web.startswith(b"HTTP/") else answer or web
    except (OSError, OverflowError, UnicodeError) as error:
        raise EngineError(f"no {what} answers ({error})", where=where, hint=hint) from error
    message = f"{_describe(other)} answers, not a {what}"
    raise EngineError(message, where=where, hint=hint)


def _answer(host: str, port: int, request: bytes) -> bytes:
    """Return the first bytes that a server sends after a request; none when it stays silent."""
    deadline = time.monotonic() + _ANSWER_S
    found = b""
    with socket.create_connection((host, port), timeout=_CONNECT_S) as connection:
        if request:
            connection.sendall(request)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while len(found) < 512 and (left := deadline - time.monotonic()) > 0:
                connection.settimeout(left)
                part = connection.recv(512)
                found += part
                if not part or _is_dask(found) or _is_grpc(found):
                    break
    return found


def _is_dask(answer: bytes) -> bool:
    # distributed/comm/tcp.py: the length of the message, then how many frames it has.
    if len(answer) < 16:
        return False
    size, frames = struct.unpack_from("<QQ", answer)
    return bool(0 < size < _MAX_DASK_MESSAGE and 0 < frames < 1024)


def _is_grpc(answer: bytes) -> bool:
    # RFC 9113, 4.1: 24 bits of length, then the type; 4 is SETTINGS.
    return len(answer) >= 9 and answer[:2] == b"\0\0" and answer[3] == 4 and answer[5:9] == bytes(4)


def _describe(answer: bytes) -> str:
    if not answer:
        return "something that sends nothing"
    if answer.startswith(b"HTTP/"):
        server = re.search(rb"\r\n[Ss]erver: ([ -~]{1,60})", answer)
        return "a web server" + (f" ({server[1].decode('ascii')})" if server else "")
    if _is_grpc(answer):
        return "a gRPC server (ray is one)"
    if _is_dask(answer):
        return "a dask scheduler or worker"
    if answer[:2] == b"\x15\x03":
        return "a server that expects TLS"
    line = answer.splitlines()[0][:40].decode("latin-1")
    shown = "".join(char if " " <= char <= "~" else "." for char in line)
    return f"a server that sends {shown!r}"
