"""Write the small datasets below tests/data/lerobot with LeRobot's own writer.

    python scripts/make_lerobot_fixtures.py

Needs an environment with lerobot 0.4.4 (for v3.0) or 0.3.3 (for v2.1) and NumPy < 2.4: the version
that is installed decides which datasets are written. LeRobot imports torchvision and never calls it
here; `lerobot_import` stands in for it where it is missing.
"""

from __future__ import annotations

import argparse
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lerobot_import
import numpy as np

OUT = Path(__file__).resolve().parents[1] / "tests/data/lerobot"
JOINTS = [f"joint_{i}.pos" for i in range(4)]
FEATURES: dict[str, dict[str, Any]] = {
    "observation.state": {"dtype": "float32", "shape": (4,), "names": JOINTS},
    "action": {"dtype": "float32", "shape": (4,), "names": JOINTS},
    "observation.images.top": {
        "dtype": "image",
        "shape": (8, 8, 3),
        "names": ["height", "width", "channels"],
    },
    "observation.pose": {"dtype": "float32", "shape": (4, 3), "names": None},
    "observation.pair": {"dtype": "float64", "shape": (2, 5), "names": None},
    "observation.grid": {"dtype": "float32", "shape": (2, 3, 4), "names": None},
    "observation.contact": {"dtype": "bool", "shape": (1,), "names": None},
    "observation.mode": {"dtype": "int64", "shape": (1,), "names": None},
    "observation.buttons": {"dtype": "int64", "shape": (3,), "names": None},
    "observation.note": {"dtype": "string", "shape": (1,), "names": None},
}


def frame(rng: np.random.Generator, step: int) -> dict[str, Any]:
    """Return one random frame."""
    values: dict[str, Any] = {"observation.note": f"note {step % 2}"}
    for name, feature in FEATURES.items():
        shape, dtype = feature["shape"], feature["dtype"]
        if dtype == "image":
            values[name] = rng.integers(0, 255, size=shape, dtype=np.uint8)
        elif dtype == "bool":
            values[name] = rng.integers(0, 2, size=shape).astype(bool)
        elif dtype == "int64":
            values[name] = rng.integers(0, 9, size=shape)
        elif dtype != "string":
            values[name] = rng.normal(size=shape).astype(dtype)
    return values


def write(root: Path, lengths: list[int], seed: int) -> None:
    """Write a dataset with episodes of these lengths."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    rng = np.random.default_rng(seed)
    shutil.rmtree(root, ignore_errors=True)
    dataset = LeRobotDataset.create(
        f"lerobot/{root.name}", 10, FEATURES, root=root, robot_type="arm4", use_videos=False
    )
    takes_task = version("lerobot") < "0.4"
    for episode, length in enumerate(lengths):
        task = ("push", "pull")[episode % 2]
        for step in range(length):
            values = frame(rng, step)
            if takes_task:
                dataset.add_frame(values, task)
            else:
                dataset.add_frame({**values, "task": task})
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()
    shutil.rmtree(root / "images", ignore_errors=True)  # the frames are in the parquet files too


def main() -> None:
    """Write what the installed version writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    lerobot_import.prepare()
    layout = "v21" if version("lerobot") < "0.4" else "v30"
    write(out / layout, [7, 5, 9], seed=0)
    write(out / f"{layout}_twin", [6, 8], seed=1)


if __name__ == "__main__":
    main()
