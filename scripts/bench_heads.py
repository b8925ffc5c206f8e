"""Time the norm heads of 10 to 5,000 datasets beside just parsing the same files.

python scripts/bench_heads.py [--episodes 50] [--version v2.1] [--sizes 10 100 1000 5000]

The datasets have metadata only. Each size runs in a process of its own, with the files in the page
cache; times are the best of three. `parse` reads the mixture, info.json and the stats with orjson
and keeps a file's rows until its end; `drop` lets go of each row at once, the least that any reader
could do. `heads` is `mixture_norm_heads` from the mixture's path; `write` is what `opentau-prep
heads` needs on top for its files, each of them brought to the disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from opentau_prep.config.load import load_mixture
from opentau_prep.context import RunContext
from opentau_prep.demo.many import write_many
from opentau_prep.heads.compute import prepare_heads
from opentau_prep.heads.mixture import mixture_norm_heads
from opentau_prep.heads.options import HeadOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices

AIM = 2.5


def best_of(n: int, fn: Callable[[], object]) -> float:
    times = []
    for _ in range(n):
        started = time.perf_counter()
        fn()
        times.append(time.perf_counter() - started)
    return min(times)


def parse(mixture: Path, *, keep_rows: bool) -> None:
    for entry in orjson.loads(mixture.read_bytes())["datasets"]:
        meta = f"{mixture.parent}/{entry['root']}/meta"
        with open(f"{meta}/info.json", "rb") as file:
            info = orjson.loads(file.read())
        if info["codebase_version"] != "v2.1":
            with open(f"{meta}/stats.json", "rb") as file:
                orjson.loads(file.read())
            continue
        with open(f"{meta}/episodes_stats.jsonl", "rb") as file:
            lines = file.read().split(b"\n")
        if keep_rows:
            [orjson.loads(line) for line in lines if line]
        else:
            for line in lines:
                if line:
                    orjson.loads(line)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def heads(mixture: Path) -> None:
    with collect_notices():
        mixture_norm_heads(load_mixture(mixture), max_state_dim=32, max_action_dim=32)


def write(mixture: Path) -> None:
    with collect_notices():
        resolved = resolve_mixture(load_mixture(mixture))
        out = mixture.parent / "norm_heads.json"
        prepare_heads(resolved, RunContext(), HeadOptions(), out=out)


def measure(mixture: Path) -> dict[str, float]:
    started = peak_mib()
    heads(mixture)
    return {
        "imported_mib": started,
        "heads_mib": peak_mib(),
        "heads": best_of(3, lambda: heads(mixture)),
        "parse": best_of(3, lambda: parse(mixture, keep_rows=True)),
        "drop": best_of(3, lambda: parse(mixture, keep_rows=False)),
        "write": best_of(1, lambda: write(mixture)),
        "again": best_of(1, lambda: write(mixture)),
        "write_mib": peak_mib(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--version", choices=["v2.0", "v2.1", "v3.0"], default="v2.1")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    print(f"{args.version}, {args.episodes} episodes a dataset; times in ms (us a dataset)")
    print(
        f"{'datasets':>8} {'parse':>16} {'drop':>16} {'heads':>16} {'/parse':>7} {'/drop':>6}"
        f" {'peak MiB':>9} {'write':>18} {'again':>16}"
    )
    for n in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            mixture = write_many(
                Path(folder) / "many", n, version=args.version, n_episodes=args.episodes
            )
            command = [sys.executable, __file__, "--measure", str(mixture)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            shutil.rmtree(mixture.parent)
        show(n, json.loads(done.stdout))
    print(f"aim: heads <= {AIM} x parsing")


def show(n: int, found: dict[str, float]) -> None:
    def cell(name: str) -> str:
        return f"{found[name] * 1e3:,.1f} ({found[name] / n * 1e6:,.0f})"

    print(
        f"{n:8,} {cell('parse'):>16} {cell('drop'):>16} {cell('heads'):>16}"
        f" {found['heads'] / found['parse']:7.2f} {found['heads'] / found['drop']:6.2f}"
        f" {found['imported_mib']:4.0f}>{found['heads_mib']:4.0f}"
        f" {cell('write'):>18} {cell('again'):>16}",
        flush=True,
    )


if __name__ == "__main__":
    main()
