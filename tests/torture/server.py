"""Commands in forked processes with everything imported, and something that happens to them.

The server is started once under the shim (`python -m torture.server`, LD_PRELOAD set); each trial
is a fork of it, which arms the shim and runs the command line in its own process, so that a trial
costs what the command costs and not the imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli_server import import_everything

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
NO_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS")


@dataclass(frozen=True)
class Fault:
    """What happens at one call that changes a file.

    Attributes:
        call: Its number, from 1; 0 for nothing.
        action: A signal number, or a negative errno.
        after: Whether the signal comes after the call.
        sticky: Whether all later calls fail, too.
        delay_s: Instead of a call: how long after the start the signal comes.
    """

    call: int = 0
    action: int = 0
    after: bool = False
    sticky: bool = False
    delay_s: float | None = None


@dataclass(frozen=True)
class Ran:
    """How a command ended.

    Attributes:
        code: The exit code, or minus the signal that killed it.
        calls: How many calls changed files (only where the process lived to say).
        out: Standard output.
        err: Standard error.
        seconds: How long it took.
        peak_kb: The most memory it held.
    """

    code: int
    calls: int
    out: str
    err: str
    seconds: float
    peak_kb: int
    log: tuple[str, ...] = field(default=())


def build_shim(folder: Path) -> Path | None:
    """Compile the shim; None where there is no C compiler."""
    target = folder / "shim.so"
    source = HERE / "shim.c"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(target), str(source), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return target


class Server:
    """A process that runs commands; used as a context."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="torture-")
        shim = build_shim(Path(self._folder.name))
        if shim is None:
            raise RuntimeError("no C compiler: the shim cannot be built")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        kept = {k: v for k, v in os.environ.items() if k not in NO_LAUNCHER}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "torture.server"],
            env={
                **kept,
                **threads,
                "LD_PRELOAD": str(shim),
                "TORTURE_SHIM": str(shim),
                "PYTHONPATH": f"{REPO}:{HERE.parent}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def run(
        self,
        args: Sequence[str],
        cwd: Path,
        fault: Fault | None = None,
        *,
        log: bool = False,
        env: dict[str, str] | None = None,
    ) -> Ran:
        """Run `opentau-prep ARGS` in a folder; only calls below the folder count."""
        fault = fault or Fault()
        request = {
            "args": list(args),
            "cwd": str(cwd),
            "log": log,
            "env": env or {},
            **fault.__dict__,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        answer["log"] = tuple(answer["log"])
        return Ran(**answer)


def _serve() -> None:
    shim = ctypes.CDLL(os.environ["TORTURE_SHIM"])
    shim.torture_arm.argtypes = [
        ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int
    ]  # fmt: skip
    shim.torture_count.restype = ctypes.c_long
    import_everything()
    gc.collect()
    gc.freeze()  # or the first collection of each child would copy all of it
    for line in sys.stdin.buffer:
        answer = _trial(shim, json.loads(line))
        for name in answer.pop("modules").split():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _trial(shim: Any, request: dict[str, Any]) -> dict[str, Any]:
    files = [os.fdopen(os.memfd_create("out"), "w+b") for _ in range(5)]
    out, err, log, counted, modules = files
    known = set(sys.modules)
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            for fd, file in ((1, out), (2, err)):
                os.dup2(file.fileno(), fd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(request["cwd"])
            os.environ.update(request["env"])
            code = _child(shim, request, log.fileno(), counted.fileno())
            if request["log"]:  # what a command imports late, for the next ones to find
                os.write(modules.fileno(), "\n".join(set(sys.modules) - known).encode())
        finally:
            os._exit(code)
    if request["delay_s"] is not None:
        time.sleep(request["delay_s"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, request["action"])
    _, status, usage = os.wait4(pid, 0)
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read().decode("utf-8", "replace"))
        file.close()
    return {
        "code": os.waitstatus_to_exitcode(status),
        "calls": int(texts[3] or 0),
        "out": texts[0],
        "err": texts[1],
        "seconds": time.monotonic() - start,
        "peak_kb": usage.ru_maxrss,
        "log": texts[2].splitlines(),
        "modules": texts[4],
    }


def _child(shim: Any, request: dict[str, Any], log_fd: int, counted_fd: int) -> int:
    import atexit

    from opentau_prep.__main__ import main

    random.seed()
    sys.argv = ["opentau-prep", *request["args"]]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    bug = request["env"].get("TORTURE_BUG")
    if bug:
        from torture.seeded import apply

        apply(bug)
    call = request["call"] if request["delay_s"] is None else 0
    shim.torture_arm(
        os.fsencode(request["cwd"]),
        call or -1,
        request["action"],
        request["after"],
        request["sticky"],
        log_fd if request["log"] else -1,
    )
    code = 0
    try:
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        sys.stderr.write("Traceback: KeyboardInterrupt reached the top\n")
        code = 71
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(counted_fd, str(shim.torture_count()).encode())
    return code


if __name__ == "__main__":
    _serve()
