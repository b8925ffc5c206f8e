"""Compare our stats of relative actions with those of LeRobot's own functions.

    PYTHONPATH=. python scripts/check_relative.py --lerobot LEROBOT DATASET...

LEROBOT is a checkout of LeRobot's main (tried with 7427f31), whose functions are taken from its
files: the package as a whole needs Python 3.12. Needs torch. Prints the largest differences:
moments as shares of the range, quantiles in bins of LeRobot's histogram (1/5000 of the range) and,
per step as GR00T's port has them, as shares of the range. Peak memory is this process's.
"""

from __future__ import annotations

import argparse
import ast
import logging
import resource
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from opentau_prep import load_dataset_metadata
from opentau_prep.frames import read_frames
from opentau_prep.metadata.dataset import DatasetMetadata
from opentau_prep.stats.relative import RelativeActions, joint_mask, relative_stats

Q = (0.01, 0.1, 0.5, 0.9, 0.99)
STEPS = 16


def main() -> int:
    """Compare every dataset; return 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lerobot", type=Path, required=True)
    parser.add_argument("roots", nargs="+", type=Path)
    given = parser.parse_args()
    theirs = lerobot_functions(given.lerobot / "src/lerobot")
    good = [compare(load_dataset_metadata(r), r.name, theirs) for r in given.roots]
    return 0 if all(good) else 1


def lerobot_functions(package: Path) -> SimpleNamespace:
    """Return LeRobot's own functions, run from the source of a few of its files."""
    names: dict[str, Any] = {"np": np, "torch": torch, "logging": logging, "deepcopy": deepcopy}
    names |= {"ACTION": "action", "OBS_STATE": "observation.state", "Any": Any}
    names |= {"Sequence": Sequence, "Tensor": torch.Tensor}
    processor = package / "processor/relative_action_processor.py"
    _run(processor, ["to_relative_actions"], names)
    step = next(
        c for c in _nodes(processor) if getattr(c, "name", "") == "RelativeActionsProcessorStep"
    )
    mask = next(m for m in step.body if getattr(m, "name", "") == "_build_mask")
    exec(compile(ast.Module([mask], []), str(processor), "exec"), names)

    class Step(SimpleNamespace):
        _build_mask = names["_build_mask"]

    names["RelativeActionsProcessorStep"] = Step
    _run(package / "datasets/compute_stats.py", None, names)
    _run(package / "policies/groot/processor_groot.py", _GROOT, names)
    return SimpleNamespace(**names)


_GROOT = [
    "_as_int",
    "_to_float_tensor",
    "_state_reference_batch",
    "_action_training_batch",
    "_relative_action_chunks_by_horizon",
    "_compute_horizon_relative_action_stats",
    "_iter_action_state_training_samples",
    "_make_relative_action_training_stats",
]


def _named(nodes: list[Any], name: str) -> Any:
    return next(node for node in nodes if getattr(node, "name", None) == name)


def _nodes(path: Path) -> list[Any]:
    return ast.parse(path.read_text()).body


def _run(path: Path, wanted: list[str] | None, names: dict[str, Any]) -> None:
    kept = [
        node
        for node in _nodes(path)
        if not isinstance(node, ast.Import | ast.ImportFrom)
        and (wanted is None or getattr(node, "name", None) in wanted)
    ]
    head = ast.parse("from __future__ import annotations").body
    exec(compile(ast.Module([*head, *kept], []), str(path), "exec"), names)


def compare(meta: DatasetMetadata, name: str, lerobot: SimpleNamespace) -> bool:
    """Compare one dataset."""
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
    theirs = lerobot.compute_relative_action_stats(frames, features, STEPS, ["gripper"])
    span = np.maximum(theirs["max"] - theirs["min"], 1e-300)
    off = {stat: float((np.abs(exact.pooled[stat] - v) / span).max()) for stat, v in theirs.items()}
    moments = max(off[stat] for stat in ("min", "max", "mean", "std"))
    quantiles = 5000 * max(share for stat, share in off.items() if stat.startswith("q"))
    steps = per_step(frames, mask, lerobot)
    groot = float(max(np.abs(exact.per_step[s] - v).max() for s, v in steps.items()) / span.max())
    print(
        f"{name}: {exact.chunks} chunks; pooled: moments within {moments:.1e} of the range,"
        f" quantiles within {quantiles:.2f} bins; per step: within {groot:.1e} of the range;"
        f" one pass without keeping values: {peak:.0f} MiB more"
    )
    assert ours.chunks == exact.chunks
    # LeRobot's std is a difference of float32 means of squares.
    return moments < 1e-4 and quantiles < 2 and groot < 1e-5


def per_step(frames: dict[str, Any], mask: Any, lerobot: SimpleNamespace) -> dict[str, Any]:
    """Return the stats that LeRobot's port of GR00T computes."""

    class Samples(list):  # what the port iterates over
        meta = SimpleNamespace(stats={})

    samples = Samples()
    index = frames["episode_index"]
    for start in range(len(index) - STEPS + 1):
        if index[start] == index[start + STEPS - 1]:
            chunk = torch.tensor(frames["action"][start : start + STEPS])
            state = torch.tensor(frames["observation.state"][start])
            samples.append({"action": chunk, "observation.state": state})
    names = [f"{'joint' if relative else 'gripper'}{k}" for k, relative in enumerate(mask)]
    made = lerobot._make_relative_action_training_stats(
        samples, exclude_joints=["gripper"], action_names=names
    )
    return {s: v for s, v in made["action"].items() if s != "count"}


if __name__ == "__main__":
    sys.exit(main())
