"""Validation in a training loop with accelerate: one pass over all datasets, losses by provenance.

Try it on two CPU processes:

    accelerate launch --cpu --num_processes 2 scripts/validation_loop_accelerate.py --files losses
    opentau-prep val-report losses

What to copy is `validate`. It gathers once a batch, one tensor with everything that belongs to a
row: tensors gathered one by one, or a loader that pads its last batch with repeated samples, are
how rows and their names come apart. Names are not gathered at all: a row's position in the plan
gives them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from opentau_prep import (
    GroupedLosses,
    ValidationPlan,
    plan_validation,
    validation_subset,
    write_losses,
)

# Each loss of one batch: (sums, counts), (n,) tensors.
BatchLosses = Callable[[torch.Tensor], Mapping[str, tuple[torch.Tensor, torch.Tensor]]]
_PADDING = -1.0


@dataclass(frozen=True)
class Source:
    """One dataset of the mixture: what names its samples."""

    name: str
    head_row: int
    control_mode: str | None


def validate(
    accelerator: Accelerator,
    plan: ValidationPlan,
    sources: Sequence[Source],
    batch_losses: BatchLosses,
    loss_names: Sequence[str],
    files: Path | None = None,
) -> GroupedLosses:
    """Return the losses of the whole validation pass, the same on every rank.

    Args:
        accelerator: As training made it.
        plan: The plan for this world size; every rank holds the same one.
        sources: One a dataset, in the order of the plan's lengths.
        batch_losses: Positions, (n,) int64, to each loss's per-sample sums and counts.
        loss_names: The losses, in one order for all ranks.
        files: Folder for the per-sample losses, one file a rank, for `opentau-prep val-report`.
    """
    losses = GroupedLosses()
    mine = [torch.empty((0, 1 + 2 * len(loss_names)), dtype=torch.float64)]
    for positions in plan.batches(accelerator.process_index):
        rows = torch.full((plan.batch_size, 1 + 2 * len(loss_names)), _PADDING, dtype=torch.float64)
        n = len(positions)
        if n:
            wanted = torch.from_numpy(positions)
            values = batch_losses(wanted)
            columns = [wanted, *(part for name in loss_names for part in values[name])]
            rows[:n] = torch.stack([column.detach().cpu().double() for column in columns], dim=1)
        mine.append(rows[:n])
        # Every rank brings `batch_size` rows to every round, so none waits and no row moves.
        gathered = accelerator.gather(rows.to(accelerator.device)).cpu()
        real = gathered[gathered[:, 0] != _PADDING]
        losses.update(**named(real, plan, sources, loss_names))
    if files is not None:
        path = files / f"rank-{accelerator.process_index}.parquet"
        write_losses(path, **named(torch.cat(mine), plan, sources, loss_names))
    return losses


def named(
    rows: torch.Tensor, plan: ValidationPlan, sources: Sequence[Source], loss_names: Sequence[str]
) -> dict[str, Any]:
    """Return rows of (position, sum, count, sum, count, ...) as samples with their provenance."""
    dataset, _ = plan.locate(rows[:, 0].long())
    return {
        "dataset_index": [sources[d].head_row for d in dataset],
        "dataset": [sources[d].name for d in dataset],
        "control_mode": [sources[d].control_mode for d in dataset],
        "losses": {
            name: (rows[:, 1 + 2 * i], rows[:, 2 + 2 * i]) for i, name in enumerate(loss_names)
        },
    }


# From here on: a small mixture to run it on.

SOURCES = (
    Source("lab/arm", 0, "joint"),
    Source("lab/arm-2", 0, None),  # the control mode was masked: its head brings it back
    Source("home/one-frame", 1, "ee"),
    Source("home/hand", 1, "ee"),
)
FRAMES = (400, 143, 20, 90)
CHUNK = (8, 7)  # T, D


class PerDimGain(torch.nn.Module):
    """A stand-in for a policy: actions from observations, dim by dim."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.linspace(0.5, 1.5, CHUNK[1]))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Return (n, T, D) actions."""
        return observation * self.gain


def toy_frames() -> tuple[list[int], torch.Tensor]:
    """Return the validation lengths, and the concatenated validation frames, (N, T, D) float32."""
    lengths, parts = [], []
    for i, (source, n) in enumerate(zip(SOURCES, FRAMES, strict=True)):
        frames = torch.randn((n, *CHUNK), generator=torch.Generator().manual_seed(i))
        kept = validation_subset(n, 0.05, seed=0, name=source.name)
        lengths.append(len(kept))
        parts.append(frames[torch.from_numpy(kept)])
    return lengths, torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Validation by provenance with accelerate.")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument(
        "--out", type=Path, help="where the main process writes the state and result"
    )
    parser.add_argument("--files", type=Path, help="folder for the per-sample losses")
    args = parser.parse_args()
    accelerator = Accelerator(cpu=True)
    lengths, frames = toy_frames()
    model = accelerator.prepare(PerDimGain())
    plan = plan_validation(
        lengths, world_size=accelerator.num_processes, batch_size=args.batch_size
    )

    @torch.no_grad()
    def batch_losses(positions: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        batch = frames[positions]
        squared = (model(batch) - batch.abs()).square().flatten(1)
        return {"MSE": (squared.sum(1), torch.full((len(batch),), squared.shape[1]))}

    losses = validate(accelerator, plan, SOURCES, batch_losses, ["MSE"], args.files)
    if accelerator.is_main_process:
        result = losses.result()
        if args.out:
            args.out.write_text(json.dumps({"state": losses.state(), "result": result}))
        print(json.dumps(result["metrics"], indent=2))
    accelerator.end_training()


if __name__ == "__main__":
    main()
