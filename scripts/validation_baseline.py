"""A whole validation by plan, on real frames: the loss of predicting that nothing changes.

    opentau-prep val-plan --mixture-json demo/mixture.json --world-size 2 --batch-size 32 \
        --out plan.json
    python scripts/validation_baseline.py --mixture-json demo/mixture.json --plan plan.json \
        --files losses
    opentau-prep val-report losses --mixture-json demo/mixture.json

What to copy is `rank_samples`: from the plan to a rank's frames, and from there to its loss file.
The "policy" repeats the action of the frame before, in the dataset's own units: a number to compare
with, not a model. Every third sample comes without its control mode, as when training masks it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from opentau_prep import load_mixture, load_validation_plan, write_losses
from opentau_prep.frames.read import read_frames
from opentau_prep.metadata.resolve import ResolvedEntry, resolve_mixture
from opentau_prep.val_loss import MixtureValidation
from opentau_prep.val_loss.sources import MixtureFacts, mixture_sources


def squared_changes(entry: ResolvedEntry, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (sum over dims, dims) of the squared change of action at some selected frames."""
    column = entry.name_map.columns["actions"]
    block = read_frames(entry.meta, [column], entry.episodes)
    actions = block.columns[column].astype(np.float64)
    before = np.maximum(np.arange(len(actions)) - 1, 0)
    starts = block.spans[:, 0]
    before[starts] = starts  # the first frame of an episode has none before it
    changes = np.square(actions[rows] - actions[before[rows]])
    return changes.sum(axis=1), np.full(len(rows), changes.shape[1])


def rank_samples(
    rank: int, plan: MixtureValidation, entries: dict[str, ResolvedEntry], sources: MixtureFacts
) -> dict[str, Any]:
    """Return one rank's samples, as `write_losses` and `GroupedLosses.update` take them."""
    names: list[str] = []
    modes: list[str | None] = []
    sums, counts = [np.empty(0)], [np.empty(0)]
    for name, rows in plan.rows(rank):
        total, dims = squared_changes(entries[name], rows)
        sums.append(total)
        counts.append(dims)
        names += [name] * len(rows)
        modes += [sources.control_modes.get(name) if row % 3 else None for row in rows.tolist()]
    return {
        "dataset_index": np.array([sources.dataset_to_norm_index[n] for n in names], np.int64),
        "dataset": names,
        "control_mode": modes,
        "losses": {"MSE": (np.concatenate(sums), np.concatenate(counts))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Validate the no-change baseline by plan.")
    parser.add_argument("--mixture-json", type=Path, required=True)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--files", type=Path, required=True, help="folder for the loss files")
    args = parser.parse_args()
    resolved = resolve_mixture(load_mixture(args.mixture_json))
    entries = {entry.name: entry for entry in resolved.entries}
    sources = mixture_sources(resolved)
    plan = load_validation_plan(args.plan)
    # In training each rank does its own; here one process plays them all.
    for rank in range(plan.plan.world_size):
        samples = rank_samples(rank, plan, entries, sources)
        write_losses(args.files / f"rank-{rank}.parquet", **samples)


if __name__ == "__main__":
    main()
