"""`python -m torture --help`; what it found stands in docs/reliability.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from torture.faults import Bench, Result, every_fault, repeat
from torture.fuzz import fuzz
from torture.races import races, rank_deaths
from torture.scenarios import SCENARIOS, real_scenarios
from torture.server import Server

PARTS = ("faults", "races", "ranks", "fuzz")


def faults(seconds: float, only: str, data: Path | None, seed: int) -> dict[str, Result]:
    """Give every scenario its share of the time; returns what each gave."""
    chosen = dict(SCENARIOS)
    if data is not None:
        chosen |= real_scenarios(data)
    chosen = {name: each for name, each in chosen.items() if only in name}
    results: dict[str, Result] = {}
    started = time.monotonic()
    with Server() as server, tempfile.TemporaryDirectory(dir=_fast()) as home:
        for number, (name, scenario) in enumerate(chosen.items()):
            result = results[name] = Result()
            try:
                bench = Bench(scenario, server, Path(home) / str(number))
            except RuntimeError as error:
                result.problems.append(str(error))
                say(f"{name}: {error}")
                continue
            until = started + seconds * (number + 1) / len(chosen)
            for fault in every_fault(bench, None, seed):
                if time.monotonic() > until and result.trials >= 3:
                    break
                problems, ran = bench.trial(fault)
                result.trials += 1
                result.peak_kb = max(result.peak_kb, ran.peak_kb)
                result.problems += [f"{each}  <- {repeat(fault)}" for each in problems]
            total = len(list(every_fault(bench, None, seed)))
            _tell(f"{name} (of {total})", result)
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
    parser.add_argument("--only", default="", help="scenarios and parsers with this in the name")
    parser.add_argument("--data", type=Path, help="folder of published datasets to copy")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parts = args.parts.split(",")
    table = []
    for part in parts:
        seconds = args.seconds / len(parts)
        if part == "faults":
            results = faults(seconds, args.only, args.data, args.seed)
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
