"""The few endpoints of the Hugging Face hub that a snapshot download asks for, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serve_hub(root: Path, repo_id: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as a dataset of the hub; yield the endpoint and the paths of files asked for.

    `gated/it` answers as a gated dataset does, and any other name as none at all.
    """
    asked: list[str] = []
    files = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if "gated/it" in path:
                self.send({"error": "restricted"}, 403, {"X-Error-Code": "GatedRepo"}, body)
            elif path == f"/api/datasets/{repo_id}/revision/main":
                siblings = [{"rfilename": name} for name in files]
                info = {"id": repo_id, "sha": COMMIT, "siblings": siblings, "private": False}
                self.send(info, 200, {}, body)
            elif path.startswith(f"/api/datasets/{repo_id}/revision/"):
                self.send({"error": "none"}, 404, {"X-Error-Code": "RevisionNotFound"}, body)
            elif path.startswith(f"/api/datasets/{repo_id}/tree/{COMMIT}"):
                self.send([self.entry(name) for name in files], 200, {}, body)
            elif path.startswith(f"/datasets/{repo_id}/resolve/{COMMIT}/"):
                self.send_file(path.split(f"/{COMMIT}/", 1)[1], body)
            else:
                self.send({"error": "none"}, 404, {"X-Error-Code": "RepoNotFound"}, body)

        def entry(self, name: str) -> dict[str, object]:
            content = files[name].read_bytes()
            oid = hashlib.sha1(content).hexdigest()
            return {"type": "file", "path": name, "size": len(content), "oid": oid}

        def send_file(self, name: str, body: bool) -> None:
            if body:
                asked.append(name)
            content = files[name].read_bytes()
            headers = {"ETag": f'"{self.entry(name)["oid"]}"', "X-Repo-Commit": COMMIT}
            self.send_bytes(content, 200, headers, body)

        def send(self, value: object, status: int, headers: dict[str, str], body: bool) -> None:
            headers = {"Content-Type": "application/json", **headers}
            self.send_bytes(json.dumps(value).encode(), status, headers, body)

        def send_bytes(
            self, content: bytes, status: int, headers: dict[str, str], body: bool
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
