"""Count what the audit of heads finds: in clean heads (none would be right) and in broken ones.

python scripts/bench_audit.py [--heads 20] [--real DIR]

Heads of 5 to 30 members are made up for five robots, each member with tasks of its own, as the
audit demo does. `--real` takes a published v2.1 dataset: groups of its episodes stand for members,
which are clean by construction.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from opentau_prep.demo.robots import ARM6, ARM6_POSE, ARM8, BIMANUAL14, HUMANOID26
from opentau_prep.demo.trajectories import Robot, demonstrate
from opentau_prep.heads.audit import explain_members
from opentau_prep.heads.audit_model import DimStats
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.notices import collect_notices
from opentau_prep.pooling import aggregate_stats

ROBOTS = {
    "arm6": ARM6,
    "arm6 pose": ARM6_POSE,
    "arm8": ARM8,
    "bimanual14": BIMANUAL14,
    "humanoid26": HUMANOID26,
}
SIZES = (5, 8, 12, 30)
KIND_OF = {
    "degrees": "degrees",
    "ticks": "ticks",
    "swapped dims 1, 2": "dim_order",
    "inverted grippers": "inverted",
    "pose labelled joint": "pose",
}


def member(robot: Robot, seed: int) -> np.ndarray:
    parts = [
        demonstrate(robot, n_frames=30, task_seed=seed * 10 + e % 2, episode_seed=e).state
        for e in range(6)
    ]
    return np.concatenate(parts).astype(np.float64)


def stats(x: np.ndarray) -> DimStats:
    return DimStats(x.mean(axis=0), x.std(axis=0), x.min(axis=0), x.max(axis=0))


def broken(x: np.ndarray, fault: str, robot: Robot) -> np.ndarray:
    out = x.copy()
    grippers = list(robot.grippers)
    joints = [d for d in range(robot.dim) if d not in grippers]
    if fault == "degrees":
        out[:, joints] *= 180 / math.pi
    elif fault == "ticks":
        out[:, joints] = np.rint((out[:, joints] / (2 * math.pi) + 0.5) * 4096)
        out[:, grippers] = np.rint(out[:, grippers] * 1024)
    elif fault == "swapped dims 1, 2":
        out[:, [1, 2]] = out[:, [2, 1]]
    elif fault == "inverted grippers":
        out[:, grippers] = 1 - out[:, grippers]
    return out


def kinds_of(members: list[DimStats], grippers: tuple[int, ...]) -> list[set[str]]:
    return [{s.kind for s in found} for found in explain_members(members, grippers)]


def made_up(n_heads: int) -> None:
    rng = np.random.default_rng(0)
    false: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    extra: Counter[str] = Counter()
    for name, robot in ROBOTS.items():
        for size in SIZES:
            for _ in range(n_heads):
                xs = [member(robot, int(rng.integers(1 << 30))) for _ in range(size)]
                clean = [stats(x) for x in xs]
                judged[name] += size
                false[name] += sum(map(bool, kinds_of(clean, robot.grippers)))
                for fault, kind in KIND_OF.items():
                    if fault == "pose labelled joint":
                        if robot is not ARM6:
                            continue
                        pose = member(ARM6_POSE, int(rng.integers(1 << 30)))
                        wrong = stats(pose[:, [0, 1, 2, 3, 4, 6]])
                    else:
                        wrong = stats(broken(xs[0], fault, robot))
                    found = kinds_of([wrong, *clean[1:]], robot.grippers)
                    hits[name, fault].append(kind in found[0])
                    extra[name] += sum(map(bool, found[1:]))
    print(f"{'robot':12} {'clean members':>14} {'flagged':>8}  beside a broken one: flagged")
    for name in ROBOTS:
        print(f"{name:12} {judged[name]:14,} {false[name]:8} {extra[name]:8}")
    print(f"\n{'robot':12} {'fault':22} {'found':>12}")
    for (name, fault), found in hits.items():
        print(f"{name:12} {fault:22} {sum(found):5} of {len(found)}")


def published(root: Path) -> None:
    meta = load_dataset_metadata(root)
    with collect_notices():
        own = meta.episodes_stats
        episodes = list(own)
        for per_member in (3, 5, 10):
            groups = [episodes[i : i + per_member] for i in range(0, len(episodes), per_member)]
            pooled = [aggregate_stats([own[e] for e in group]) for group in groups]
            for feature in ("observation.state", "action"):
                members = [DimStats.of(p[feature], len(p[feature]["mean"])) for p in pooled]
                flagged = sum(map(bool, kinds_of(members, ())))
                print(
                    f"{root.name}: {len(members)} groups of {per_member} episodes, {feature}:"
                    f" {flagged} flagged"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--real", type=Path)
    args = parser.parse_args()
    made_up(args.heads)
    if args.real:
        published(args.real)


if __name__ == "__main__":
    main()
