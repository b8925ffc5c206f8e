"""Wall-clock of a validation pass: a loop over datasets against the one combined pass.

    python scripts/bench_val.py

Real processes, one a rank; each batch costs a fixed time (a sleep: what a forward on an accelerator
costs the host) and the accumulator's update, and after each batch all ranks meet at a barrier, as
they do at a gather. The mixture: 200 datasets with 1 to 5 validation frames, 10 with 2,000. The
ideal is all frames spread evenly: frames / (ranks x batch size) batches, and not a moment of
waiting. The combined pass is run several times; the aim is every run within 10 % of the ideal.

What lies over the ideal is a fixed few milliseconds a round: the barrier, the accumulator, and
`woken late`, how much longer than asked a sleep lasts (with more ranks than cores: milliseconds,
and the barrier waits for the latest). So the share over the ideal is the larger the cheaper a
batch: hence the cost in the table, and `--cost-ms` to see.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from opentau_prep import GroupedLosses, ValidationPlan, plan_validation

_LINE = "{:>5} {:>10} {:>12} {:>7} {:>8} {:>8} {:>8} {:>11}"
Batches = Iterator[NDArray[np.int64]]
Times: TypeAlias = "mp.Queue[tuple[float, float]]"


@dataclass(frozen=True)
class Setting:
    """What every rank is told."""

    plan: ValidationPlan
    cost_s: float
    combined: bool


def representative_lengths() -> list[int]:
    """Return the validation lengths of the mixture, small and large datasets interleaved."""
    small = np.random.default_rng(0).integers(1, 6, size=200).tolist()
    return [n for i in range(10) for n in (*small[20 * i : 20 * i + 20], 2000)]


def per_dataset_batches(plan: ValidationPlan, rank: int) -> Batches:
    """Yield one rank's batches when each dataset has its own loader, its batches dealt in turn."""
    offset = 0
    stride = plan.world_size * plan.batch_size
    for length in plan.lengths:
        for start in range(0, length, stride):
            low = min(start + rank * plan.batch_size, length)
            yield offset + np.arange(low, min(low + plan.batch_size, length))
        offset += length


def run_rank(rank: int, setting: Setting, barrier: Barrier, times: Times) -> None:
    """Validate as one rank; put (seconds from all being ready, mean lateness of a wake-up, s)."""
    plan, losses = setting.plan, GroupedLosses()
    names = [f"org/dataset-{i}" for i in range(len(plan.lengths))]
    values = np.random.default_rng(1).random(plan.total)
    batches = plan.batches(rank) if setting.combined else per_dataset_batches(plan, rank)
    barrier.wait()
    started, late = time.perf_counter(), []
    for positions in batches:
        if len(positions):
            slept = time.perf_counter()
            time.sleep(setting.cost_s)
            late.append(time.perf_counter() - slept - setting.cost_s)
            dataset, _ = plan.locate(positions)
            losses.update(
                dataset_index=dataset % 7,
                dataset=[names[d] for d in dataset],
                control_mode=["joint"] * len(positions),
                losses={"MSE": (values[positions], np.ones(len(positions)))},
            )
        barrier.wait()
    times.put((time.perf_counter() - started, float(np.mean(late)) if late else 0.0))


def measure(setting: Setting) -> tuple[float, float]:
    """Return the seconds of the slowest rank, and how late the latest one woke from a batch."""
    context = mp.get_context("spawn")
    world_size = setting.plan.world_size
    barrier, times = context.Barrier(world_size), context.Queue()
    ranks = [
        context.Process(target=run_rank, args=(rank, setting, barrier, times))
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    took = [times.get() for _ in ranks]
    for process in ranks:
        process.join()
    return max(seconds for seconds, _ in took), max(late for _, late in took)


def main() -> None:
    parser = argparse.ArgumentParser(description="Per-dataset loop against one combined pass.")
    parser.add_argument("--world-sizes", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--cost-ms", type=float, default=100.0, help="what one batch costs")
    parser.add_argument("--runs", type=int, default=3, help="runs of the combined pass")
    args = parser.parse_args()
    lengths = representative_lengths()
    print(f"{len(lengths)} datasets, {sum(lengths)} frames, batch {args.batch_size}")
    print(
        _LINE.format("ranks", "batch cost", "pass", "rounds", "s", "ideal s", "over", "woken late")
    )
    for world_size in args.world_sizes:
        plan = plan_validation(lengths, world_size=world_size, batch_size=args.batch_size)
        ideal = plan.total / (world_size * args.batch_size) * args.cost_ms / 1000
        loop, *combined = (
            _measured_row(Setting(plan, args.cost_ms / 1000, combined=run > 0), ideal)
            for run in range(args.runs + 1)
        )
        usual = float(np.median(combined))
        print(
            f"      {world_size} ranks: speed-up {loop / usual:.2f} measured (median run), "
            f"{plan.expected_speed_up:.2f} planned; worst run {max(combined) / ideal - 1:+.1%} "
            "over the ideal"
        )


def _measured_row(setting: Setting, ideal: float) -> float:
    """Measure, print the row, and return the seconds."""
    plan = setting.plan
    took, late = measure(setting)
    rounds = plan.rounds if setting.combined else plan.rounds_per_dataset_loop
    cells = (
        plan.world_size,
        f"{setting.cost_s * 1000:g} ms",
        "combined" if setting.combined else "per dataset",
        rounds,
        f"{took:.2f}",
        f"{ideal:.2f}",
        f"{took / ideal - 1:+.1%}",
        f"{late * 1000:.2f} ms",
    )
    print(_LINE.format(*cells), flush=True)
    return took


if __name__ == "__main__":
    main()
