"""Measure what the BPE trainer costs: time and peak memory by corpus size, token cap and shape.

    python scripts/measure_bpe_trainer.py                 # a table on generated chunks
    python scripts/measure_bpe_trainer.py --sizes 1000,4000 --dims 14,32 --caps none,64

Each row is a process of its own, so that its peak memory is its own. "bytes/byte" is peak memory of
the training step per UTF-8 byte of the corpus: the number that `opentau_prep.tokenizer.bpe`
estimates by. `--library` trains with `tokenizers` alone.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HEADER = ("chunks", "dims", "cap", "MB", "CPU seconds", "peak MB", "bytes/byte", "held-out tokens")


def generated_chunks(n: int, used_dims: int, seed: int) -> np.ndarray:
    """Return (n, 50, 32) float32 normalized chunks: smooth, noisy, padded beyond `used_dims`."""
    rng = np.random.default_rng(seed)
    steps = np.linspace(0, 1, 50)[None, :, None]
    start, end = rng.uniform(-1, 1, (2, n, 1, used_dims))
    end = start + (end - start) * rng.uniform(0, 0.5, (n, 1, 1))
    path = start + (end - start) * steps**3 * (10 - 15 * steps + 6 * steps**2)
    path += rng.normal(size=path.shape) * rng.choice([0, 0.002, 0.01], size=(n, 1, 1))
    chunks = np.zeros((n, 50, 32), dtype=np.float32)
    chunks[..., :used_dims] = path
    return chunks


def measure_one(
    n: int, used_dims: int, cap: int | None, *, library: bool, headroom: float
) -> dict[str, float]:
    from opentau_prep.tokenizer import bpe, quantize

    if library:
        bpe.MAX_VOCAB = 0

    def values_of(count: int, seed: int) -> np.ndarray:
        blocks = [
            generated_chunks(min(1000, count - i), used_dims, seed + i)
            for i in range(0, count, 1000)
        ]
        return np.concatenate([quantize.quantize(block, 10) for block in blocks])

    values, held_out_values = values_of(n, 0), values_of(500, 10**6)
    lowest = int(values.min())
    min_token = quantize.min_token_of(lowest, chunk_size=50, scale=10, headroom=headroom)
    points = quantize.code_points(values, min_token)
    held_out = quantize.code_points(held_out_values, min_token)
    before = _reset_peak()
    started = time.process_time()
    tokenizer = bpe.train_bpe(points, vocab_size=2048, max_token_length=cap)
    seconds = time.process_time() - started
    size = bpe.utf8_bytes(points)
    grown = _peak_bytes() - before
    return {
        "mb": size / 1e6,
        "seconds": seconds,
        "peak_mb": grown / 1e6,
        "ratio": grown / size,
        "tokens": float(bpe.encode_points(tokenizer, held_out).lengths.mean()),
    }


def _reset_peak() -> int:
    """Let the peak begin at what is in use now; return it. Linux only; else the peak so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    with contextlib.suppress(OSError, IndexError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(
    n: int, used_dims: int, cap: int | None, *, library: bool = False, headroom: float = 10.0
) -> dict[str, float]:
    """Return what `measure_one` returns in a process of its own."""
    arguments = json.dumps([[n, used_dims, cap], {"library": library, "headroom": headroom}])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, "--one", arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    return json.loads(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,4000,8000")
    parser.add_argument("--dims", default="7,14,32", help="action dims that move, of 32")
    parser.add_argument("--caps", default="none,64")
    parser.add_argument("--headroom", type=float, default=10.0)
    parser.add_argument("--library", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        positional, named = json.loads(args.one)
        print(json.dumps(measure_one(*positional, **named)))
        return
    print(*(f"{name:>15}" for name in HEADER))
    caps = [None if cap == "none" else int(cap) for cap in args.caps.split(",")]
    dims = [int(dim) for dim in args.dims.split(",")]
    sizes = [int(size) for size in args.sizes.split(",")]
    for used, cap, n in itertools.product(dims, caps, sizes):
        row = measure(n, used, cap, library=args.library, headroom=args.headroom)
        cells = [n, used, cap or "none"]
        cells += [f"{row[k]:.1f}" for k in ("mb", "seconds", "peak_mb", "ratio", "tokens")]
        print(*(f"{cell!s:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
