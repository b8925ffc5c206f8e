"""Count what the audit of heads finds: one faulty member in a head, an unusual one, and none.

python scripts/measure_audit.py [--heads 20] [--robots arm6 arm8 ...] [--real DIR]

Heads of 5, 10 and 30 members are made up for four robots, each member with tasks of its own, as the
audit demo does; then one member is replaced. `possible` of swapped dims is what nobody can beat by
these stats: how many a classifier tells from right ones that was fitted on 1,000 members of that
very robot, is reported which pair to look at, and may err for one right member in 500 (Gaussians of
mean, log std, minimum and maximum).
`--real` takes a published v2.1 dataset: groups of its episodes stand for members.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.demo.trajectories import (
    ARM6,
    ARM6_POSE,
    ARM8,
    BIMANUAL14,
    HUMANOID26,
    Robot,
    demonstrate,
)
from opentau_prep.heads.audit import AuditFinding, audit_heads
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.notices import collect_notices
from opentau_prep.pooling import aggregate_stats

Array = NDArray[np.float64]
Frames = tuple[Array, Array]
"""(T, D) state and actions."""

SIZES = (5, 10, 30)
ROBOTS = {"arm6": ARM6, "arm8": ARM8, "bimanual14": BIMANUAL14, "humanoid26": HUMANOID26}
# Which dims are swapped: in other ranges; in overlapping ranges; alike (the same range and home).
SWAPS = {
    "arm6": ((1, 2), (0, 3)),
    "arm8": ((3, 5), (1, 2), (0, 1), (2, 4)),
    "bimanual14": ((1, 2), (3, 5), (1, 8)),
    "humanoid26": ((3, 5), (1, 2), (0, 1), (1, 8)),
}
UNUSUAL = ("small reach", "large reach", "one episode", "shift 6%", "shift 12%")


@dataclass(frozen=True)
class Fault:
    """What is done to a member, and what the audit should say."""

    name: str
    kind: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Member:
    """What the audit reads of a member of a head."""

    name: str
    entry: Any
    stats: dict[str, dict[str, Array]]
    norm_key: str = "made_up::joint"

    @property
    def raw_dims(self) -> tuple[int, int]:
        """The widths of state and actions."""
        return len(self.stats["state"]["mean"]), len(self.stats["actions"]["mean"])

    def kept_dims(self, feature: str) -> int:
        """Return the width of a feature: nothing is padded."""
        return self.raw_dims[feature == "actions"]


def frames(
    robot: Robot, seed: int, *, reach: float = 0.5, n_episodes: int = 6, n_tasks: int = 2
) -> Frames:
    motions = [
        demonstrate(
            robot, n_frames=30, task_seed=seed * 10 + e % n_tasks, episode_seed=e, reach=reach
        )
        for e in range(n_episodes)
    ]
    state, actions = (
        np.concatenate([getattr(m, name) for m in motions]).astype(np.float64)
        for name in ("state", "actions")
    )
    return state, actions


def unusual(robot: Robot, seed: int, how: str) -> Frames:
    """Return an honest member that does something else than the others."""
    if how == "one episode":
        return frames(robot, seed, n_episodes=1)
    if "reach" in how:
        return frames(robot, seed, reach=0.2 if how.startswith("small") else 0.8)
    # Another place for everything: the first three joints rest elsewhere.
    low, high, home = np.array(robot.low), np.array(robot.high), np.array(robot.home)
    share = float(how.split()[1].rstrip("%")) / 100
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], 3)
    home[:3] += signs * share * (high - low)[:3]
    margin = 0.1 * (high - low)
    return frames(replace(robot, home=tuple(np.clip(home, low + margin, high - margin))), seed)


def joints_of(robot: Robot) -> list[int]:
    return [d for d in range(robot.dim) if d not in robot.grippers]


def faults_of(name: str) -> list[Fault]:
    robot = ROBOTS[name]
    joints = tuple(joints_of(robot))
    everything = tuple(range(robot.dim))
    moved = tuple(a for a, b in zip(joints, joints[::-1], strict=True) if a != b)
    return [
        Fault("degrees", "degrees", joints),
        Fault("ticks", "ticks", everything),
        Fault("pose labelled joint", "pose", everything[:6]),
        Fault("grippers inverted", "inverted", robot.grippers),
        *(Fault(f"swapped {a}, {b}", "dim_order", (a, b)) for a, b in SWAPS[name]),
        Fault("joints reversed", "dim_order", moved),
    ]


def broken(x: Array, fault: Fault, robot: Robot) -> Array:
    out = x.copy()
    joints, grippers = joints_of(robot), list(robot.grippers)
    if fault.kind == "degrees":
        out[:, joints] *= 180 / math.pi
    elif fault.kind == "ticks":
        out[:, joints] = np.rint((out[:, joints] / (2 * math.pi) + 0.5) * 4096)
        out[:, grippers] = np.rint(out[:, grippers] * 1024)
    elif fault.kind == "inverted":
        out[:, grippers] = 1 - out[:, grippers]
    elif fault.name == "joints reversed":
        out[:, joints] = out[:, joints[::-1]]
    elif fault.kind == "dim_order":
        out[:, fault.dims] = out[:, fault.dims[::-1]]
    return out


def as_poses(x: Array, robot: Robot, seed: int) -> Array:
    """Return hand poses in the place of joints; grippers stay. Seven joints: a quaternion."""
    out, joints = x.copy(), joints_of(robot)
    hands = 1 if len(joints) < 10 else 2
    each = len(joints) // hands
    for hand in range(hands):
        pose = frames(ARM6_POSE, seed + hand)[0][: len(x), :6]
        columns = joints[hand * each : (hand + 1) * each]
        parts = np.column_stack([pose[:, :3], quaternions(pose[:, 3:])]) if each == 7 else pose
        out[:, columns] = parts[:, :each]
    return out


def quaternions(angles: Array) -> Array:
    """Return (T, 4) unit quaternions (x, y, z, w) of (T, 3) roll, pitch and yaw."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(angles / 2).T, np.sin(angles / 2).T
    parts = (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )
    return np.column_stack(parts)


