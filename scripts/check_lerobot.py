"""Run LeRobot's own code on datasets whose stats `opentau-prep` wrote.

    python scripts/check_lerobot.py            (`make check-lerobot`)

Needs an environment with lerobot 0.4.4. For each dataset below tests/data/lerobot, and for the
published ones where OPENTAU_PREP_REAL_DATA names their folder: LeRobot's loader opens it, its
aggregation takes its stats together with an untouched twin's, its normalizer takes it in every
mode; a v2.1 dataset goes through LeRobot's converter, after which the stats must be exact.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lerobot_import
import numpy as np
import pyarrow.parquet as pq

REPO = Path(__file__).resolve().parents[1]
FIXTURES = REPO / "tests/data/lerobot"
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def main() -> int:
    """Check every dataset; return the exit code."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    lerobot_import.prepare()
    real = os.environ.get("OPENTAU_PREP_REAL_DATA")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for options in ([], ["--force"], ["--published-stats", "replace"]):
            check_v30(_copy(FIXTURES / "v30", work), options)
            check_v21(_copy(FIXTURES / "v21", work), options)
        if real is not None:
            check_v30(_copy(Path(real) / "so101_record_test", work), ["--force"], twin=False)
            check_v21(_copy(Path(real) / "g1_pick_bottle", work), [])
    return 0


def _copy(source: Path, work: Path) -> Path:
    target = work / source.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    return target


def _stats(root: Path, options: list[str]) -> None:
    """Run `stats` twice: the second run must write nothing."""
    command = [sys.executable, "-m", "opentau_prep", "stats", str(root), "--quiet"]
    env = {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run([*command, *options], check=True, env=env, stdout=subprocess.DEVNULL)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    assert before == {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}, root


def check_v30(root: Path, options: list[str], *, twin: bool = True) -> None:
    """LeRobot's loader, aggregation and normalizer take a v3.0 dataset."""
    from lerobot.datasets.compute_stats import aggregate_stats
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

    _stats(root, options)
    stats = LeRobotDatasetMetadata(f"lerobot/{root.name}", root=root).stats
    if twin:  # the published ones are without their videos
        dataset = LeRobotDataset(f"lerobot/{root.name}", root=root, download_videos=False)
        other = LeRobotDataset("lerobot/v30_twin", root=FIXTURES / "v30_twin").meta.stats
        pooled = aggregate_stats([stats, other])
        for feature, entry in stats.items():
            assert set(pooled[feature]) >= {"min", "max", "mean", "std", "count"}
            assert pooled[feature]["mean"].shape == entry["mean"].shape, feature
        _normalized(dataset)
    done = "loaded, aggregated, normalized" if twin else "metadata and stats loaded"
    print(f"v3.0 {root.name} {' '.join(options)}: {done}")


def _normalized(dataset: Any) -> None:
    """Normalize the first frame in every mode, and undo it."""
    import torch
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.processor import NormalizerProcessorStep, UnnormalizerProcessorStep

    names = [n for n, f in dataset.meta.features.items() if f["dtype"] in ("float32", "float64")]
    names = [name for name in names if name != "timestamp"]
    features = {
        name: PolicyFeature(FeatureType.STATE, tuple(dataset.meta.features[name]["shape"]))
        for name in names
    }
    frame = dataset[0]
    for mode in NormalizationMode:
        kinds = {FeatureType.STATE: mode}
        step = NormalizerProcessorStep(features, kinds, dataset.meta.stats)
        back = UnnormalizerProcessorStep(features, kinds, dataset.meta.stats)
        for name in names:
            value = frame[name].to(torch.float32)
            normal = step._apply_transform(value, name, FeatureType.STATE)
            assert normal.shape == value.shape, (mode, name)
            assert torch.isfinite(normal).all(), (mode, name)
            again = back._apply_transform(normal, name, FeatureType.STATE, inverse=True)
            torch.testing.assert_close(again, value, rtol=1e-4, atol=1e-5)


def check_v21(root: Path, options: list[str]) -> None:
    """The stats that LeRobot's converter makes of a v2.1 dataset are those of its frames."""
    from lerobot.datasets.utils import load_stats
    from lerobot.datasets.v30 import convert_dataset_v21_to_v30 as converter

    _stats(root, options)
    truth = _frames(root)
    target = root.with_name(f"{root.name}_v30")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    converter.convert_info(root, target, 100, 200)
    converter.convert_tasks(root, target)
    metadata = _data(root) if root.name == "v21" else converter.convert_data(root, target, 100)
    converter.convert_episodes_metadata(root, target, metadata)
    stats = load_stats(target)
    worst = 0.0
    for name, matrix in truth.items():
        scale = max(float(np.abs(matrix).max()), 1e-300)
        true = {stat: np.quantile(matrix, q, axis=0) for stat, q in QUANTILES.items()}
        true |= {"min": matrix.min(0), "max": matrix.max(0), "mean": matrix.mean(0)}
        for stat, value in true.items():
            found = np.asarray(stats[name][stat]).reshape(-1, matrix.shape[1])
            off = np.abs(found.min(0) - value).max() if stat == "min" else 0.0
            if stat in QUANTILES:
                off = np.abs(found - value).max()
                worst = max(worst, off / scale)
                assert off <= 1e-12 * scale, (name, stat, off)
    print(f"v2.1 {root.name} {' '.join(options)}: converted, quantiles within {worst:.1e}")


def _data(root: Path) -> list[dict[str, int]]:
    """Return what `convert_data` says of a dataset: pandas cannot join columns of several axes."""
    episodes, first = [], 0
    for line in (root / "meta/episodes.jsonl").read_text().splitlines():
        row = json.loads(line)
        index, last = row["episode_index"], first + row["length"]
        bounds = {"dataset_from_index": first, "dataset_to_index": last}
        episodes.append(
            {"episode_index": index, "data/chunk_index": 0, "data/file_index": 0, **bounds}
        )
        first = last
    return episodes


def _frames(root: Path) -> dict[str, Any]:
    """Return feature -> (N * vectors, D) float64 of the numeric features."""
    info = json.loads((root / "meta/info.json").read_text())
    files = sorted((root / "data").rglob("*.parquet"))
    frames = {}
    for name, feature in info["features"].items():
        if feature["dtype"] in ("image", "video", "string"):
            continue
        values = [pq.read_table(f, columns=[name]).column(0).to_pylist() for f in files]
        matrix = np.concatenate([np.asarray(v, dtype=np.float64) for v in values])
        frames[name] = matrix.reshape(-1, matrix.shape[-1] if matrix.ndim > 1 else 1)
    return frames


if __name__ == "__main__":
    sys.exit(main())
