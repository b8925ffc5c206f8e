"""Compare our stats of relative actions with those of LeRobot's own functions.

    PYTHONPATH=.:LEROBOT/src python scripts/check_relative.py DATASET...

LEROBOT is a checkout of LeRobot's main (tried with 7427f31). Prints the largest differences:
moments as shares of the range, quantiles in bins of LeRobot's histogram (1/5000 of the range) and,
per step as GR00T's port has them, as shares of the range. Peak memory is this process's.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lerobot_import
import numpy as np

from opentau_prep import load_dataset_metadata
from opentau_prep.frames import read_frames
from opentau_prep.metadata.dataset import DatasetMetadata
from opentau_prep.stats.relative import RelativeActions, joint_mask, relative_stats

Q = (0.01, 0.1, 0.5, 0.9, 0.99)
STEPS = 16


def main() -> int:
    """Compare every dataset; return 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("roots", nargs="+", type=Path)
    lerobot_import.prepare()
    good = True
    for root in parser.parse_args().roots:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(root, Path(folder, "data"), copy_function=shutil.copyfile))
            good &= compare(load_dataset_metadata(copy), root.name)
    return 0 if good else 1


def compare(meta: DatasetMetadata, name: str) -> bool:
    """Compare one dataset."""
    from lerobot.datasets.compute_stats import compute_relative_action_stats

    features = meta.info["features"]
    width = features["action"]["shape"][0]
    names = features["action"].get("names") or []
    mask = joint_mask([str(each) for each in names], ["gripper"] if names else [], width)
    minus = tuple(dim if relative else -1 for dim, relative in enumerate(mask.tolist()))
    what = RelativeActions("action", "observation.state", tuple(range(width)), minus, STEPS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours = relative_stats(meta, what, q=Q, memory_budget=0)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    exact = relative_stats(meta, what, q=Q, memory_budget=1 << 40)
    block = read_frames(meta, ["observation.state", "action", "episode_index"])
    frames = {key: np.asarray(block.columns[key], np.float32) for key in ("action",)}
    frames["observation.state"] = np.asarray(block.columns["observation.state"], np.float32)
    frames["episode_index"] = block.columns["episode_index"][:, 0]
    theirs = compute_relative_action_stats(frames, features, STEPS, ["gripper"])
    span = np.maximum(theirs["max"] - theirs["min"], 1e-300)
    off = {stat: float((np.abs(exact.pooled[stat] - v) / span).max()) for stat, v in theirs.items()}
    moments = max(off[stat] for stat in ("min", "max", "mean", "std"))
    quantiles = 5000 * max(share for stat, share in off.items() if stat.startswith("q"))
    steps = per_step(frames, mask)
    groot = float(max(np.abs(exact.per_step[s] - v).max() for s, v in steps.items()) / span.max())
    print(
        f"{name}: {exact.chunks} chunks; pooled: moments within {moments:.1e} of the range,"
        f" quantiles within {quantiles:.2f} bins; per step: within {groot:.1e} of the range;"
        f" one pass without keeping values: {peak:.0f} MiB more"
    )
    assert ours.chunks == exact.chunks
    return moments < 1e-5 and quantiles < 2 and groot < 1e-5


def per_step(frames: dict[str, Any], mask: Any) -> dict[str, Any]:
    """Return the stats that LeRobot's port of GR00T computes."""
    import torch
    from lerobot.policies.groot import processor_groot as groot

    class Samples(list):  # what the port iterates over
        meta = SimpleNamespace(stats={})

    samples = Samples()
    index = frames["episode_index"]
    for start in range(len(index) - STEPS + 1):
        if index[start] == index[start + STEPS - 1]:
            chunk = torch.from_numpy(frames["action"][start : start + STEPS])
            state = torch.from_numpy(frames["observation.state"][start])
            samples.append({"action": chunk, "observation.state": state})
    names = [f"{'joint' if relative else 'gripper'}{k}" for k, relative in enumerate(mask)]
    made = groot._make_relative_action_training_stats(
        samples, exclude_joints=["gripper"], action_names=names
    )
    return {s: v for s, v in made["action"].items() if s != "count"}


if __name__ == "__main__":
    sys.exit(main())
