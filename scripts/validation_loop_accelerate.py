"""Validation in a training loop with accelerate: one pass over all datasets, losses by provenance.

Try it on two CPU processes:

    accelerate launch --cpu --num_processes 2 scripts/validation_loop_accelerate.py --files losses
    opentau-prep val-report losses

What to copy is `validate`. `Accelerator.prepare` deals the plan's batches to the ranks and moves
them to their devices; every rank has equally many full batches, so a sharded model (FSDP, ZeRO-3)
cannot hang. Nothing is gathered per batch: each rank adds its own samples up, and the ranks' states
are merged once at the end.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from opentau_prep import (
    GroupedLosses,
    ValidationPlan,
    plan_validation,
    train_val_split,
    write_losses,
)


@torch.no_grad()
def validate(
    accelerator: Accelerator,
    policy: torch.nn.Module,
    loader: DataLoader[dict[str, Any]],
    plan: ValidationPlan,
    files: Path | None = None,
) -> GroupedLosses:
    """Return the losses of the whole validation pass, the same on every rank.

    Args:
        accelerator: As training made it.
        policy: A batch to the per-sample (sum, count) of each loss.
        loader: Over the concatenated validation sets by `plan.batches()`, prepared once by the
            accelerator; a batch has `dataset` and `dataset_index`.
        plan: The plan over the sets' lengths; every rank holds the same one.
        files: Folder for the per-sample losses, for `opentau-prep val-report`.
    """
    rank, mine = accelerator.process_index, GroupedLosses()
    for step, (batch, weights) in enumerate(zip(loader, plan.weights(rank), strict=True)):
        samples = {
            "dataset_index": batch["dataset_index"],
            "dataset": batch["dataset"],
            "losses": policy(batch),
            "weights": weights,
        }
        mine.update(**samples)
        if files is not None:
            write_losses(files / f"rank-{rank}-{step}.parquet", **samples)
    losses = GroupedLosses()
    for state in gather_object([mine.state()]):
        losses.merge(state)
    return losses


# From here on: a small mixture to run it on.

DATASETS = {"lab/arm": (0, 400), "lab/arm-2": (0, 143), "home/one": (1, 20), "home/hand": (1, 90)}
CHUNK = (8, 7)  # T, D


class ToyDataset(Dataset):
    """Random frames of one robot, each with the name and the norm-head row of its dataset."""

    def __init__(self, name: str, head_row: int, n_frames: int) -> None:
        self.name, self.head_row = name, head_row
        generator = torch.Generator().manual_seed(n_frames)
        self.frames = torch.randn((n_frames, *CHUNK), generator=generator)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one sample."""
        return {"state": self.frames[row], "dataset": self.name, "dataset_index": self.head_row}


class PerDimGain(torch.nn.Module):
    """A stand-in for a policy: actions from observations, dim by dim."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.linspace(0.5, 1.5, CHUNK[1]))

    def forward(self, batch: dict[str, Any]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return each loss's per-sample sums and counts, (n,) each."""
        squared = (batch["state"] * self.gain - batch["state"].abs()).square().flatten(1)
        return {"MSE": (squared.sum(1), torch.full((len(squared),), squared.shape[1]))}


def main() -> None:
    parser = argparse.ArgumentParser(description="Validation by provenance with accelerate.")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--out", type=Path, help="where the main process writes state and result")
    parser.add_argument("--files", type=Path, help="folder for the per-sample losses")
    args = parser.parse_args()
    accelerator = Accelerator(cpu=True)
    # In OpenTau: `val_dataset.concatenated_dataset`, whose sets these are.
    sets = [
        Subset(ToyDataset(name, row, n), train_val_split(n, 0.05, 1000)[1].tolist())
        for name, (row, n) in DATASETS.items()
    ]
    plan = plan_validation(
        [len(part) for part in sets],
        world_size=accelerator.num_processes,
        batch_size=args.batch_size,
    )
    loader = DataLoader(ConcatDataset(sets), batch_sampler=plan.batches())
    policy, loader = accelerator.prepare(PerDimGain(), loader)
    losses = validate(accelerator, policy, loader, plan, args.files)
    if accelerator.is_main_process:
        result = losses.result()
        if args.out:
            args.out.write_text(json.dumps({"state": losses.state(), "result": result}))
        print(json.dumps(result["metrics"], indent=2))
    accelerator.end_training()


if __name__ == "__main__":
    main()
