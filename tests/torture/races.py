"""Commands that run at once on one dataset, readers that look all the while, dying ranks."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from torture.faults import _BACKUP, _TEMP, Bench, Result, tree_of
from torture.scenarios import SCENARIOS, Scenario, prepared
from torture.server import Fault, Ran, Server

__all__ = ["races", "rank_deaths"]

# Commands that may run side by side on one dataset and its mixture, as a job array starts them.
_TOGETHER = (
    ("stats", "d"),
    ("stats", "d", "--force"),
    ("heads", "--mixture-json", "m.json"),
    ("speed-percentiles", "d"),
    ("validate", "d", "--write"),
    ("val-plan", "--mixture-json", "m.json", "--world-size", "2", "--batch-size", "4"),
    ("report", "--mixture-json", "m.json"),
    ("fit-tokenizer", "--mixture-json", "m.json", "--chunk-size", "4", "--vocab-size", "300"),
    ("run", "--mixture-json", "m.json", "--chunk-size", "4", "--vocab-size", "300"),
    ("validate", "d", "--fix"),
    ("validate", "d", "--baseline", "b.json", "--write-baseline"),
    ("stats", "--format", "openpi", "d", "--out", "norm_stats.json"),
)


def _readable(path: Path) -> str | None:
    """Return what is wrong with a file that somebody may be reading now."""
    try:
        content = path.read_bytes()
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".jsonl":
            for line in content.splitlines():
                json.loads(line)
        elif path.suffix == ".parquet":
            pq.read_table(io.BytesIO(content))  # by its path, Arrow opens it more than once
    except FileNotFoundError:
        return "vanished"
    except Exception as error:  # noqa: BLE001 - whatever a reader may meet
        return f"{type(error).__name__}: {error}"
    return None


@contextlib.contextmanager
def _reader(folder: Path) -> Iterator[list[str]]:
    """Read every file that was there at the start, over and over; yields what went wrong."""
    wrong: list[str] = []
    files = [p for p in folder.rglob("*") if p.is_file()]
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for path in files:
                said = _readable(path)
                if said is not None:
                    wrong.append(f"{path.relative_to(folder)}: {said}")
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        thread.join()


def _at_once(
    servers: list[Server], work: Path, commands: list[tuple[str, ...]], **options: object
) -> list[Ran]:
    """Run commands at the same time, each by a server of its own."""
    found: list[Ran | None] = [None] * len(commands)

    def one(k: int) -> None:
        found[k] = servers[k].run(commands[k], work, **options)  # type: ignore[arg-type]

    threads = [threading.Thread(target=one, args=(k,)) for k in range(len(commands))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [ran for ran in found if ran is not None]


def races(servers: list[Server], home: Path, until: float, seed: int) -> Result:
    """Run all pairs (and threes) of commands at the same time, with a reader, until it is time."""
    result = Result()
    rng = random.Random(seed)
    bases = {}
    for version in ("v2.1", "v3.0"):
        bases[version] = home / version
        scenario = SCENARIOS[f"heads ({version})"]
        prepared(scenario, bases[version], lambda args, cwd: servers[0].run(args, cwd).code)
    pairs = list(itertools.combinations_with_replacement(_TOGETHER, 2))
    rng.shuffle(pairs)
    for round_ in itertools.count():
        for number, pair in enumerate(pairs):
            if time.monotonic() > until and result.trials >= 4:
                return result
            version = ("v2.1", "v3.0")[(round_ + number) % 2]
            commands = [*pair, rng.choice(_TOGETHER)][: len(servers)]
            work = home / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(bases[version], work)
            before = tree_of(work)
            with _reader(work) as wrong:
                ran = _at_once(servers, work, commands)
            result.trials += len(commands)
            problems = [f"a reader saw {each}" for each in wrong[:3]]
            for args, each in zip(commands, ran, strict=True):
                if each.code not in (0, 1) or "Traceback" in each.err:
                    problems.append(f"{args[0]} ended with {each.code}: {each.err[-300:]}")
                result.peak_kb = max(result.peak_kb, each.peak_kb)
            after = tree_of(work)
            problems += [f"left: {name}" for name in after if _TEMP.search(name)]
            problems += [f"marker left: {name}" for name in after if name.endswith("updating.json")]
            for name, content in before.items():
                kept = content in (v for k, v in after.items() if _BACKUP.sub("", k) == name)
                if not kept and not name.startswith(("d/meta/", "m.prep/")):
                    problems.append(f"lost: {name}")
            for name in after:
                said = _readable(work / name)
                if said is not None:
                    problems.append(f"torn: {name}: {said}")
            names = " + ".join(args[0] for args in commands)
            result.problems += [f"{version} {names}: {each}" for each in problems]
    return result


def rank_deaths(servers: list[Server], home: Path, until: float, seed: int) -> Result:
    """Kill the main rank at each call that changes a file; the others wait, say so, and end."""
    result = Result()
    rng = random.Random(seed)
    names = ["stats (v2.1)", "stats (v3.0)", "heads (v2.1)", "speed-percentiles (v3.0)"]
    benches = [Bench(SCENARIOS[name], servers[0], home / str(k)) for k, name in enumerate(names)]
    trials = [(bench, call) for bench in benches for call in range(1, bench.calls + 1)]
    rng.shuffle(trials)
    for bench, call in itertools.cycle(trials):
        if time.monotonic() > until and result.trials >= 2:
            return result
        problems = _one_death(servers, bench, call)
        result.trials += 1
        name = bench.scenario.name
        result.problems += [f"{name}, main rank killed at call {call}: {p}" for p in problems]
    return result


def _one_death(servers: list[Server], bench: Bench, call: int) -> list[str]:
    shutil.rmtree(bench.work, ignore_errors=True)
    shutil.copytree(bench.base, bench.work)
    scenario: Scenario = bench.scenario
    found: dict[int, Ran] = {}

    def one(rank: int) -> None:
        env = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
        env["OPENTAU_PREP_WAIT_TIMEOUT_S"] = "3"
        fault = Fault(call, signal.SIGKILL) if rank == 0 else Fault()
        found[rank] = servers[rank].run(scenario.args, bench.work, fault, env=env)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    problems = []
    other = found[1]
    if other.code not in (0, 1, 4) or "Traceback" in other.err:
        problems.append(f"the other rank ended with {other.code}: {other.err[-300:]}")
    if other.code == 4 and "main rank" not in other.err:
        problems.append(f"the other rank does not say why: {other.err[-300:]}")
    if other.calls:
        problems.append(f"the other rank changed {other.calls} files")
    again = servers[0].run(scenario.args, bench.work)
    if again.code != bench.code:
        problems.append(f"the next run ended with {again.code}: {again.err[-300:]}")
    after = tree_of(bench.work)
    problems += [f"left after the next run: {name}" for name in after if _TEMP.search(name)]
    problems += [f"lost: {name}" for name in bench._lost(after)]
    return problems
