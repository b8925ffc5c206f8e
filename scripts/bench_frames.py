"""Time the frame reader and the metadata layer beside the raw limit: the same files, plain reads.

Frames: 600,000 of 14 + 14 dims in 2,000 small v2.1 files and in 8 big v3.0 ones, against
memory-mapped pyarrow reads of the same columns in the same order (and NumPy's concatenation of row
groups). Metadata: many datasets' episodes, tasks and stats, against orjson and pyarrow parsing the
same files and keeping nothing. Both sides take turns; the best of the repetitions counts.

Run: python scripts/bench_frames.py [--frames N] [--datasets N ...] [--repeat N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from opentau_prep.demo.many import write_big, write_many
from opentau_prep.demo.spec import Version
from opentau_prep.frames import iter_frames
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.notices import collect_notices

COLUMNS = ["observation.state", "action"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=600_000)
    parser.add_argument("--datasets", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        _bench_frames(folder, args.frames, args.repeat)
        for version in ("v2.0", "v2.1", "v3.0"):
            for n in args.datasets:
                _bench_metadata(folder, version, n, 4, args.repeat)
        _bench_metadata(folder, "v2.1", 100, 100, args.repeat)
        _bench_metadata(folder, "v3.0", 100, 100, args.repeat)


def _bench_frames(folder: Path, n_frames: int, repeat: int) -> None:
    small, big = folder / "small", folder / "big"
    if not small.exists():
        write_big(small, n_frames=n_frames, n_episodes=max(n_frames // 300, 1), version="v2.1")
    if not big.exists():
        write_big(
            big, n_frames=n_frames, n_episodes=max(n_frames // 300, 8), version="v3.0", n_files=8
        )
    for name, root in (("small v2.1 files", small), ("big v3.0 files", big)):
        files = sorted((root / "data").rglob("*.parquet"))
        raw, ours = _turns(lambda f=files: _raw_frames(f), lambda r=root: _our_frames(r), repeat)
        label = f"iter_frames, {len(files):,} {name}, {n_frames:,} frames"
        _report(label, raw, ours, "<= 1.3x")


def _raw_frames(files: list[Path]) -> int:
    total = 0
    for path in files:
        table = pq.ParquetFile(pa.memory_map(str(path))).read(columns=COLUMNS, use_threads=False)
        for name in COLUMNS:
            chunks = [c.flatten().to_numpy() for c in table.column(name).chunks]
            values = np.concatenate(chunks) if len(chunks) > 1 else chunks[0]
            total += len(values.reshape(len(table), -1))
    return total


def _our_frames(root: Path) -> int:
    blocks = iter_frames(load_dataset_metadata(root), COLUMNS)
    return sum(len(block.columns[name]) for block in blocks for name in COLUMNS)


def _bench_metadata(
    folder: Path, version: Version, n_datasets: int, n_episodes: int, repeat: int
) -> None:
    out = folder / f"many_{version}_{n_datasets}_{n_episodes}"
    if not out.exists():
        write_many(out, n_datasets, version=version, n_episodes=n_episodes)
    roots = sorted((out / "datasets/bench").iterdir())
    raw, ours = _turns(lambda: _raw_metadata(roots, version), lambda: _our_metadata(roots), repeat)
    label = f"metadata, {n_datasets:,} {version} datasets of {n_episodes} episodes"
    _report(label, raw, ours, "<= 2.5x")


def _raw_metadata(roots: list[Path], version: str) -> None:
    for root in roots:
        meta = root / "meta"
        orjson.loads((meta / "info.json").read_bytes())
        if version != "v2.1":
            orjson.loads((meta / "stats.json").read_bytes())
        if version == "v3.0":
            for path in (meta / "tasks.parquet", *(meta / "episodes").rglob("*.parquet")):
                file = pq.ParquetFile(pa.memory_map(str(path)))
                names = [n for n in file.schema_arrow.names if n[:6] not in ("stats/", "videos")]
                file.read(columns=names, use_threads=False)
            continue
        for path in meta.glob("*.jsonl"):
            for line in path.read_bytes().split(b"\n"):
                if line:
                    orjson.loads(line)


def _our_metadata(roots: list[Path]) -> None:
    with collect_notices():
        for root in roots:
            meta = load_dataset_metadata(root)
            _ = meta.episodes, meta.tasks, meta.stats


def _turns(
    raw: Callable[[], object], ours: Callable[[], object], repeat: int
) -> tuple[float, float]:
    best = [float("inf"), float("inf")]
    for _ in range(repeat):
        for side, run in enumerate((raw, ours)):
            start = time.perf_counter()
            run()
            best[side] = min(best[side], time.perf_counter() - start)
    return best[0], best[1]


def _report(label: str, raw: float, ours: float, aim: str) -> None:
    print(f"{label:<66} raw {raw:7.3f} s   ours {ours:7.3f} s   {ours / raw:.2f}x (aim {aim})")


if __name__ == "__main__":
    main()
