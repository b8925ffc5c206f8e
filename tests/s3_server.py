"""A real S3 server (moto's) in a process of its own, which logs and may delay every request.

python tests/s3_server.py PORT LOG [DELAY_S]
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["S3Server", "running_s3", "upload_folder"]


@dataclass(frozen=True)
class S3Server:
    """A server that runs.

    Attributes:
        environ: The variables by which S3 clients find it.
        log: Its log.
    """

    environ: dict[str, str]
    log: Path

    def requests(self) -> list[str]:
        """Return the requests since the last `forget`, as "METHOD path range"."""
        return self.log.read_text().splitlines()

    def forget(self) -> None:
        """Empty the log."""
        self.log.write_text("")


@contextlib.contextmanager
def running_s3(folder: Path, *, delay_s: float = 0.0) -> Iterator[S3Server]:
    """Yield a server without buckets that keeps its log in a folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "s3-requests.log"
    log.write_text("")
    process = subprocess.Popen([sys.executable, __file__, str(port), str(log), str(delay_s)])
    environ = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.1)
        yield S3Server(environ, log)
    finally:
        process.terminate()
        process.wait(timeout=10)


def upload_folder(server: S3Server, folder: Path, bucket: str, prefix: str) -> None:
    """Put a folder's files into a bucket, which is made, below a prefix."""
    import boto3

    names = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client(
        "s3", endpoint_url=server.environ["AWS_ENDPOINT_URL"], region_name="us-east-1", **names
    )
    client.create_bucket(Bucket=bucket)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = "/".join(filter(None, [prefix, path.relative_to(folder).as_posix()]))
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def _serve(port: int, log: Path, delay_s: float) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = DomainDispatcherApplication(create_backend_app)

    def counted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        parts = [line, environ.get("QUERY_STRING", ""), environ.get("HTTP_RANGE", "")]
        with log.open("a") as file:
            file.write(" ".join(filter(None, parts)) + "\n")
        if environ["REQUEST_METHOD"] != "PUT":
            time.sleep(delay_s)
        found: Iterable[bytes] = app(environ, start_response)
        return found

    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    make_server("127.0.0.1", port, counted, threaded=True).serve_forever()


if __name__ == "__main__":
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
    _serve(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 0.0)
