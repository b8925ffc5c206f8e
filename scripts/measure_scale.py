"""Measure how a `run` grows with the number of datasets: time, CPU, memory, file operations.

python scripts/measure_scale.py --datasets 10 100 1000 --scratch /tmp/scale

Each size is a mixture of small v2.1 datasets (4 episodes of about 50 frames). The first run makes
everything, the second finds nothing to do; file operations are the system calls of the second that
name or use a file, less those of a run of no dataset (`--help`), as counted by strace if it is
installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from opentau_prep.demo.many import write_many

_TRACED = "trace=%file,read,pread64,close,fstat,lseek,getdents64,flock,mmap"


def run(mixture: Path, prefix: list[str], *words: str) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds, and peak resident MB of the largest process."""
    command = [*prefix, sys.executable, "-m", "opentau_prep", *words]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=mixture, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code > 1:
        raise SystemExit(f"{command} ended with {code}")
    wall = time.perf_counter() - began
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def operations(mixture: Path, *words: str) -> int | None:
    """Return how many system calls on files a run makes; None without strace."""
    if shutil.which("strace") is None:
        return None
    with tempfile.NamedTemporaryFile("r") as log:
        run(mixture, ["strace", "-f", "-qq", "-e", _TRACED, "-o", log.name], *words)
        return sum(1 for line in log if not re.search(r"(SIG\w+|resumed|exited)", line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--scratch", type=Path, required=True)
    args = parser.parse_args()
    words = ("run", "--mixture-json", "mixture.json", "--quiet", "--workers", "1")
    print(
        "| datasets | run | wall s | CPU s | CPU ms per dataset | peak MB | file ops per dataset |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count in args.datasets:
        folder = args.scratch / str(count)
        write_many(folder, count, data=True)
        base = operations(folder, "run", "--help")
        for name in ("first", "nothing to do"):
            wall, cpu, memory = run(folder, [], *words)
            done = None if name == "first" else operations(folder, *words)
            ops = "" if done is None or base is None else f"{(done - base) / count:.0f}"
            row = f"{wall:.1f} | {cpu:.1f} | {cpu / count * 1000:.1f} | {memory:.0f} | {ops}"
            print(f"| {count:,} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
