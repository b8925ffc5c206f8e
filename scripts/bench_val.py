"""Wall time of a validation pass on two ranks: OpenTau main's combined loop against ours, paired.

    python scripts/bench_val.py PATH_TO_OPENTAU

Run it in an environment that has OpenTau's requirements and this package's. 92 datasets, 60 of them
with one held-out frame, on two gloo processes under accelerate; both loops see the same samples and
the same policy, which returns per-sample (sum, count) of MSE and CE. The two take turns in one
run, so that a busy machine burdens both; the medians are compared. Then every metric of OpenTau's
is compared with ours: it adds in float32 and divides by count + 1e-8, hence the tolerance.

OpenTau's loop is part of its `train`; what it does per batch (one gather of six tensors per sample,
kept by the main process) is done here by `validate_like_opentau`, which reduces with OpenTau's own
functions at the end. A forward that costs nothing shows the loops' own cost: `--cost-ms` adds some.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from accelerate import Accelerator
from torch.utils.data import ConcatDataset, DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parent))
from validation_loop_accelerate import validate

from opentau_prep import NormHeads, plan_validation

N_HEADS = 7
CHUNK = (50, 32)  # T, D
TOLERANCE = 1e-5  # relative; float32 sums of up to some thousand samples


def held_out() -> list[int]:
    """Return the validation lengths: 60 datasets of one frame among 32 of 20 to 200."""
    large = iter(np.random.default_rng(0).integers(20, 201, size=32).tolist())
    return [next(large) if i % 23 in (1, 4, 7, 10, 13, 16, 19, 22) else 1 for i in range(92)]


def head_names() -> NormHeads:
    """Return who is in which head; there are no stats."""
    names = [f"lab/dataset-{i}" for i in range(92)]
    keys = [f"robot{row}::joint" for row in range(N_HEADS)]
    rows = {name: i % N_HEADS for i, name in enumerate(names)}
    members = {key: [n for n, r in rows.items() if r == row] for row, key in enumerate(keys)}
    return NormHeads(keys, {}, {key: row for row, key in enumerate(keys)}, rows, members)


class Frames(Dataset):
    """One dataset's held-out frames, tagged as OpenTau's mixture tags them."""

    def __init__(self, place: int, n_frames: int) -> None:
        generator = torch.Generator().manual_seed(place)
        self.frames = torch.rand((n_frames, *CHUNK), generator=generator)
        self.tags = {
            "dataset": f"lab/dataset-{place}",
            "dataset_repo_id": f"lab/dataset-{place}",
            "dataset_index": torch.tensor(place % N_HEADS),
        }

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one sample."""
        return {"actions": self.frames[row], **self.tags}


