"""CPU time of `validate`: one dataset, videos, many datasets, and `--deep` next to a raw read.

python scripts/bench_validate.py [--datasets 1000] [--frames 600000] [--videos 2000] [--workers N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq

from opentau_prep.config.load import load_mixture, mixture_from_roots
from opentau_prep.config.salvage import Salvage
from opentau_prep.context import RunContext
from opentau_prep.demo.many import write_big, write_many
from opentau_prep.storage import LocalStorage
from opentau_prep.validate import CheckOptions, validate
from opentau_prep.validate.mp4 import read_video

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/validate"))
_LEAST = "import gc; gc.set_threshold(100_000); import pyarrow.parquet, typer"
COLUMNS = ["observation.state", "action", "timestamp", "frame_index", "index", "task_index"]


def _best(run: Callable[[], object], repetitions: int = 3) -> float:
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def _raw_read(root: Path) -> None:
    """Read the columns of all files with pyarrow and reduce them with NumPy; one thread."""
    for file in sorted(root.glob("data/*/*.parquet")):
        table = pq.ParquetFile(file, memory_map=True).read(columns=COLUMNS, use_threads=False)
        for column in table.columns:
            array = column.combine_chunks()
            while hasattr(array, "flatten") and hasattr(array.type, "value_type"):
                array = array.flatten()
            values = array.to_numpy(zero_copy_only=False)
            width = len(values) // max(len(table), 1)
            matrix = values.reshape(-1, max(width, 1))
            matrix.min(axis=0), matrix.max(axis=0), matrix.mean(axis=0, dtype=np.float64)
            matrix.std(axis=0, dtype=np.float64)


def _metadata(folder: Path, n_datasets: int, context: RunContext) -> None:
    for count in (n_datasets // 4, n_datasets):
        file = write_many(folder / f"many_{count}", count, data=True)
        subject = Salvage.of(load_mixture(file))
        for label, cache in (("", os.devnull), (", unchanged since", str(folder / "cache"))):
            os.environ["OPENTAU_PREP_CACHE_DIR"] = cache
            time.sleep(2.5 if label else 0)
            if label:  # what was read once is remembered
                validate(subject, context)
            seconds = _best(lambda s=subject: validate(s, context))  # type: ignore[misc]
            _say(count, label, seconds)
        table = next((folder / f"many_{count}").rglob("meta/tasks.jsonl"))
        table.write_bytes(table.read_bytes())
        _say(count, ", one rewritten since", _best(lambda s=subject: validate(s, context), 1))  # type: ignore[misc]


def _say(count: int, label: str, seconds: float) -> None:
    each = f"{seconds:7.2f} s   {seconds / count * 1e3:6.2f} ms per dataset"
    print(f"metadata of {count:6,} datasets{label:22}   {each}")


def _checked_deep(subject: Salvage, context: RunContext) -> None:
    validate(subject, context, CheckOptions(deep=True), remembering=False)


def _deep(folder: Path, n_frames: int, context: RunContext) -> None:
    layouts = (("v2.1", 2_000, None), ("v3.0", 2_000, 8))
    for version, n_episodes, n_files in layouts:
        root = folder / f"big_{version}"
        write_big(root, n_frames=n_frames, n_episodes=n_episodes, version=version, n_files=n_files)
        subject = Salvage.of(mixture_from_roots([root]))
        raw = _best(lambda r=root: _raw_read(r))  # type: ignore[misc]
        ours = _best(lambda s=subject: _checked_deep(s, context))  # type: ignore[misc]
        files = n_files or n_episodes
        print(
            f"--deep, {n_frames:,} frames in {files:,} files ({version})   raw {raw:6.2f} s"
            f"   validate {ours:6.2f} s   {ours / raw:5.2f}x (aim: <= 3x)"
        )


def _one(folder: Path) -> None:
    """Print the CPU seconds of the command on one small dataset, next to those of its imports."""
    root = folder / "one"
    write_big(root, n_frames=2_000, n_episodes=8, version="v2.1", n_files=None)
    time.sleep(2.5)  # younger files are not remembered
    # As installed packages are: with their bytecode.
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    plain["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    command = ["-m", "opentau_prep", "validate", str(root)]
    for label, words, cache in (
        ("python -c 'import pyarrow'", ["-c", "import pyarrow"], os.devnull),
        ("python -c 'import pyarrow.parquet, typer'", ["-c", _LEAST], os.devnull),
        ("opentau-prep --version", ["-m", "opentau_prep", "--version"], os.devnull),
        ("opentau-prep --help", ["-m", "opentau_prep", "--help"], os.devnull),
        ("validate, one small dataset", command, os.devnull),
        ("validate, unchanged since", command, str(folder / "cache")),
    ):
        times = []
        for _ in range(6):
            before = os.times()
            environ = {**plain, "OPENTAU_PREP_CACHE_DIR": cache}
            subprocess.run([sys.executable, *words], capture_output=True, check=False, env=environ)
            after = os.times()
            times.append(sum(after[2:4]) - sum(before[2:4]))
        print(f"{label:42} {min(times[1:]):6.2f} s of CPU, the best of 5")


def _videos(count: int) -> None:
    """Print the CPU seconds of reading the boxes of many video files."""
    from mp4_files import mp4

    with TemporaryDirectory() as folder:
        storage, content = LocalStorage(folder), mp4(300, 30)
        for number in range(count):
            Path(folder, f"{number}.mp4").write_bytes(content)
        start = time.process_time()
        for number in range(count):
            rel = f"{number}.mp4"
            read_video(lambda a, b, r=rel: storage.read_range(r, a, b), len(content), rel)  # type: ignore[misc]
        print(f"boxes of {count:,} videos {time.process_time() - start:6.2f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=int, default=1_000)
    parser.add_argument("--frames", type=int, default=600_000)
    parser.add_argument("--videos", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    context = RunContext(workers=args.workers)
    with TemporaryDirectory() as folder:
        _one(Path(folder))
        _videos(args.videos)
        if args.frames:
            _deep(Path(folder), args.frames, context)
        _metadata(Path(folder), args.datasets, context)


if __name__ == "__main__":
    main()
