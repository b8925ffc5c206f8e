"""A user's folder is replaced by force; the run is killed, interrupted or fails at every call."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from opentau_prep.artifacts import Recipe, folders
from opentau_prep.artifacts.place import folder_place
from opentau_prep.artifacts.store import State, inspect, publish
from opentau_prep.artifacts.tempfiles import list_temps, remove_live
from opentau_prep.errors import PrepError

FILES = {"a.json": b"new a", "b.json": b"new b"}
THEIRS = {"notes.txt": b"years of notes", "a.json": b"old a"}
RECIPE = Recipe("fit", {"episodes": {"count": 19}}, {"scale": 10})
OTHER = Recipe("fit", {"episodes": {"count": 105}}, {"scale": 10})

Act = Callable[[], None]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ctrl_c() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def at_call(step: int, act: Act, *, after: bool) -> Callable[[], int]:
    """Let `act` happen at the step-th call that changes the disk; returns how many there were."""
    calls = 0

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            mine = calls
            if mine == step and not after:
                act()
            result = function(*args, **kwargs)
            if mine == step and after:
                act()
            return result

        return call

    for name in ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir", "open"):
        setattr(os, name, counted(getattr(os, name)))
    folders._exchanged = counted(folders._exchanged)  # type: ignore[assignment]
    return lambda: calls


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else {}


def run(root: Path, step: int, act: Act, *, after: bool, exchange: bool) -> tuple[int, str]:
    """Publish over their folder in a child; returns its exit code and what it said."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "out").mkdir(parents=True)
    for name, data in THEIRS.items():
        (root / "out" / name).write_bytes(data)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if not exchange:
                ctypes.CDLL = lambda *a, **k: None  # type: ignore[assignment, misc]
            counted = at_call(step, act, after=after)
            publish(folder_place("tokenizer", root / "out", "--out-dir"), FILES, RECIPE, force=True)
            code = 0 if counted() < step else 77
        except PrepError as error:
            os.write(write, str(error).encode())
            code = error.exit_code
        except KeyboardInterrupt:
            remove_live()  # as the command line does, and any process at its end
            code = 130
        finally:
            os._exit(code)
    os.close(write)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(read, "rb") as pipe:
        return code, pipe.read().decode()


def problems_of(root: Path, code: int, said: str, where: str, *, exchange: bool) -> list[str]:
    found = []
    names = [p.name for p in root.iterdir() if content(p) == THEIRS]
    good = [n for n in names if n == "out" or n.startswith("out.bak-")]
    if len(good) != 1 or names != good:
        found.append(f"{where}: theirs is at {names}, all: {sorted(os.listdir(root))}")
    if "unchanged" in said and good != ["out"]:
        found.append(f"{where}: {said!r}, but it is at {good}")
    if code not in (0, 4, 77, 130, -9):
        found.append(f"{where}: exit {code}")
    if code in (4, 130) and list_temps(root):
        found.append(f"{where}: left {list_temps(root)}")
    # Without an exchange, a kill between two renames leaves the old folder under its backup's name.
    if not content(root / "out") and (exchange or code != -9):
        found.append(f"{where}: nothing at the place")
    place = folder_place("tokenizer", root / "out", "--out-dir")
    ours = inspect(place, RECIPE).state is State.FRESH
    publish(place, FILES, OTHER, force=not ours)
    left = [n for n in sorted(os.listdir(root)) if n != "out" and content(root / n) != THEIRS]
    if left or not inspect(place, OTHER).fresh:
        found.append(f"{where}: after the next run {left}")
    if [p.name for p in root.iterdir() if content(p) == THEIRS] == []:
        found.append(f"{where}: theirs is gone after the next run")
    return found


def every_call(root: Path, how: str, exchange: str) -> dict[str, object]:
    act = {"kill": kill, "ctrl-c": ctrl_c, "eio": fail}[how]
    problems: list[str] = []
    steps = 0
    for after in (False, True):
        for step in range(1, 300):
            code, said = run(root, step, act, after=after, exchange=exchange == "exchange")
            if code == 0:
                break
            steps += 1
            where = f"{'after' if after else 'at'} call {step}"
            problems += problems_of(root, code, said, where, exchange=exchange == "exchange")
    return {"steps": steps, "problems": problems}


if __name__ == "__main__":
    scenario, folder, *rest = sys.argv[1:]
    sys.stdout.write(json.dumps(globals()[scenario](Path(folder), *rest)) + "\n")
