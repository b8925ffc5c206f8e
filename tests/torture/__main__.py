"""`python -m torture --help`; what it found stands in docs/reliability.md."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from torture.faults import Bench, Result, every_fault, repeat
from torture.fuzz import fuzz
from torture.races import races, rank_deaths
from torture.scenarios import SCENARIOS, real_scenarios
from torture.server import Fault, Server

PARTS = ("faults", "races", "ranks", "fuzz")


def faults(seconds: float, only: str, data: Path | None, seed: int, most: int) -> dict[str, Result]:
    """Try faults until it is time, next in the scenario that took the least time so far."""
    chosen = dict(SCENARIOS)
    if data is not None:
        chosen |= real_scenarios(data)
    results = {name: Result() for name in chosen if re.search(only, name)}
    until = said = time.monotonic()
    until += seconds
    with Server() as server, tempfile.TemporaryDirectory(dir=_fast()) as home:
        open_: dict[str, tuple[Bench, list[Fault]]] = {}
        for number, name in enumerate(results):
            try:
                bench = Bench(chosen[name], server, Path(home) / str(number))
            except RuntimeError as error:
                results[name].problems.append(str(error))
                say(f"{name}: {error}")
                continue
            open_[name] = bench, list(every_fault(bench, None, seed))
        total = {name: len(left) for name, (_, left) in open_.items()}
        spent = dict.fromkeys(open_, 0.0)
        while open_:
            name = min(open_, key=lambda each: spent[each])
            result, (bench, left) = results[name], open_[name]
            trials = sum(each.trials for each in results.values())
            if trials >= most or (time.monotonic() > until and result.trials >= 3):
                break
            if not left:
                del open_[name]
                continue
            fault, started = left.pop(), time.monotonic()
            problems, ran = bench.trial(fault)
            spent[name] += time.monotonic() - started
            result.trials += 1
            result.peak_kb = max(result.peak_kb, ran.peak_kb)
            for problem in problems:
                result.problems.append(f"{problem}  <- {repeat(fault)}")
                say(f"{name}: {result.problems[-1]}")
            if time.monotonic() - said > 60:
                said = time.monotonic()
                say(f"{trials:,} faults so far")
    for name, result in results.items():
        _tell(f"{name} (of {total.get(name)})", result)
    return results


def others(part: str, seconds: float, seed: int) -> dict[str, Result]:
    """Run races, or ranks that die."""
    work = {"races": races, "ranks": rank_deaths}[part]
    until = time.monotonic() + seconds
    servers = [Server() for _ in range(3 if part == "races" else 2)]
    try:
        with tempfile.TemporaryDirectory(dir=_fast()) as home:
            result = work(servers, Path(home), until, seed)
    finally:
        for server in servers:
            server.__exit__()
    _tell(part, result)
    return {part: result}


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _tell(name: str, result: Result) -> None:
    say(f"{name}: {result.trials} trials, {len(result.problems)} problems")
    for problem in result.problems[:8]:
        say(f"    {problem}")


def _fast() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> int:
    """Run the harness; exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="for all parts together")
    parser.add_argument("--parts", default=",".join(PARTS), help="of faults, races, ranks, fuzz")
    parser.add_argument(
        "--only", default="", help="scenarios and parsers whose names match, a regular expression"
    )
    parser.add_argument("--data", type=Path, help="folder of published datasets to copy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=10**9, help="faults at most")
    args = parser.parse_args()
    parts = args.parts.split(",")
    table = []
    for part in parts:
        seconds = args.seconds / len(parts)
        if part == "faults":
            results = faults(seconds, args.only, args.data, args.seed, args.trials)
        elif part == "fuzz":
            results = fuzz(seconds, args.seed, args.only)
            for name, result in results.items():
                _tell(name, result)
        else:
            results = others(part, seconds, args.seed)
        trials = sum(result.trials for result in results.values())
        broken = sum(len(result.problems) for result in results.values())
        peak = max(result.peak_kb for result in results.values()) // 1024
        table.append((part, trials, broken, peak))
    for part, trials, broken, peak in table:
        say(f"{part}: {trials:,} trials, {broken} problems, at most {peak} MB")
    return int(any(broken for _, _, broken, _ in table))


if __name__ == "__main__":
    sys.exit(main())
