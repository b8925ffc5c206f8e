"""Time `stats` next to the raw limit, on generated datasets, and print the ratios.

The raw limit is a memory-mapped read of the same columns with pyarrow and NumPy's own reductions of
them. What is timed is the verb behind the command, files written and hashed too, no hash
remembered. Both are run by turns; each figure is the least CPU time (user and system) of them, so
that other work on the machine counts for little. For the gain of a second worker it is wall time.

python scripts/bench_stats.py [--frames 600000] [--files 2000,8]
python scripts/bench_stats.py --memory 1000000,4000000
python scripts/bench_stats.py --memory 100000,400000,1600000 --formats lerobot-relative,groot
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from opentau_prep.config.load import mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.demo.many import write_big
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.stats.compute import prepare_stats
from opentau_prep.stats.openpi import OpenpiAccumulator, prepare_vectors
from opentau_prep.stats.openpi_run import OpenpiJob, prepare_openpi
from opentau_prep.stats.relative_run import RelativeOptions, prepare_relative

KEYS = ("observation.state", "action")
INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")
ACTION_DIM = 32
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
EPISODES = 2_000
Matrix = NDArray[Any]


def make(root: Path, frames: int, files: int) -> None:
    version: Any = "v2.1" if files == EPISODES else "v3.0"
    n_files = None if version == "v2.1" else files
    write_big(root, n_frames=frames, n_episodes=EPISODES, version=version, n_files=n_files)
    forget(root)


def forget(root: Path) -> None:
    """Remove what `stats` has written and remembered, and the published stats with it."""
    for rel in ("stats.json", "episodes_stats.jsonl", "quantile_sketch.json", "norm_stats.json"):
        (root / "meta" / rel).unlink(missing_ok=True)
    shutil.rmtree(root / "meta/prep", ignore_errors=True)
    shutil.rmtree(os.environ["OPENTAU_PREP_CACHE_DIR"], ignore_errors=True)


def read_raw(root: Path, columns: tuple[str, ...]) -> dict[str, Matrix]:
    blocks: dict[str, list[Matrix]] = {name: [] for name in columns}
    for file in sorted((root / "data").rglob("*.parquet")):
        with pq.ParquetFile(file, memory_map=True) as parquet:
            table = parquet.read(columns=list(columns), use_threads=False)
        for name in columns:
            array = table[name].combine_chunks()
            flat = array.flatten() if pa.types.is_nested(array.type) else array
            blocks[name].append(flat.to_numpy(zero_copy_only=False).reshape(len(table), -1))
    return {name: np.concatenate(parts) for name, parts in blocks.items()}


def raw(root: Path, columns: tuple[str, ...], *, quantiles: bool) -> list[Matrix]:
    out = []
    for matrix in read_raw(root, columns).values():
        out += [f(matrix, axis=0) for f in (np.min, np.max)]
        out += [f(matrix, axis=0, dtype=np.float64) for f in (np.mean, np.std)]
        out += [np.quantile(matrix, QUANTILES, axis=0)] if quantiles else []
    return out


def lerobot(root: Path, *, workers: int) -> None:
    resolved = resolve_mixture(mixture_from_roots([root]))
    prepare_stats(resolved, RunContext(workers=workers, force=True))


def openpi(root: Path, *, workers: int) -> None:
    columns = {"state": KEYS[0], "actions": KEYS[1]}
    job = OpenpiJob("bench", str(root), columns, action_dim=ACTION_DIM)
    prepare_openpi([job], RunContext(workers=workers, force=True))


def histogram_loop(matrix: Matrix) -> None:
    """The openpi estimator as its definition reads, a histogram call per batch and dim."""
    count = 0
    for start in range(0, len(matrix), 32):
        batch = matrix[start : start + 32]
        low, high = batch.min(axis=0), batch.max(axis=0)
        if not count:
            least, most, grew = low, high, False
            mean, square = batch.mean(axis=0), (batch**2).mean(axis=0)
            edges = [
                np.linspace(a, b, 5001) for a, b in zip(low - 1e-10, high + 1e-10, strict=True)
            ]
            bins = [np.zeros(5000) for _ in edges]
        else:
            grew = bool((high > most).any() or (low < least).any())
            least, most = np.minimum(least, low), np.maximum(most, high)
        count += len(batch)
        mean += (batch.mean(axis=0) - mean) * (len(batch) / count)
        square += ((batch**2).mean(axis=0) - square) * (len(batch) / count)
        for d in range(matrix.shape[1]):
            if grew:
                new = np.linspace(least[d], most[d], 5001)
                bins[d] = np.histogram(edges[d][:-1], bins=new, weights=bins[d])[0]
                edges[d] = new
            bins[d] += np.histogram(batch[:, d], bins=edges[d])[0]


def least(
    *runs: Callable[[], Any],
    before: Callable[[], Any] = lambda: None,
    clock: Callable[[], float] = time.process_time,
    n: int = 5,
) -> list[float]:
    """The least seconds of each run, of a few by turns; `before` is not timed."""
    found = [np.inf] * len(runs)
    for _ in range(n):
        for k, run in enumerate(runs):
            before()
            start = clock()
            run()
            found[k] = min(found[k], clock() - start)
    return [float(each) for each in found]


def report(name: str, seconds: float, frames: int, limit: float | None = None) -> None:
    ratio = "" if limit is None else f"  {seconds / limit:5.2f} x the raw limit"
    print(f"  {name:<46} {seconds:8.3f} s  {frames / seconds:12,.0f} frames/s{ratio}", flush=True)


def bench_files(root: Path, frames: int, files: int) -> None:
    make(root, frames, files)
    print(f"{frames:,} frames, {EPISODES:,} episodes, {files:,} files, 14 + 14 dims float32")
    limit, seconds = least(
        lambda: raw(root, (*KEYS, *INDEX), quantiles=True),
        lambda: lerobot(root, workers=1),
        before=lambda: forget(root),
    )
    report("raw limit: read, min max mean std, quantiles", limit, frames)
    report("stats, 1 worker", seconds, frames, limit)
    limit, seconds = least(
        lambda: raw(root, KEYS, quantiles=False),
        lambda: openpi(root, workers=1),
        before=lambda: forget(root),
    )
    report("raw limit of state and action, no quantiles", limit, frames)
    report("stats --format openpi, 1 worker", seconds, frames, limit)
    one, two = least(
        lambda: lerobot(root, workers=1),
        lambda: lerobot(root, workers=2),
        before=lambda: forget(root),
        clock=time.perf_counter,
    )
    load = os.getloadavg()[0]
    print(f"  wall time: {one:.2f} s, two workers {two:.2f} s: {one / two:.2f} x (load {load:.1f})")


def bench_loop(root: Path, frames: int) -> None:
    matrix = read_raw(root, KEYS[:1])[KEYS[0]][:frames]

    def ours() -> None:
        run = OpenpiAccumulator(dtype=np.float64, action_dim=ACTION_DIM)
        run.update(matrix)
        run.finish()

    (slow,) = least(lambda: histogram_loop(prepare_vectors(matrix, action_dim=ACTION_DIM)), n=1)
    (fast,) = least(ours)
    print(f"one key, {len(matrix):,} frames in memory, padded to {ACTION_DIM} dims")
    report("histogram call per batch and dim", slow, len(matrix))
    report("this package, same bits", fast, len(matrix))
    print(f"  {slow / fast:.0f} x faster")


def peak_mib(root: Path, kind: str) -> float:
    """Peak memory of `stats` in this process, what it imports and maps included, in MiB.

    Not `ru_maxrss`: that one is inherited from the process that started this one.
    """
    if kind == "lerobot":
        lerobot(root, workers=1)
    else:
        arm = {"arm": {"start": 0, "end": 14}}
        (root / "meta/modality.json").write_text(json.dumps({"state": arm, "action": arm}))
        resolved = resolve_mixture(mixture_from_roots([root]))
        options = RelativeOptions(kind)  # type: ignore[arg-type]
        prepare_relative(resolved, RunContext(workers=1), options)
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def bench_memory(sizes: list[int], kinds: list[str]) -> None:
    """Files are as big as recorders make them (here 86 MB), or one per episode."""
    for layout in ("v3.0, 500,000 frames per file", "v2.1, 2,000 files"):
        peaks: dict[str, list[float]] = {kind: [] for kind in kinds}
        for frames in sizes:
            files = max(1, frames // 500_000) if layout.startswith("v3") else EPISODES
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder, "big")
                make(root, frames, files)
                for kind in kinds:
                    forget(root)
                    command = [sys.executable, __file__, "--measure", str(root), "--formats", kind]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    peaks[kind].append(float(done.stdout))
        print(f"{layout}: {', '.join(f'{frames:,}' for frames in sizes)} frames")
        for kind, found in peaks.items():
            peak = ", ".join(f"{each:,.0f}" for each in found)
            print(f"  {kind:<17} peak {peak} MiB: {found[-1] / found[0]:.2f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600_000)
    parser.add_argument("--files", default="2000,8", help="numbers of files, comma-separated")
    parser.add_argument("--loop-frames", type=int, default=100_000, help="frames for the slow loop")
    parser.add_argument("--memory", help="frame counts to measure the peak memory at, instead")
    parser.add_argument("--formats", default="lerobot", help="whose peak memory, comma-separated")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cache = tempfile.TemporaryDirectory()
    os.environ["OPENTAU_PREP_CACHE_DIR"] = str(Path(cache.name, "cache"))
    if arguments.measure is not None:
        print(peak_mib(arguments.measure, arguments.formats))
        return
    if arguments.memory:
        sizes = [int(text) for text in arguments.memory.split(",")]
        bench_memory(sizes, arguments.formats.split(","))
        return
    for files in (int(text) for text in arguments.files.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "big")
            bench_files(root, arguments.frames, files)
            if files < EPISODES:
                bench_loop(root, arguments.loop_frames)


if __name__ == "__main__":
    main()
