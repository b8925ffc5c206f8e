"""Processes that write, race and get killed; run as a script so that it can fork cleanly."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from opentau_prep.artifacts import Recipe, dataset_place, ensure_file, publish
from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.store import State, inspect
from opentau_prep.artifacts.tempfiles import list_temps
from opentau_prep.errors import PrepError


def content_of(seed: int, size: int) -> bytes:
    """A content that can be checked on its own: the hash of the body, then the body."""
    body = random.Random(seed).randbytes(size)
    return hashlib.sha256(body).hexdigest().encode() + body


def is_whole(data: bytes) -> bool:
    return hashlib.sha256(data[64:]).hexdigest().encode() == data[:64]


def recipe_of(seed: int) -> Recipe:
    return Recipe("test", {"episodes": {"count": seed}}, {"size": 1})


def fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except PrepError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def leftovers(root: Path) -> list[str]:
    return [str(t) for d, _, _ in os.walk(root) for t in list_temps(Path(d))]


def race(root: Path) -> dict[str, object]:
    """16 processes write one file over and over, while two read it."""
    path = root / "meta" / "artifact.bin"
    write_atomic(path, content_of(0, 50_000))
    stop_at = time.monotonic() + 2.0

    def writer(seed: int) -> None:
        contents = [content_of(seed * 10 + i, 20_000 + 9_000 * seed) for i in range(3)]
        while time.monotonic() < stop_at:
            for content in contents:
                write_atomic(path, content)

    def reader() -> None:
        seen = set()
        while time.monotonic() < stop_at:
            data = path.read_bytes()
            if not is_whole(data):
                raise SystemExit
            seen.add(data[:64])
        if len(seen) < 5:
            raise SystemExit

    pids = [fork(lambda seed=seed: writer(seed)) for seed in range(16)]
    pids += [fork(reader), fork(reader)]
    codes = [exit_code(pid) for pid in pids]
    return {"codes": codes, "whole": is_whole(path.read_bytes()), "leftovers": leftovers(root)}


def publish_race(root: Path) -> dict[str, object]:
    """16 processes publish different contents at one place at the same time."""
    place = dataset_place("validation", root)

    def work(seed: int) -> None:
        for i in range(4):
            number = seed * 100 + i
            content = content_of(number, 100_000)
            ensure_file(place, lambda: content, recipe_of(number))  # noqa: B023

    codes = [exit_code(pid) for pid in [fork(lambda s=s: work(s)) for s in range(16)]]
    found = [inspect(place, recipe_of(s * 100 + i)).state for s in range(16) for i in range(4)]
    return {
        "codes": codes,
        "fresh": found.count(State.FRESH),
        "odd": sum(s not in (State.FRESH, State.STALE) for s in found),
        "files": sorted(p.name for p in (root / "meta").iterdir()),
        "leftovers": leftovers(root),
    }


def killed_at_random(root: Path, runs: int) -> dict[str, object]:
    """Runs that publish, killed at moments spread over their whole time; each run's file is new."""
    place = dataset_place("validation", root)
    size = 6_000_000
    contents = [content_of(seed, size) for seed in range(5)]
    times = []
    for seed in range(5):
        start = time.monotonic()
        exit_code(fork(lambda: publish(place, contents[seed], recipe_of(seed))))  # noqa: B023
        times.append(time.monotonic() - start)
    whole_s = sorted(times)[2]
    seen: Counter[str] = Counter()
    rng = random.Random(7)
    for run in range(runs):
        number = 1000 + run
        pid = fork(lambda: publish(place, contents[run % 5], recipe_of(number)))  # noqa: B023
        time.sleep(rng.uniform(0, 1.3) * whole_s)
        os.kill(pid, signal.SIGKILL)
        seen["finished" if exit_code(pid) == 0 else "killed"] += 1
        seen["torn"] += not is_whole(place.path.read_bytes())
        seen["left"] += bool(leftovers(root))
    outcome = publish(place, content_of(9999, 1000), recipe_of(9999))
    state = inspect(place, recipe_of(9999)).state
    return {
        **seen,
        "status": outcome.status,
        "state": state.name,
        "leftovers": leftovers(root),
        "files": sorted(p.name for p in (root / "meta").iterdir()),
    }