def member(name: str, data: Frames, robot: Robot) -> Member:
    features = {"state": SimpleNamespace(names=robot.names)}
    features["actions"] = features["state"]
    entry = SimpleNamespace(
        name=name,
        meta=SimpleNamespace(features=features),
        name_map=SimpleNamespace(columns={f: f for f in features}),
        config=SimpleNamespace(state_index=None, action_index=None),
    )
    stats = {
        f: {"mean": x.mean(0), "std": x.std(0), "min": x.min(0), "max": x.max(0)}
        for f, x in zip(features, data, strict=True)
    }
    return Member(name, entry, stats)


def wrong(fault: Fault, robot: Robot, data: Frames, seed: int) -> Frames:
    if fault.kind == "pose":
        return as_poses(data[0], robot, seed), as_poses(data[1], robot, seed)
    return broken(data[0], fault, robot), broken(data[1], fault, robot)


def verdict(found: list[AuditFinding], fault: Fault) -> str:
    if not found:
        return "missed"
    words = [(f.kind, {d for dims in f.dims.values() for d in dims}) for f in found]
    return "exactly" if words == [(fault.kind, set(fault.dims))] else "otherwise"


def possible(robot: Robot, pair: tuple[int, int]) -> float:
    """Return the share of swaps that the stats can tell from right members, whoever looks."""
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

    seen = []
    for seed in range(2000):
        x = frames(robot, 1_000_000 + seed)[0][:, pair]
        seen.append([x.mean(0), np.log(x.std(0)), x.min(0), x.max(0)])
    dims = np.asarray(seen).transpose(2, 0, 1)
    fitted, rest = dims[:, :1000], dims[:, 1000:]
    labels = np.repeat([0, 1], 1000)
    model = QuadraticDiscriminantAnalysis(reg_param=1e-3).fit(np.concatenate(fitted), labels)
    odds = [np.diff(model.predict_log_proba(x), axis=1)[:, 0] for x in rest]
    right = (
        odds[0] - odds[1]
    )  # by how much a right member looks swapped; a swapped one: the opposite
    return float(np.mean(-right > max(np.quantile(right, 0.998), 0.0)))


