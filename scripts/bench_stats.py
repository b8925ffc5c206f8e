"""Time the stats estimators beside the raw limit, on generated data, and print the ratios.

The raw limit is a memory-mapped read of the same columns with pyarrow and NumPy's own reductions of
them, in the same run. Usage: python scripts/bench_stats.py [--frames 600000] [--files 8,2000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from opentau_prep.stats.moments import merge_moments, span_moments
from opentau_prep.stats.openpi import OpenpiAccumulator, prepare_vectors, prepared_dtype
from opentau_prep.stats.quantiles import sort_columns
from opentau_prep.stats.sketch import QuantileSketch

KEYS = ("observation.state", "action")
ACTION_DIM = 32
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
Matrix = NDArray[Any]


def generate(root: Path, frames: int, files: int, dims: int) -> None:
    rng = np.random.default_rng(0)
    speed, phase = rng.uniform(0.5, 2, dims), rng.uniform(0, 6, dims)
    bounds = np.linspace(0, frames, files + 1).astype(int)
    for k in range(files):
        step = np.arange(bounds[k], bounds[k + 1])[:, np.newaxis] / 200
        state = np.sin(step * speed + phase) + 0.05 * rng.standard_normal((len(step), dims))
        columns = {"observation.state": state, "action": state + 0.01}
        arrays = [
            pa.FixedSizeListArray.from_arrays(pa.array(c.astype(np.float32).ravel()), dims)
            for c in columns.values()
        ]
        pq.write_table(pa.table(arrays, list(columns)), root / f"episode_{k:06d}.parquet")


def read(root: Path) -> Iterator[dict[str, Matrix]]:
    for file in sorted(root.glob("*.parquet")):
        table = pq.read_table(file, columns=list(KEYS), memory_map=True, use_threads=False)
        yield {
            key: table[key].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
            for key in KEYS
        }


def gather(root: Path) -> dict[str, Matrix]:
    blocks = list(read(root))
    return {key: np.concatenate([block[key] for block in blocks]) for key in KEYS}


def raw_moments(root: Path, q: tuple[float, ...] = ()) -> list[Matrix]:
    out = []
    for matrix in gather(root).values():
        out += [np.quantile(matrix, q, axis=0)] if q else []
        out += [f(matrix, axis=0) for f in (np.min, np.max)]
        out += [f(matrix, axis=0, dtype=np.float64) for f in (np.mean, np.std)]
    return out


def openpi(root: Path) -> list[Any]:
    runs: dict[str, OpenpiAccumulator] = {}
    for block in read(root):
        for key, matrix in block.items():
            if key not in runs:
                dtype = prepared_dtype(matrix.shape[1], matrix.dtype, ACTION_DIM)
                runs[key] = OpenpiAccumulator(dtype=dtype, action_dim=ACTION_DIM)
            runs[key].update(matrix)
    return [run.finish() for run in runs.values()]


def moments_and_quantiles(root: Path) -> list[Any]:
    out: list[Any] = []
    for matrix in gather(root).values():
        spans = np.array([[a, min(a + 300, len(matrix))] for a in range(0, len(matrix), 300)])
        columns = sort_columns(matrix)
        out += [span_moments(matrix, spans).total(), columns.quantiles(QUANTILES)]
        out.append(QuantileSketch.of_sorted(columns))
    return out


def sketches_of_parts(root: Path) -> list[Any]:
    out: list[Any] = []
    for matrix in gather(root).values():
        parts = np.array_split(matrix, max(1, len(matrix) // 65_536))
        first, *rest = [QuantileSketch.of(part) for part in parts]
        out += [merge_moments([span_moments(p, np.array([[0, len(p)]]))[0] for p in parts])]
        out.append(first.merge(*rest))
    return out


def histogram_loop(matrix: Matrix) -> None:
    """The openpi estimator as its definition reads, a histogram call a batch and dim."""
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


def clock(run: Callable[[], Any], repeats: int = 3) -> float:
    """The best of a few runs, in seconds."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return float(best)


def report(name: str, seconds: float, frames: int, limit: float | None = None) -> None:
    ratio = "" if limit is None else f"  {seconds / limit:5.2f} x the raw limit"
    print(f"  {name:<44} {seconds:8.3f} s  {frames / seconds:12,.0f} frames/s{ratio}", flush=True)


def bench_files(root: Path, frames: int, files: int, dims: int) -> None:
    generate(root, frames, files, dims)
    print(f"{frames:,} frames, {files:,} files, {dims} + {dims} dims float32")
    limit = clock(lambda: raw_moments(root))
    full = clock(lambda: raw_moments(root, QUANTILES))
    report("raw limit: read, min max mean std", limit, frames)
    report("raw limit with quantiles (np.quantile)", full, frames)
    report(
        "moments, exact quantiles, sketch", clock(lambda: moments_and_quantiles(root)), frames, full
    )
    report(
        "moments, sketches merged of parts", clock(lambda: sketches_of_parts(root)), frames, full
    )
    report("openpi, padded to 32 dims", clock(lambda: openpi(root)), frames, limit)


def bench_loop(root: Path, frames: int) -> None:
    raw = gather(root)["observation.state"][:frames]

    def ours() -> None:
        run = OpenpiAccumulator(dtype=np.float64, action_dim=ACTION_DIM)
        run.update(raw)
        run.finish()

    slow = clock(lambda: histogram_loop(prepare_vectors(raw, action_dim=ACTION_DIM)), 1)
    fast = clock(ours)
    print(f"one key, {len(raw):,} frames in memory, padded to {ACTION_DIM} dims")
    report("histogram call a batch and dim", slow, len(raw))
    report("this package, same bits", fast, len(raw))
    print(f"  {slow / fast:.0f} x faster")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600_000)
    parser.add_argument("--files", default="8,2000", help="numbers of files, comma-separated")
    parser.add_argument("--dims", type=int, default=14, help="dims of state and of actions")
    parser.add_argument("--loop-frames", type=int, default=100_000, help="frames for the slow loop")
    arguments = parser.parse_args()
    for files in (int(text) for text in arguments.files.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            bench_files(Path(folder), arguments.frames, files, arguments.dims)
            if files < 100:
                bench_loop(Path(folder), arguments.loop_frames)


if __name__ == "__main__":
    main()