def killed_at_every_step(root: Path) -> dict[str, object]:
    """Runs killed before and after every call that changes the disk, one run a step."""
    place = dataset_place("validation", root)
    publish(place, content_of(0, 1000), recipe_of(0))
    problems, steps = [], 0
    for step in range(1, 200):
        pid = fork(lambda: _publish_until(place, step))  # noqa: B023
        if exit_code(pid) == 0:
            break
        steps = step
        if not is_whole(place.path.read_bytes()):
            problems.append(f"step {step}: torn")
        # The next run has other inputs, so only finished work of the killed one may be in the way.
        outcome = publish(place, content_of(10_000 + step, 1000), recipe_of(10_000 + step))
        if outcome.status != "written" or outcome.backup is not None:
            problems.append(f"step {step}: {outcome}")
        if leftovers(root):
            problems.append(f"step {step}: {leftovers(root)}")
    return {"steps": steps, "problems": problems}


def interrupted_at_every_step(root: Path) -> dict[str, object]:
    """The same with Ctrl-C for SIGKILL: nothing may be left behind even without a next run."""
    place = dataset_place("validation", root)
    publish(place, content_of(0, 1000), recipe_of(0))
    problems, steps = [], 0
    for step in range(1, 200):
        if exit_code(fork(lambda: _interrupt_at(place, step))) == 0:  # noqa: B023
            break
        steps = step
        states = {inspect(place, recipe_of(n)).state for n in (step - 1, step)}
        if State.FRESH not in states or leftovers(root):
            problems.append(f"step {step}: {states} {leftovers(root)}")
        publish(place, content_of(step, 1000), recipe_of(step))
    return {"steps": steps, "problems": problems}


def _interrupt_at(place: object, step: int) -> None:
    _publish_until(place, step, interrupt=True)


def _publish_until(place: object, step: int, *, interrupt: bool = False) -> None:
    calls = 0

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            tick()
            result = function(*args, **kwargs)
            tick()
            return result

        return call

    def tick() -> None:
        nonlocal calls
        calls += 1
        if calls == step and interrupt:
            raise KeyboardInterrupt
        if calls == step:
            os.kill(os.getpid(), signal.SIGKILL)

    names = ["fsync", "replace", "fchmod", "fchown", "mkdir"]
    # An interruption right after a descriptor was made or closed cannot be told from one during it.
    for name in names if interrupt else [*names, "open", "unlink", "close"]:
        setattr(os, name, counted(getattr(os, name)))
    fcntl.flock = counted(fcntl.flock)
    publish(place, content_of(step, 1000), recipe_of(step))  # type: ignore[arg-type]


def full_disk(root: Path) -> dict[str, object]:
    place = dataset_place("validation", root)
    old = content_of(1, 1000)
    publish(place, old, recipe_of(1))

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        publish(place, content_of(2, 1_000_000), recipe_of(2))

    code = exit_code(fork(work))
    return {
        "code": code,
        "intact": place.path.read_bytes() == old,
        "state": inspect(place, recipe_of(1)).state.name,
        "leftovers": leftovers(root),
    }


def read_only(root: Path) -> dict[str, object]:
    """A user without write permission publishes into the dataset, then into a place they chose."""
    (root / "meta").mkdir()
    for folder in (root / "meta", root):
        folder.chmod(0o555)

    def work() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)
        made = ensure_file(dataset_place("validation", root), lambda: b"x", recipe_of(1))
        shown = {"content": made.content.decode(), "status": made.outcome.status}
        sys.stdout.write(json.dumps(shown) + "\n")
        sys.stdout.flush()
        elsewhere = dataset_place("validation", root, artifact_root=root / "other")
        ensure_file(elsewhere, lambda: b"x", recipe_of(1))

    code = exit_code(fork(work))
    return {"code": code, "files": sorted(p.name for p in (root / "meta").iterdir())}


if __name__ == "__main__":
    scenario, folder, *rest = sys.argv[1:]
    result = globals()[scenario](Path(folder), *map(int, rest))
    sys.stdout.write(json.dumps(result) + "\n")