def measure(name: str, size: int, n_heads: int) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Return verdict -> count for each replaced member, and counts of right members flagged."""
    robot = ROBOTS[name]
    rng = np.random.default_rng((size, robot.dim))
    verdicts: dict[str, Counter[str]] = {}
    right: Counter[str] = Counter()

    def audit(label: str, first: Frames, others: list[Member]) -> list[AuditFinding]:
        report = audit_heads([member("0", first, robot), *others])  # type: ignore[list-item]
        flagged = {f.dataset for f in report.findings} - {"0"}
        right[f"{label} members"] += len(others)
        right[f"{label} flagged"] += len(flagged)
        return [f for f in report.findings if f.dataset == "0"]

    for _ in range(n_heads):
        seeds = [int(s) for s in rng.integers(1 << 30, size=size)]
        own = frames(robot, seeds[0])
        others = [member(str(k), frames(robot, s), robot) for k, s in enumerate(seeds[1:], 1)]
        right["untouched flagged"] += bool(audit("untouched", own, others))
        right["untouched members"] += 1
        for fault in faults_of(name):
            found = audit("beside", wrong(fault, robot, own, seeds[0] + 1), others)
            verdicts.setdefault(fault.name, Counter())[verdict(found, fault)] += 1
        for how in UNUSUAL:
            found = audit("beside", unusual(robot, seeds[0], how), others)
            outcome = " ".join(sorted({f.kind for f in found})) or "left alone"
            verdicts.setdefault(how, Counter())[outcome] += 1
    return verdicts, right


def made_up(names: list[str], n_heads: int) -> None:
    results = {(n, s): measure(n, s, n_heads) for n in names for s in SIZES}
    print(f"{n_heads} heads each: exactly / otherwise / missed, in heads of {SIZES} members")
    for name in names:
        for fault in faults_of(name):
            cells = []
            for size in SIZES:
                counts = results[name, size][0][fault.name]
                cells.append("/".join(str(counts[k]) for k in ("exactly", "otherwise", "missed")))
            limit = ""
            if fault.name.startswith("swapped"):
                a, b = fault.dims
                limit = f"possible {possible(ROBOTS[name], (a, b)):6.1%}"
            print(f"{name:11} {fault.name:20}", *(f"{c:>10}" for c in cells), limit)
    print("\nright members flagged: of untouched heads; beside a replaced member")
    for name in names:
        totals: Counter[str] = sum((results[name, size][1] for size in SIZES), Counter())
        pairs = (f"{totals[f'{k} flagged']} of {totals[f'{k} members']:,}" for k in _LABELS)
        print(f"{name:11}", *(f"{p:>14}" for p in pairs))
    print("\nhonest but unusual members")
    for name in names:
        for how in UNUSUAL:
            words = (dict(results[name, size][0][how]) for size in SIZES)
            print(f"{name:11} {how:12}", *words)


_LABELS = ("untouched", "beside")


def published(root: Path) -> None:
    meta = load_dataset_metadata(root)
    with collect_notices():
        own = meta.episodes_stats
        episodes = list(own)
        for each in (3, 5, 10):
            groups = [episodes[i : i + each] for i in range(0, len(episodes), each)]
            pooled = [aggregate_stats([own[e] for e in group]) for group in groups]
            robot = replace(ARM6, names=())
            members = []
            for number, stats in enumerate(pooled):
                made = member(str(number), (np.zeros((1, 1)), np.zeros((1, 1))), robot)
                vectors = {"state": stats["observation.state"], "actions": stats["action"]}
                members.append(replace(made, stats=vectors))
            found = audit_heads(members).findings  # type: ignore[arg-type]
            flagged = {f.dataset for f in found}
            print(f"{root.name}: {len(members)} groups of {each} episodes, {len(flagged)} flagged")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--robots", nargs="+", choices=list(ROBOTS), default=list(ROBOTS))
    parser.add_argument("--real", type=Path)
    args = parser.parse_args()
    made_up(args.robots, args.heads)
    if args.real:
        published(args.real)


if __name__ == "__main__":
    main()
