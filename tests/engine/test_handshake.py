"""What answers at a cluster's address is named before a cluster's own client waits for it."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from opentau_prep.engine import handshake
from opentau_prep.engine.handshake import check_dask, check_ray
from opentau_prep.errors import EngineError

# The first bytes of a real scheduler (distributed 2026.8) and of a real ray GCS (ray 2.60).
DASK = bytes.fromhex("3a00000000000000 0100000000000000 2a00000000000000 83ab636f6d70")
GRPC = bytes.fromhex("000018040000000000 000400400000 000500400000 000600004000")


@contextlib.contextmanager
def listening(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yield the address of a server that lets `speak` answer each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                speak(connection)
                while connection.recv(1024):  # until the other side has gone
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def at_once(content: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(content)


@pytest.fixture
def web_server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "_ANSWER_S", 0.3)


def test_the_right_server_is_let_through() -> None:
    with listening(at_once(DASK)) as address:
        check_dask(address, "--engine-address")
        check_dask(f"tcp://{address}", "--engine-address")
    with listening(at_once(GRPC)) as address:
        check_ray(address, "--engine-address")
        check_ray(f"ray://{address}", "--engine-address")


@pytest.mark.parametrize("check", [check_dask, check_ray])
def test_a_web_server_is_named(check: Callable[[str, str], None], web_server: str) -> None:
    with pytest.raises(EngineError, match=r"a web server \(SimpleHTTP.*answers, not a "):
        check(web_server, "--engine-address")


@pytest.mark.parametrize(
    ("check", "content", "named"),
    [
        (check_dask, GRPC, "a gRPC server"),
        (check_ray, DASK, "a dask scheduler"),
        (check_ray, b"SSH-2.0-OpenSSH_9.6\r\n", "a server that sends 'SSH-2.0-OpenSSH_9.6'"),
        (check_dask, b"\x15\x03\x01\x00\x02\x02\x32", "a server that expects TLS"),
        (check_dask, b"", "something that sends nothing"),
        (check_ray, b"", "something that sends nothing"),
    ],
)
def test_another_server_is_named(
    check: Callable[[str, str], None], content: bytes, named: str
) -> None:
    with listening(at_once(content)) as address, pytest.raises(EngineError) as caught:
        check(address, "--engine-address")
    assert caught.value.message.startswith(named)
    assert "not a" in caught.value.message


def test_schemes_with_a_handshake_of_their_own_are_left_to_dask() -> None:
    check_dask("tls://127.0.0.1:9", "--engine-address")
    check_dask("nonsense", "--engine-address")
