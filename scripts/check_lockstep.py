"""No rank of a sharded model is left waiting: FSDP over gloo, totals of 1 to 40 samples.

    python scripts/check_lockstep.py --world-size 2 --batch-size 8 --most 40

Needs torch. Each total is validated by a model whose forward is a collective: the ranks meet in
every batch, and a rank that skips one leaves the others waiting. Each pass must end, and must count
every sample once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from opentau_prep import GroupedLosses, plan_validation

WAIT = timedelta(seconds=60)


def validate(rank: int, world_size: int, batch_size: int, most: int, store: str) -> None:
    """Validate totals of 1 to `most` samples as one rank, with the wait of a hang bounded."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=WAIT
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 4))
    fully_shard(model, mesh=init_device_mesh("cpu", (world_size,)))
    for total in range(1, most + 1):
        plan = plan_validation([total], world_size=world_size, batch_size=batch_size)
        frames, losses = torch.ones(total, 4), GroupedLosses()
        loader = DataLoader(frames, batch_sampler=plan.batches(rank))
        with torch.no_grad():
            for batch, weights in zip(loader, plan.weights(rank), strict=True):
                errors = model(batch).square().sum(1)
                n = len(batch)
                losses.update(
                    dataset_index=[0] * n,
                    dataset=[0] * n,
                    losses={"MSE": (errors, [4] * n)},
                    weights=weights,
                )
        states: list[dict[str, object] | None] = [None] * world_size
        dist.all_gather_object(states, losses.state())
        whole = GroupedLosses()
        for state in states:
            whole.merge(state or {})
        counted = whole.result()["groups"][0]["samples"]
        assert counted == total, (counted, total)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="Validate with FSDP on several gloo processes.")
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--most", type=int, default=40, help="the largest total")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        passed = (args.world_size, args.batch_size, args.most, f"{folder}/store")
        mp.spawn(validate, passed, nprocs=args.world_size)
    print(f"totals 1 to {args.most} on {args.world_size} ranks, batch {args.batch_size}: no hang")


if __name__ == "__main__":
    main()
