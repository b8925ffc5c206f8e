"""A process that has imported the package, and forks itself for each command line.

Importing takes longer than most commands do. The server starts no thread, and those that NumPy and
Arrow have at import are made for forks, so that its children are what a new process would be after
its imports. A request is one connection: the words,
the folder and the environment as JSON, with the descriptors of stdin, stdout and stderr; the answer
is the exit code, negative for a signal.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import struct
import sys


def serve(address: str) -> None:
    """Answer requests until stdin ends; in a child, return what it has to do."""
    import_everything()
    gc.collect()
    gc.freeze()  # or every child's first collection would copy all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(connection)
            return
        connection.close()


def import_everything() -> None:
    """Import what commands import, so that forks need not."""
    import opentau_prep

    for module in pkgutil.walk_packages(opentau_prep.__path__, "opentau_prep."):
        if "assets" in module.name or module.name.endswith("__main__"):
            continue
        with contextlib.suppress(ImportError):
            importlib.import_module(module.name)


def _answer(connection: socket.socket) -> None:
    """Start the command in a child, which returns; end with its exit code as the answer."""
    size, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    (length,) = struct.unpack("<q", size)
    request = json.loads(_received(connection, length))
    pid = os.fork()
    if pid:
        connection.sendall(struct.pack("<q", pid))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(struct.pack("<q", code))
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    os.chdir(request["cwd"])
    sys.argv = ["opentau-prep", *request["args"]]


def _received(connection: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length:
        part = connection.recv(length - len(found))
        if not part:
            os._exit(1)
        found += part
    return found


def run_and_leave() -> None:
    """Run the command line and end, without taking the modules down one by one."""
    from opentau_prep.__main__ import main

    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    serve(sys.argv[1])
    run_and_leave()
