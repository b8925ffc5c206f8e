"""Validation by provenance without torch: each rank keeps its own losses, states are merged once.

    python scripts/validation_loop_numpy.py --world-size 3

What to copy is `validate_rank` and the merge in `main`: no collective in the loop at all, and one
small JSON-ready state per rank at the end, over whatever the ranks have: a pipe here, files, MPI, a
queue.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np

from opentau_prep import GroupedLosses, plan_validation, train_val_split

DATASETS = ("lab/arm", "lab/arm-2", "home/one-frame", "home/hand")
HEAD_ROWS = np.array([0, 0, 1, 1])
CONTROL_MODES = ("joint", None, "ee", "ee")  # None: masked in training; its head brings it back
FRAMES = (400, 143, 20, 90)
CHUNK = (8, 7)  # T, D


def toy_frames() -> tuple[list[int], np.ndarray]:
    """Return the validation lengths, and the concatenated validation frames, (N, T, D) float32."""
    lengths, parts = [], []
    for i, n in enumerate(FRAMES):
        frames = np.random.default_rng(i).standard_normal((n, *CHUNK), dtype=np.float32)
        _, kept = train_val_split(n, 0.05, 1000)
        lengths.append(len(kept))
        parts.append(frames[kept])
    return lengths, np.concatenate(parts)


def validate_rank(job: tuple[int, int, int]) -> dict[str, Any]:
    """Return one rank's state.

    Args:
        job: (rank, world size, batch size).
    """
    rank, world_size, batch_size = job
    lengths, frames = toy_frames()
    plan = plan_validation(lengths, world_size=world_size, batch_size=batch_size)
    gain = np.linspace(0.5, 1.5, CHUNK[1], dtype=np.float32)
    losses = GroupedLosses()
    for positions, weights in zip(plan.batches(rank), plan.weights(rank), strict=True):
        batch = frames[positions]
        squared = np.square(batch * gain - np.abs(batch))
        dataset, _ = plan.locate(positions)
        losses.update(
            dataset_index=HEAD_ROWS[dataset],
            dataset=[DATASETS[d] for d in dataset],
            control_mode=[CONTROL_MODES[d] for d in dataset],
            losses={"MSE": (squared.sum(axis=(1, 2)), np.full(len(batch), np.prod(CHUNK)))},
            weights=weights,
        )
    return losses.state()


def main() -> None:
    parser = argparse.ArgumentParser(description="Validation by provenance without torch.")
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--out", type=Path, help="where to write the merged state and the result")
    args = parser.parse_args()
    jobs = [(rank, args.world_size, args.batch_size) for rank in range(args.world_size)]
    with multiprocessing.get_context("spawn").Pool(args.world_size) as pool:
        states = pool.map(validate_rank, jobs)
    losses = GroupedLosses()
    for state in states:
        losses.merge(state)
    result = losses.result()
    if args.out:
        args.out.write_text(json.dumps({"state": losses.state(), "result": result}))
    print(json.dumps(result["metrics"], indent=2))


if __name__ == "__main__":
    main()
