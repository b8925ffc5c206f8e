"""Count what `validate --deep` reports on clean data that no bound of a rule was tuned on.

python scripts/bench_clean.py [--seeds 4] [--real FOLDER ...]

The demo's robots and tasks with other seeds, LeRobot's own datasets of the tests, and the halves of
each v2.1 FOLDER: its first episodes and its last ones. Stats of the demo's and of the halves are
computed first; those of LeRobot's are as LeRobot wrote them. Prints each dataset's codes, notes
left out, and the share of datasets with any.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench_faults import REPO, codes, restate, shorten
from mp4_files import write_videos

from opentau_prep.demo.mixture import DEMO_DATASETS, write_demo_dataset
from opentau_prep.metadata import load_dataset_metadata

LEROBOT = REPO / "tests/data/lerobot"


def reseeded(folder: Path, seeds: int) -> list[Path]:
    """Write the demo's datasets with other trajectories; return their roots."""
    roots = []
    for seed in range(seeds):
        for dataset in DEMO_DATASETS:
            # The trajectories of an episode depend on a hundred numbers from its seed on.
            home = folder / f"seed{seed}"
            write_demo_dataset(home, replace(dataset, seed=1_000 + 100 * seed + dataset.seed))
            roots.append(home / "datasets" / dataset.repo_id)
    return roots


def halves(folder: Path, root: Path) -> list[Path]:
    total = len(load_dataset_metadata(root).episodes)
    found = []
    for name, first, stop in (("first", 0, total // 2), ("last", total // 2, total)):
        copy = folder / f"{root.name} {name} half"
        shutil.copytree(root, copy)
        shorten(copy, first, stop)
        found.append(copy)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--real", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        made = reseeded(folder, args.seeds)
        made += [half for root in args.real for half in halves(folder, root)]
        for root in made:
            write_videos(root)
            restate(root)
        written = [folder / path.name for path in sorted(LEROBOT.iterdir()) if path.is_dir()]
        for copy in written:
            shutil.copytree(LEROBOT / copy.name, copy)
        alarms = 0
        for root in (*made, *written):
            found = sorted(codes(root))
            alarms += bool(found)
            print(f"{root.relative_to(folder)}: {' '.join(found) or 'none'}", flush=True)
        print(f"{alarms} of {len(made) + len(written)} datasets have an error or a warning")


if __name__ == "__main__":
    main()
