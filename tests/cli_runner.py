"""Run the command line as users do: in a process of its own."""

from __future__ import annotations

import atexit
import functools
import io
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

TIMEOUT_S = 300

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS")


@dataclass(frozen=True)
class Ran:
    """What a run printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def warnings(self) -> list[str]:
        """The lines of stderr that are warnings."""
        return [line for line in self.err.splitlines() if line.startswith("Warning: ")]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this environment without a launcher's variables, and with `extra`."""
    kept = {k: v for k, v in os.environ.items() if k not in LAUNCHER_VARIABLES}
    return {**kept, **(extra or {})}


def command(*args: object) -> list[str]:
    """Return the command line of a run."""
    return [sys.executable, "-m", "opentau_prep", *map(str, args)]


def run_cli(*args: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """Run `opentau-prep ARGS` to its end, in a process forked from one that has imported it."""
    request = {
        "args": [str(arg) for arg in args],
        "cwd": os.fspath(cwd or Path.cwd()),
        "env": environment(env),
    }
    document = json.dumps(request).encode("utf-8", "surrogateescape")
    with (
        open(os.devnull, "rb") as nothing,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.settimeout(TIMEOUT_S)
        connection.connect(_server())
        files = [each.fileno() for each in (nothing, out, err)]
        socket.send_fds(connection, [struct.pack("<q", len(document))], files)
        connection.sendall(document)
        pid = _number(connection)
        try:
            code = _number(connection)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise
        texts = [_text(file) for file in (out, err)]
    return Ran(code, *texts)


def paste(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a printed command in a shell, as a user would paste it, with this interpreter."""
    program = f"{shlex.quote(sys.executable)} -m opentau_prep"
    line = " && ".join(part.replace("opentau-prep", program, 1) for part in line.split(" && "))
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    env = environment({"PYTHONPATH": os.pathsep.join(paths)})
    return subprocess.run(
        line, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT_S
    )


@functools.cache
def _server() -> str:
    """Return the address of this process's server, which ends with it."""
    folder = tempfile.mkdtemp(prefix="prep-cli-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address = os.path.join(folder, "socket")
    script = str(Path(__file__).with_name("cli_server.py"))
    server = subprocess.Popen([sys.executable, script, address], stdout=subprocess.PIPE)
    atexit.register(server.kill)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return address


def _number(connection: socket.socket) -> int:
    found = b""
    while len(found) < 8:
        part = connection.recv(8 - len(found))
        assert part, "the command's process is gone"
        found += part
    return int(struct.unpack("<q", found)[0])


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return io.TextIOWrapper(file, encoding="utf-8").read()