class Policy(torch.nn.Module):
    """Per-sample losses after a wait: the forward of a policy, as the host sees it."""

    def __init__(self, cost_s: float) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(CHUNK[1]))
        self.cost_s = cost_s

    def forward(self, batch: Mapping[str, Any]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return each loss's per-sample sums and counts, (n,) each."""
        time.sleep(self.cost_s)
        errors = (batch["actions"] * self.gain - 0.5).flatten(1)
        count = torch.full((len(errors),), float(errors.shape[1]))
        return {"MSE": (errors.square().sum(1), count), "CE": (errors.abs().sum(1), count)}


@torch.no_grad()
def validate_like_opentau(
    accelerator: Accelerator, policy: torch.nn.Module, loader: Any, heads: NormHeads
) -> dict[str, float]:
    """Return OpenTau's metrics on the main process; nothing on the others."""
    from opentau.scripts import train
    from opentau.utils.logging_utils import AverageMeter, MetricsTracker

    names = list(heads.dataset_to_norm_index)
    place_of = {name: place for place, name in enumerate(names)}
    kept: dict[str, list[torch.Tensor]] = {}
    for batch in loader:
        losses = policy(batch)
        sources = [place_of[name] for name in batch["dataset_repo_id"]]
        of_batch = {
            "mse_sum": losses["MSE"][0].float(),
            "mse_count": losses["MSE"][1].float(),
            "ce_sum": losses["CE"][0].float(),
            "ce_count": losses["CE"][1].float(),
            "norm": batch["dataset_index"].long(),
            "source": torch.tensor(sources),
        }
        gathered = accelerator.gather_for_metrics(of_batch)
        if accelerator.is_main_process:
            for key, value in gathered.items():
                kept.setdefault(key, []).append(value.cpu())
    if not accelerator.is_main_process:
        return {}
    whole = {key: torch.cat(parts) for key, parts in kept.items()}
    values = [whole[key] for key in ("mse_sum", "mse_count", "ce_sum", "ce_count")]
    found: dict[str, float] = {}
    trackers = {}
    for kind, labels in (("norm", heads.norm_keys), ("source", names)):
        for group, sums in train._bucket_per_sample(whole[kind], *values).items():
            mse = sums["mse_sum"] / (sums["mse_count"] + 1e-8)
            ce = sums["ce_sum"] / (sums["ce_count"] + 1e-8)
            prefix = f"Validation/{'by_dataset/' if kind == 'source' else ''}{labels[group]}"
            of_group = {"MSE Loss": mse, "CE Loss": ce, "Loss": mse + ce}
            found |= {f"{prefix}/{name}": value for name, value in of_group.items()}
            if kind == "norm":
                meters = {name: AverageMeter(name, ":.6f") for name in ("loss", "mse", "ce")}
                tracker = MetricsTracker(1, meters, initial_step=0)
                tracker.loss, tracker.mse, tracker.ce = mse + ce, mse, ce
                trackers[labels[group]] = tracker
    lengths = dict(zip(names, map(float, held_out()), strict=True))
    weights = {k: sum(lengths[n] for n in m) for k, m in heads.norm_key_to_dataset_names.items()}
    means = train._mixture_weighted_aggregate(trackers, weights)
    wanted = {"loss": "Loss", "mse": "MSE Loss", "ce": "CE Loss"}
    return found | {f"Validation/{wanted[key]}": float(value) for key, value in means.items()}


def run_rank(rank: int, args: argparse.Namespace, store: str) -> None:
    """Time both loops in turn as one of the ranks; rank 0 prints."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(args.world_size),
        "LOCAL_WORLD_SIZE": str(args.world_size), "GLOO_SOCKET_IFNAME": "lo",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533",
    }  # fmt: skip
    sys.path.insert(0, str(args.opentau / "src"))
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=args.world_size
    )
    from opentau.scripts import train  # noqa: F401  (loaded before the clock starts)

    accelerator, heads, lengths = Accelerator(cpu=True), head_names(), held_out()
    dataset = ConcatDataset([Frames(place, n) for place, n in enumerate(lengths)])
    plan = plan_validation(lengths, world_size=args.world_size, batch_size=args.batch_size)
    policy, combined, planned = accelerator.prepare(
        Policy(args.cost_ms / 1000),
        DataLoader(dataset, args.batch_size, shuffle=False),
        DataLoader(dataset, batch_sampler=plan.batches()),
    )
    theirs: list[float] = []
    ours: list[float] = []
    metrics, result = {}, {}
    for turn in range(args.runs + 1):  # the first turn warms up
        accelerator.wait_for_everyone()
        started = time.perf_counter()
        metrics = validate_like_opentau(accelerator, policy, combined, heads)
        accelerator.wait_for_everyone()
        between = time.perf_counter()
        result = validate(accelerator, policy, planned, plan).result(heads=heads)["metrics"]
        accelerator.wait_for_everyone()
        if turn:
            theirs.append(between - started)
            ours.append(time.perf_counter() - between)
    if accelerator.is_main_process:
        show(args, plan.total, plan.rounds, theirs, ours)
        compare(metrics, result)
    accelerator.end_training()


def show(
    args: argparse.Namespace, total: int, rounds: int, theirs: list[float], ours: list[float]
) -> None:
    """Print the medians and their ratio."""
    a, b = float(np.median(theirs)), float(np.median(ours))
    print(
        f"92 datasets, {total} frames, {args.world_size} ranks x {args.batch_size}: {rounds} "
        f"rounds, a forward of {args.cost_ms:g} ms\n"
        f"OpenTau's combined loop {a:.3f} s, ours {b:.3f} s (medians of {args.runs} paired runs): "
        f"{b / a:.2f}x"
    )


def compare(theirs: Mapping[str, float], ours: Mapping[str, float]) -> None:
    """Print how many metrics agree; exit 1 when one does not."""
    assert theirs.keys() == ours.keys(), theirs.keys() ^ ours.keys()
    off = max(abs(ours[key] - value) / abs(value) for key, value in theirs.items())
    print(f"{len(theirs)} metrics, the same names; largest relative difference {off:.1e}")
    if off > TOLERANCE:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="OpenTau main's combined loop against ours.")
    parser.add_argument("opentau", type=Path, help="OpenTau's repository")
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cost-ms", type=float, default=0.0, help="what a forward costs")
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run_rank, (args, f"{folder}/store"), nprocs=args.world_size)


if __name__ == "__main__":
    main()
