"""Kill `stats` at every write point, run it again, and compare with a run that was not killed.

    PYTHONPATH=. python scripts/kill_stats.py [--points N]

A write point is a call of os.replace, os.fsync, os.link or os.unlink: the process ends by SIGKILL
before or after it. Datasets are small ones of v2.1 and v3.0, with published stats that `stats`
completes, without any, and grown by an episode. Exits with 1 where a rerun ends with other bytes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from opentau_prep.config.load import mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.demo.append import append_episode
from opentau_prep.demo.spec import DatasetSpec, EpisodeData, Version
from opentau_prep.demo.write import write_dataset
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.stats import prepare_stats

CALLS = ("replace", "fsync", "link", "unlink")


def main() -> int:
    """Kill and compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200, help="kills in all")
    wanted = parser.parse_args().points
    kills = wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        cases = [(v, how) for v in ("v2.1", "v3.0") for how in ("published", "bare", "grown")]
        roots = {case: _dataset(Path(folder), *case) for case in cases}
        clean = {case: _after(root, None) for case, root in roots.items()}
        points = [_count(root) for root in roots.values()]
        print(f"{sum(points)} write points: {points}", flush=True)
        point = 0
        while kills < wanted and point < 2 * max(points):
            for (case, root), number in zip(roots.items(), points, strict=True):
                if point < 2 * number and kills < wanted:
                    kills += 1
                    found = _after(root, point)
                    names = sorted({*found, *clean[case]})
                    differing = [n for n in names if found.get(n) != clean[case].get(n)]
                    if differing:
                        wrong += 1
                        print(f"{case}, killed at {point / 2}: {differing}", flush=True)
            point += 1
    print(f"{kills} kills, {wrong} reruns with other bytes")
    return int(wrong > 0)


def _episode(length: int, seed: int) -> EpisodeData:
    rng = np.random.default_rng(seed)
    state, action = (rng.random((length, d)).astype(np.float32) for d in (3, 2))
    return EpisodeData(state, action, 0)


def _dataset(parent: Path, version: Version, how: str) -> Path:
    root = parent / f"{version}-{how}"
    episodes = [_episode(n, n) for n in (40, 31, 57)]
    write_dataset(root, DatasetSpec(version=version, tasks=("do",)), episodes)
    if how == "bare":
        for name in ("stats.json", "episodes_stats.jsonl"):
            (root / "meta" / name).unlink(missing_ok=True)
    if how == "grown":
        _stats(root)
        append_episode(root, _episode(25, 1))
    return root


def _stats(root: Path) -> None:
    prepare_stats(resolve_mixture(mixture_from_roots([str(root)])), RunContext(workers=1))


def _after(root: Path, point: int | None) -> dict[str, bytes]:
    """Return the files of a copy on which `stats` was killed at a point, and run again."""
    copy = root.parent / "copy" / root.name  # of one name: the provenance may hold it
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(root, copy)
    if point is not None:
        _child(_killed, copy, point)
    _child(_stats, copy)
    files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
    return {str(path.relative_to(copy)): path.read_bytes() for path in files}


def _child(work: Callable[..., None], *args: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=work, args=args)
    process.start()
    process.join()


def _killed(root: Path, point: int) -> None:
    _watch(point)
    _stats(root)


def _watch(point: int) -> list[int]:
    """Kill this process before (even) or after (odd) its write point number point // 2."""
    done = [0]

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            mine = done[0]
            done[0] += 1
            if 2 * mine == point:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if 2 * mine + 1 == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return run

    for name in CALLS:
        setattr(os, name, watched(getattr(os, name)))
    return done


def _count(root: Path) -> int:
    """Return how many write points a run has."""
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)

    def work(copy: Path) -> None:
        done = _watch(-1)
        _stats(copy)
        sender.send(done[0])

    copy = root.parent / "copy" / root.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(root, copy)
    _child(work, copy)
    return int(receiver.recv())


if __name__ == "__main__":
    sys.exit(main())
