"""Time the norm heads of 10 to 5,000 datasets beside just parsing the same files.

python scripts/bench_heads.py [--cases v3.0:50 v2.1:50 v2.1:4] [--sizes 10 100 1000 5000]
                              [--cameras 2] [--write]

A case is a version and the episodes a dataset. The datasets have metadata only: 7 dims, and the
cameras and (v3.0) quantiles that recorded datasets have. `--cameras 0` is the least that there can
be to parse, so the ratio is at its worst. Each size runs in a process of its own, with the files in
the page cache; times are the best of nine, taken in turns.
`parse` reads the mixture, info.json and the stats with orjson and lets go of each row at once: the
least that any reader could do. `heads` is `mixture_norm_heads` from the mixture's path; peak memory
is that of the process before and after the first of these. `--write` also times what `opentau-prep
heads` does for its files, each of them brought to the disk, and a second run that finds all fresh.
"""

from __future__ import annotations

import argparse
import json
import resource
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


def timed(fn: Callable[[], object]) -> float:
    started = time.perf_counter()
    fn()
    return time.perf_counter() - started


def parse(mixture: Path) -> None:
    for entry in orjson.loads(mixture.read_bytes())["datasets"]:
        meta = f"{mixture.parent}/{entry['root']}/meta"
        with open(f"{meta}/info.json", "rb") as file:
            info = orjson.loads(file.read())
        if info["codebase_version"] != "v2.1":
            with open(f"{meta}/stats.json", "rb") as file:
                orjson.loads(file.read())
            continue
        with open(f"{meta}/episodes_stats.jsonl", "rb") as file:
            for line in file.read().split(b"\n"):
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
        prepare_heads(resolved, RunContext(), HeadOptions(), out=out, allow_partial=True)


def measure(mixture: Path, *, with_files: bool) -> dict[str, float]:
    started = peak_mib()
    heads(mixture)
    found = {"imported_mib": started, "heads_mib": peak_mib()}
    turns = [(timed(lambda: parse(mixture)), timed(lambda: heads(mixture))) for _ in range(9)]
    found["parse"], found["heads"] = map(min, zip(*turns, strict=True))
    if with_files:
        found["write"] = timed(lambda: write(mixture))
        found["again"] = min(timed(lambda: write(mixture)) for _ in range(2))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--cases", nargs="+", default=["v3.0:50", "v2.1:50", "v2.1:4"])
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, with_files=args.write)))
        return
    for case in args.cases:
        version, _, episodes = case.partition(":")
        print(f"{version}, {episodes} episodes a dataset; times in ms (us a dataset)")
        print(f"{'datasets':>8} {'parse':>15} {'heads':>15} {'ratio':>6} {'peak MiB':>9}", end="")
        print(f" {'write':>18} {'again':>15}" if args.write else "")
        for n in args.sizes:
            show(n, run_size(n, version, int(episodes), args.cameras, with_files=args.write))


def run_size(
    n: int, version: str, episodes: int, cameras: int, *, with_files: bool
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        mixture = write_many(
            Path(folder) / "many",
            n,
            version=version,
            n_episodes=episodes,
            cameras=tuple(f"observation.images.camera_{i}" for i in range(cameras)),
            quantiles=version == "v3.0",
        )
        command = [sys.executable, __file__, "--measure", str(mixture)]
        command += ["--write"] if with_files else []
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found


def show(n: int, found: dict[str, float]) -> None:
    def cell(name: str) -> str:
        return f"{found[name] * 1e3:,.1f} ({found[name] / n * 1e6:,.0f})"

    print(
        f"{n:8,} {cell('parse'):>15} {cell('heads'):>15} {found['heads'] / found['parse']:6.2f}"
        f" {found['imported_mib']:4.0f}>{found['heads_mib']:4.0f}",
        f"{cell('write'):>18} {cell('again'):>15}" if "write" in found else "",
        flush=True,
    )


if __name__ == "__main__":
    main()
