"""Measure `fit-tokenizer`: sampling against the raw limit, the BPE apart, and the big mixture.

    python scripts/bench_tokenizer.py --out bench/tokenizer             # 2,000 small files
    python scripts/bench_tokenizer.py --out bench/tokenizer --mixture   # 393 datasets, 32 heads
    python scripts/bench_tokenizer.py --headroom ROOT ...               # what headroom costs
    python scripts/bench_tokenizer.py --halves ROOT ...                 # half the scale and rate

The raw limit is the same action columns of the same files, read with pyarrow and reduced with NumPy
in one process. Times are wall clock; CPU seconds are those of this process and its workers.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from measure_bpe_trainer import measure

from opentau_prep.config.load import load_mixture, mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.demo.many import write_big
from opentau_prep.demo.spec import DatasetSpec, EpisodeData
from opentau_prep.demo.trajectories import Robot, demonstrate
from opentau_prep.demo.write import write_dataset
from opentau_prep.frames.columns import to_matrix
from opentau_prep.metadata.resolve import ResolvedMixture, resolve_mixture
from opentau_prep.tokenizer.bpe import affordable_words, encode_points, train_bpe, utf8_bytes
from opentau_prep.tokenizer.fit import fit_corpus
from opentau_prep.tokenizer.options import FitOptions
from opentau_prep.tokenizer.prepare import prepare_tokenizer, sample_mixture
from opentau_prep.tokenizer.quantize import DEFAULT_HEADROOM, code_points, min_token_of

GIB = 1 << 30


class Timer:
    """Wall and CPU seconds of a block, workers included."""

    def __enter__(self) -> Timer:
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = _cpu_seconds() - self._cpu

    def __str__(self) -> str:
        return f"{self.wall:7.2f} s wall, {self.cpu:7.2f} s CPU"


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_gib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + 2 * child) * unit / GIB


def raw_limit(root: Path) -> int:
    """Read the action column of every file and reduce it; return the frames."""
    frames = 0
    for path in sorted(root.glob("data/*/*.parquet")):
        matrix = to_matrix(pq.read_table(path, columns=["action"]).column(0), str(path))
        matrix.min(axis=0), matrix.max(axis=0)
        frames += len(matrix)
    return frames


def bench_files(out: Path, n_chunks: int) -> None:
    root = out / "small_files"
    if not root.exists():
        write_big(root, dim=14)
    resolved = resolve_mixture(mixture_from_roots([root]))
    options = FitOptions(50, total_chunks=n_chunks, memory_bytes=64 * GIB)
    raw_limit(root)
    with Timer() as raw:
        frames = raw_limit(root)
    print(f"raw limit, one process:                {raw}  ({frames:,} frames)")
    for workers in (1, 2):
        with Timer() as timer:
            sampling = sample_mixture(resolved, RunContext(workers=workers), options)
        rows = len(sampling.corpus.dataset)
        ratio = timer.wall / raw.wall
        print(f"sampling {rows:,} chunks, {workers} worker(s):    {timer}  ({ratio:.2f} x raw)")
    print(f"peak memory so far (with workers): {_peak_gib():.2f} GiB")
    small = replace(options, total_chunks=4_000, max_token_length=1 << 30)
    sampling = sample_mixture(resolved, RunContext(workers=2), small)
    with Timer() as timer:
        fit_corpus(sampling.corpus, small, 1)
    print(f"BPE alone on 4,000 chunks:             {timer}")
    bench_trainer()


def bench_trainer() -> None:
    """Compare the trainer with that of the `tokenizers` library, each in a process of its own."""
    print("trainer on 4,000 generated chunks of 50 x 32, 14 dims in use, vocabulary 2,048:")
    for headroom in (0.0, DEFAULT_HEADROOM):
        own, library = (
            measure(4_000, 14, None, library=x, headroom=headroom) for x in (False, True)
        )
        assert own["tokens"] == library["tokens"], "other merges than the library's"
        print(
            f"  headroom {headroom:g}: {own['seconds']:.2f} s CPU, {own['peak_mb']:.0f} MB;"
            f" tokenizers {library['seconds']:.2f} s, {library['peak_mb']:.0f} MB:"
            f" {library['seconds'] / own['seconds']:.1f} x the CPU,"
            f" {library['peak_mb'] / own['peak_mb']:.1f} x the memory"
        )


def bench_headroom(roots: list[Path]) -> None:
    """Print the mean tokens of held-out chunks by headroom: vocabulary 2,048, no cap."""
    for root in roots:
        resolved = resolve_mixture(mixture_from_roots([root]))
        options = FitOptions(50, total_chunks=3_500)
        corpus = sample_mixture(resolved, RunContext(workers=1), options).corpus
        values, held = corpus.values[0][~corpus.is_held], corpus.values[0][corpus.in_share]
        base = 0.0
        for headroom in (0, 1.8, 4, 10, 25):
            lowest = int(values.min())
            min_token = min_token_of(lowest, chunk_size=50, scale=10.0, headroom=headroom)
            tokenizer = train_bpe(code_points(values, min_token), vocab_size=2048)
            mean = float(encode_points(tokenizer, code_points(held, min_token)).lengths.mean())
            base = base or mean
            print(
                f"{root.name}: headroom {headroom:>4}, min_token {min_token:>6}: {mean:.2f} tokens"
                f" ({mean / base - 1:+.2%})",
                flush=True,
            )


def bench_halves(roots: list[Path]) -> None:
    """Print tokens under half the scale and half the rate: with this tokenizer, and refitted."""
    for root in roots:
        is_file = root.suffix == ".json"
        resolved = resolve_mixture(load_mixture(root) if is_file else mixture_from_roots([root]))
        options = FitOptions(50, total_chunks=1_000, max_token_length=1 << 30)
        halves = {
            "half_scale": (resolved, replace(options, scale=5.0)),
            "half_rate": (_at_half_rate(resolved), replace(options, chunk_size=25)),
        }
        sampling = sample_mixture(resolved, RunContext(workers=1), options)
        same = fit_corpus(sampling.corpus, options, len(sampling.plans)).explained.halves
        for half, (name, (mixture, changed)) in zip(same, halves.items(), strict=True):
            sampling = sample_mixture(mixture, RunContext(workers=1), changed)
            measured = fit_corpus(sampling.corpus, changed, len(sampling.plans)).measured
            mean = float(measured.lengths[measured.in_share].mean())
            print(f"{root.name}, {name}: {half.mean:.2f} tokens, refitted {mean:.2f}", flush=True)


def _at_half_rate(resolved: ResolvedMixture) -> ResolvedMixture:
    rate = resolved.mixture.action_freq or resolved.entries[0].meta.fps
    return replace(resolved, mixture=replace(resolved.mixture, action_freq=rate / 2))


def write_robots(out: Path, n_datasets: int, n_heads: int) -> Path:
    """Write a mixture of smooth trajectories of `n_heads` robots of 6 to 26 dims."""
    import json

    entries = []
    for number in range(n_datasets):
        head = number % n_heads
        dim = 6 + head * 20 // max(1, n_heads - 1)
        rng = np.random.default_rng(head)
        low = rng.uniform(-3, -1, dim)
        high = low + rng.uniform(1, 4, dim)
        robot = Robot(
            names=tuple(f"joint_{i}" for i in range(dim)),
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            home=tuple(((low + high) / 2).tolist()),
            grippers=(),
        )
        episodes = []
        for episode in range(12):
            n_frames = 80 + (number * 7 + episode * 13) % 90
            motion = demonstrate(robot, n_frames=n_frames, task_seed=number, episode_seed=episode)
            episodes.append(EpisodeData(motion.state, motion.actions, 0))
        root = f"datasets/{number:03d}"
        version = ("v2.1", "v3.0")[number % 2]
        spec = DatasetSpec(version, f"bench_{head:02d}", "joint", (10, 15, 20, 30)[number % 4])
        write_dataset(out / root, spec, episodes)
        entries.append({"repo_id": f"bench/{number:03d}", "root": root})
    path = out / "mixture.json"
    path.write_text(json.dumps({"datasets": entries, "weights": None, "action_freq": 10.0}))
    return path


def bench_mixture(out: Path, n_datasets: int, n_heads: int, n_chunks: int, gib: float) -> None:
    folder = out / f"robots-{n_datasets}"
    if not (folder / "mixture.json").exists():
        write_robots(folder, n_datasets, n_heads)
    resolved = resolve_mixture(load_mixture(folder / "mixture.json"))
    options = FitOptions(50, total_chunks=n_chunks, memory_bytes=int(gib * GIB))
    context = RunContext(workers=2, force=True)
    with tempfile.TemporaryDirectory() as scratch, Timer() as timer:
        report = prepare_tokenizer(resolved, context, options, Path(scratch) / "tokenizer")
    document = report.document
    print(f"{n_datasets} datasets, {document['n_norm_heads']} heads, {n_chunks:,} chunks asked for")
    print(f"fit-tokenizer:                         {timer}")
    print(f"of that: {report.seconds}")
    print(f"peak memory: {_peak_gib():.2f} GiB")
    for candidate in document["fit"]["candidates"]:
        print(candidate)
    print("largest fit that the budget allows:")
    sampling = sample_mixture(resolved, context, options)
    from opentau_prep.tokenizer.choose import proportional_order

    corpus = sampling.corpus
    own = corpus.values[0][~corpus.is_held]
    min_token = document["quantized"]["min_token"]
    points = code_points(own, min_token)
    word_bytes = utf8_bytes(points) / len(points)
    n = min(len(points), affordable_words(word_bytes, options.vocab_size, int(gib * GIB)))
    order = proportional_order(corpus.counts(len(sampling.plans)))
    with Timer() as timer:
        largest = train_bpe(
            points[order[:n]],
            vocab_size=options.vocab_size,
            max_token_length=document["fit"]["max_token_length"],
        )
    held = code_points(corpus.values[0][corpus.in_share], min_token)
    mean = float(encode_points(largest, held).lengths.mean())
    chosen = document["token_lengths"]["total"]["mean"]
    print(f"{n:,} chunks: mean {mean:.2f} tokens; chosen {chosen:.2f} ({chosen / mean - 1:+.2%})")
    print(f"its own time:                          {timer}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench/tokenizer"))
    parser.add_argument("--chunks", type=int, default=40_000)
    parser.add_argument("--mixture", action="store_true")
    parser.add_argument("--datasets", type=int, default=393)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--total-chunks", type=int, default=278_000)
    parser.add_argument("--memory-budget", type=float, default=5.0, metavar="GIB")
    parser.add_argument("--headroom", type=Path, nargs="+", metavar="ROOT")
    parser.add_argument("--halves", type=Path, nargs="+", metavar="ROOT")
    args = parser.parse_args()
    if args.halves:
        bench_halves(args.halves)
    elif args.headroom:
        bench_headroom(args.headroom)
    elif args.mixture:
        bench_mixture(args.out, args.datasets, args.heads, args.total_chunks, args.memory_budget)
    else:
        bench_files(args.out, args.chunks)


if __name__ == "__main__":
    main()
