"""The rows that val-plan plans against the subsets that OpenTau's make_dataset returns.

    python scripts/parity_split.py PATH_TO_OPENTAU --rounds 5

Run it in an environment that has OpenTau's requirements and this package's. Each round draws a
mixture over the demo's datasets (selections, exclusions, duplicates, ratios per entry, a seed, vqa
entries of 1,000 samples), lets OpenTau build every entry with `val_freq` > 0, and compares its
train and validation subsets, row by row, with `train_val_split` and with all ranks' rows of the
plan. It prints the versions and what was compared, and exits 1 on the first difference.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from opentau_prep import __version__, load_mixture, train_val_split
from opentau_prep.context import RunContext
from opentau_prep.demo.mixture import write_demo
from opentau_prep.metadata.resolve import ResolvedEntry, resolve_mixture
from opentau_prep.val_loss.prepare_plan import prepare_plan

# OpenTau opens v2.1 and v3.0.
OPENED = ("v2.1", "v3.0")
SEEDS = (1000, None, 0, 2**32 + 5, 2**63 + 1, -1)


def draw_mixture(rng: np.random.Generator, datasets: list[ResolvedEntry]) -> dict[str, Any]:
    """Return a mixture over some datasets: some of them twice, some entries vqa."""
    entries: list[dict[str, Any]] = []
    for _ in range(int(rng.integers(3, 7))):
        if rng.random() < 0.2:
            entries.append({"vqa": "dummy", "num_samples": 1000})
            continue
        chosen = datasets[int(rng.integers(len(datasets)))]
        n = len(chosen.meta.episodes.episode_index)
        entry: dict[str, Any] = {
            "repo_id": chosen.config.id,
            "root": str(chosen.meta.root),
            "data_features_name_mapping": dict(chosen.name_map.columns),
        }
        if rng.random() < 0.6:
            entry["episodes"] = sorted(rng.permutation(n)[: rng.integers(2, n + 1)].tolist())
        if rng.random() < 0.4:
            selected = entry.get("episodes", list(range(n)))
            entry["excluded_episodes"] = selected[: len(selected) // 3]
        if rng.random() < 0.5:
            entry["val_split_ratio"] = float(rng.choice([0.0, 0.01, 0.333, 0.5, 0.99]))
        entries.append(entry)
    return {"datasets": entries, "val_split_ratio": float(rng.choice([0.05, 0.1, 0.25]))}


def add_empty_videos(entry: ResolvedEntry) -> None:
    """Let OpenTau find the videos that the demo's datasets declare: it asks for the files alone."""
    from opentau.datasets.lerobot_dataset import LeRobotDatasetMetadata

    root = Path(str(entry.meta.root))
    meta = LeRobotDatasetMetadata(entry.config.id, root=root)
    for episode in entry.meta.episodes.episode_index.tolist():
        for key in meta.video_keys:
            file = root / meta.get_video_file_path(episode, key)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def subsets(mixture: dict[str, Any], seed: int | None) -> list[tuple[list[int], list[int]]]:
    """Return (train rows, validation rows) of each entry, by OpenTau itself."""
    from opentau.configs.default import DatasetConfig, DatasetMixtureConfig
    from opentau.configs.train import TrainPipelineConfig
    from opentau.datasets.factory import make_dataset

    named = [{k: v for k, v in e.items() if k != "num_samples"} for e in mixture["datasets"]]
    configs = [DatasetConfig(**entry) for entry in named]
    config = TrainPipelineConfig(
        dataset_mixture=DatasetMixtureConfig(
            datasets=configs, val_split_ratio=mixture["val_split_ratio"]
        ),
        batch_size=8,
        num_cams=1,
        seed=seed,
        val_freq=10,
    )
    made = [make_dataset(entry, config) for entry in configs]
    return [(list(train.indices), list(val.indices)) for train, val in made]


def compare(folder: Path, mixture: dict[str, Any], seed: int | None) -> int:
    """Return how many rows of how many entries were the same; raises on a difference."""
    path = folder / "train.json"
    path.write_text(json.dumps({"seed": seed, "dataset_mixture": mixture}))
    resolved = resolve_mixture(load_mixture(path))
    # A negative seed is no training config's; torch takes it all the same.
    report = prepare_plan(resolved, RunContext(), world_size=3, batch_size=4, seed=seed)
    plan = report.plan
    planned: dict[str, list[int]] = {part.name: [] for part in plan.sets}
    for rank in range(3):
        for name, rows in plan.rows(rank):
            planned[name] += rows.tolist()
    found = subsets(mixture, seed)
    assert len(found) == len(plan.sets), (len(found), len(plan.sets))
    for part, (train, val) in zip(plan.sets, found, strict=True):
        ours, held_out = train_val_split(part.n_frames, part.val_split_ratio, seed)
        assert sorted(train) == ours.tolist(), part
        assert sorted(val) == held_out.tolist() == planned[part.name], part
    return sum(len(val) for _, val in found)


def main() -> None:
    parser = argparse.ArgumentParser(description="val-plan's rows against make_dataset's subsets.")
    parser.add_argument("opentau", type=Path, help="OpenTau's repository")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    sys.path.insert(0, str(args.opentau / "src"))
    import opentau.datasets.vqa.dummy  # noqa: F401  (registers the dataset)

    rng = np.random.default_rng(0)
    entries = rows = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        resolved = resolve_mixture(load_mixture(write_demo(folder / "demo")))
        opened = [e for e in resolved.first_entries if str(e.meta.version) in OPENED]
        for entry in opened:
            add_empty_videos(entry)
        for i in range(args.rounds):
            mixture = draw_mixture(rng, opened)
            rows += compare(folder, mixture, SEEDS[i % len(SEEDS)])
            entries += len(mixture["datasets"])
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    print(f"opentau-prep {__version__}, {versions}: {entries} entries of {args.rounds} mixtures,")
    print(f"{rows} validation rows the same, and all training rows")


if __name__ == "__main__":
    main()
