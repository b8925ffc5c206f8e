"""`python -m torture [--seconds N] [--only TEXT] [--data DIR]`; see docs/reliability.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from torture.faults import Bench, Result, every_fault, repeat
from torture.scenarios import SCENARIOS, real_scenarios
from torture.server import Server


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
            say(f"{name}: {result.trials} of {total} trials, {len(result.problems)} problems")
            for problem in result.problems[:6]:
                say(f"    {problem}")
    return results


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _fast() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> int:
    """Run the harness; exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="torture")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = faults(args.seconds, args.only, args.data, args.seed)
    trials = sum(result.trials for result in results.values())
    broken = sum(len(result.problems) for result in results.values())
    peak = max(result.peak_kb for result in results.values()) // 1024
    say(f"{trials} trials, {broken} problems, at most {peak} MB")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
