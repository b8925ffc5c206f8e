"""Plant faults in datasets at three severities and write down what `validate --deep` finds.

python scripts/bench_faults.py [--real FOLDER ...] [--workers 2] [--write | --check] [--only WORD]
                               [--every N]

Datasets: two of the demo, and the first 20 episodes of each FOLDER (v2.1 or v3.0). Frames are
changed before the stats are computed, as a faulty recording would have it; faults of metadata and
files are planted afterwards. A fault is found when the rule that names it fires, which does not
fire on the clean copy. `--write` writes docs/faults.md, `--check` compares with it: word by word
where the real datasets are given, else whether each count of the page can be that of more datasets
than the demo's. `--every N` takes each N-th planting only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests/validate"))

from mp4_files import mp4, promised, write_videos  # noqa: E402

from opentau_prep.config.load import mixture_from_roots  # noqa: E402
from opentau_prep.config.salvage import Salvage  # noqa: E402
from opentau_prep.context import RunContext  # noqa: E402
from opentau_prep.demo.mixture import DEMO_DATASETS, write_demo_dataset  # noqa: E402
from opentau_prep.metadata import load_dataset_metadata  # noqa: E402
from opentau_prep.metadata.resolve import resolve_mixture  # noqa: E402
from opentau_prep.notices import collect_notices  # noqa: E402
from opentau_prep.stats import prepare_stats  # noqa: E402
from opentau_prep.validate import CheckOptions, validate  # noqa: E402

PAGE = REPO / "docs/faults.md"
STATE, ACTION = "observation.state", "action"
EPISODES = 20
CAMERAS = ("observation.images.front", "observation.images.wrist")
Columns = dict[str, np.ndarray]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1234\n"


@dataclass(frozen=True)
class Fault:
    """One fault; `frames` edits an episode's columns, `files` the dataset on disk.

    Attributes:
        name: What is wrong.
        rules: The codes of the rules that name it: any of them finds it, others do not count.
        severities: Three labels and parameters.
        frames: (columns, number of the episode, how many there are, parameter, ranges).
        files: (root, parameter).
        versions: The formats that it can be planted in.
    """

    name: str
    rules: str
    severities: tuple[tuple[str, Any], ...]
    frames: Callable[[Columns, int, int, Any, dict[str, np.ndarray]], None] | None = None
    files: Callable[[Path, Any], None] | None = None
    versions: tuple[str, ...] = ("v2.1", "v3.0")


# Faults of frames


def idle(columns: Columns, number: int, total: int, share: float, _: Any, *, end: bool) -> None:
    if number != total // 2:
        return
    for name in (STATE, ACTION):
        n = int(share * len(columns[name]))
        if end:
            columns[name][len(columns[name]) - n :] = columns[name][-n - 1]
        else:
            columns[name][:n] = columns[name][n]


def tremble(columns: Columns, number: int, total: int, share: float, ranges: Any) -> None:
    if number == total // 2:
        for name in (STATE, ACTION):
            sign = (-1.0) ** np.arange(len(columns[name]))
            columns[name][:, 1] += share * ranges[name][1][1] * sign


def clip(
    columns: Columns, number: int, total: int, share: float, ranges: Any, *, name: str
) -> None:
    columns[name][:, 1] = np.minimum(columns[name][:, 1], ranges[f"{name} quantiles"](1 - share)[1])


def offset(
    columns: Columns, number: int, total: int, share: float, ranges: Any, *, name: str
) -> None:
    dim = ranges["used"]
    columns[name][:, dim] += share * ranges[STATE][1][dim]


def spike(
    columns: Columns, number: int, total: int, share: float, ranges: Any, *, name: str
) -> None:
    if number == total // 2:
        columns[name][len(columns[name]) // 2, 2] += share * ranges[name][1][2]


def stuck(columns: Columns, number: int, total: int, share: float, _: Any) -> None:
    if number < share * total:
        columns[STATE][:, 2] = columns[STATE][0, 2]


def rarely(columns: Columns, number: int, total: int, share: float, ranges: Any) -> None:
    moved = share * len(columns[ACTION])
    columns[ACTION][:, 2] = ranges[ACTION][0][2]
    if number % round(max(1 / moved, 1)) == 0:
        columns[ACTION][: max(int(moved), 1), 2] += ranges[ACTION][1][2]


def shifted(columns: Columns, number: int, total: int, frames: int, _: Any) -> None:
    old = columns[ACTION]
    moved = np.roll(old, frames, axis=0)
    if frames > 0:
        moved[:frames] = old[0]
    else:
        moved[frames:] = old[-1]
    columns[ACTION] = moved


def late_once(columns: Columns, number: int, total: int, frames: int, ranges: Any) -> None:
    if number == total // 2:
        shifted(columns, number, total, frames, ranges)


def same(columns: Columns, number: int, total: int, share: float, _: Any) -> None:
    if number < share * total and columns[ACTION].shape == columns[STATE].shape:
        columns[ACTION] = columns[STATE].copy()


def nan(columns: Columns, number: int, total: int, share: float, _: Any) -> None:
    if number == total // 2:
        columns[STATE][: max(int(share * len(columns[STATE])), 1), 0] = np.nan


def ends(columns: Columns, number: int, total: int, share: float, ranges: Any) -> None:
    if number != total // 2:
        return
    for name in (STATE, ACTION):
        low, size = ranges[name]
        last = columns[name][-1]
        far = np.where(last - low > low + size - last, low, low + size)
        ramp = share * np.linspace(0, 1, len(columns[name]))[:, None] ** 2
        columns[name] = (columns[name] * (1 - ramp) + far * ramp).astype(columns[name].dtype)


def wraps(columns: Columns, number: int, total: int, share: float, _: Any) -> None:
    if number < share * total:
        turn = np.linspace(0, 4 * np.pi, len(columns[STATE]))
        columns[STATE][:, 1] = (turn + np.pi) % (2 * np.pi) - np.pi
    else:
        columns[STATE][:, 1] *= np.pi / max(np.abs(columns[STATE][:, 1]).max(), np.pi)


def swapped(columns: Columns, number: int, total: int, share: float, _: Any) -> None:
    if number < share * total:
        columns[ACTION][:, [0, 1]] = columns[ACTION][:, [1, 0]]


def flipped(columns: Columns, number: int, total: int, share: float, _: Any) -> None:
    if number < share * total:
        columns[ACTION][:, 1] *= -1


def rescaled(columns: Columns, number: int, total: int, share: float, _: Any) -> None:
    if number < share * total:
        columns[STATE][:, 0] *= 57.29578


def gap(columns: Columns, number: int, total: int, frames: int, _: Any) -> None:
    if number == total // 2:
        half = len(columns["frame_index"]) // 2
        step = columns["timestamp"][1] - columns["timestamp"][0]
        columns["frame_index"][half:] += frames
        columns["timestamp"][half:] += frames * step


def jitter(columns: Columns, number: int, total: int, seconds: float, _: Any) -> None:
    random = np.random.default_rng(number)
    columns["timestamp"] += random.uniform(-seconds, seconds, len(columns["timestamp"])).astype(
        "f4"
    )


def rate(columns: Columns, number: int, total: int, factor: float, _: Any) -> None:
    columns["timestamp"] *= np.float32(factor)


def late(columns: Columns, number: int, total: int, seconds: float, _: Any) -> None:
    if number == total // 2:
        columns["timestamp"] += np.float32(seconds)


def repeated(columns: Columns, number: int, total: int, frames: int, _: Any) -> None:
    if number == total // 2:
        columns["timestamp"][5 : 5 + frames] = columns["timestamp"][4]


def backwards(columns: Columns, number: int, total: int, frames: int, _: Any) -> None:
    if number == total // 2:
        half = len(columns["timestamp"]) // 2
        columns["timestamp"][half : half + frames] -= np.float32(2.0)


def task_changes(columns: Columns, number: int, total: int, share: float, _: Any) -> None:
    if number < max(share * total, 1):
        columns["task_index"][len(columns["task_index"]) // 2 :] += 1


# Faults of metadata and files


def info(root: Path, **changes: Callable[[Any], Any]) -> None:
    file = root / "meta/info.json"
    content = json.loads(file.read_text())
    for name, change in changes.items():
        content[name] = change(content[name])
    file.write_text(json.dumps(content))


def feature(root: Path, name: str, **changes: Any) -> None:
    info(root, features=lambda features: {**features, name: {**features[name], **changes}})


def lengths(root: Path, change: Callable[[int], int]) -> None:
    jsonl = root / "meta/episodes.jsonl"
    if jsonl.exists():
        rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
        rows[1]["length"] = change(rows[1]["length"])
        jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    v3_column(root, "length", lambda v: [v[0], change(v[1]), *v[2:]])


def v3_column(root: Path, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    file = sorted((root / "meta/episodes").rglob("*.parquet"))[0]
    table = pq.read_table(file)
    at = table.column_names.index(name)
    values = pa.array(change(table.column(name).to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(at, name, values), file)


def stat(root: Path, name: str, share: float) -> None:
    """Move a stat of dim 0 of the state by a share of its range, where training reads it."""
    jsonl = root / "meta/episodes_stats.jsonl"
    if jsonl.exists():
        rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
        for row in rows:
            entry = row["stats"][STATE]
            entry[name][0] += share * (entry["max"][0] - entry["min"][0])
        jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    file = root / "meta/stats.json"
    stats = json.loads(file.read_text())
    stats[STATE][name][0] += share * (stats[STATE]["max"][0] - stats[STATE]["min"][0])
    file.write_text(json.dumps(stats))


def quantile(root: Path, other: str) -> None:
    file = root / "meta/stats.json"
    stats = json.loads(file.read_text())
    stats[STATE]["q99"][0] = stats[STATE][other][0]
    file.write_text(json.dumps(stats))


def counted(root: Path, share: float) -> None:
    file = root / "meta/stats.json"
    stats = json.loads(file.read_text())
    stats[STATE]["count"] = [int(stats[STATE]["count"][0] * (1 + share)) + 1]
    file.write_text(json.dumps(stats))


def relative(root: Path, steps: int) -> None:
    """Put the stats of relative actions in the place of the action's own, as LeRobot 0.6.2 does."""
    from opentau_prep.stats.relative import RelativeActions, relative_stats

    meta = load_dataset_metadata(root)
    dims = tuple(range(meta.features[ACTION].shape[0]))
    found = relative_stats(
        meta, RelativeActions(ACTION, STATE, dims, dims, steps), q=(), memory_budget=1 << 30
    )
    file = root / "meta/stats.json"
    stats = json.loads(file.read_text())
    stats[ACTION] = {name: values.tolist() for name, values in found.pooled.items()}
    file.write_text(json.dumps(stats))


def bare_nan(root: Path, share: float) -> None:
    file = root / "meta/episodes_stats.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[: max(int(share * len(rows)), 1)]:
        row["stats"]["timestamp"]["std"] = [float("nan")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def some(root: Path, pattern: str, share: float) -> list[Path]:
    files = sorted(root.glob(pattern))
    return files[: max(int(share * len(files)), 1)]


def cut(root: Path, pattern: str, kept: float) -> None:
    file = some(root, pattern, 0)[0]
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if kept < 1 else -int(kept)])


def pointers(root: Path, pattern: str, share: float) -> None:
    for file in some(root, pattern, share):
        file.write_bytes(LFS)


def removed(root: Path, pattern: str, share: float) -> None:
    for file in some(root, pattern, share):
        file.unlink()


def video(root: Path, change: Callable[[int, float], tuple[int, float]]) -> None:
    content = json.loads((root / "meta/info.json").read_text())
    cameras = [n for n, f in content["features"].items() if f["dtype"] == "video"]
    rel, frames = next(iter(promised(root, content, cameras).items()))
    (root / rel).write_bytes(mp4(*change(frames, content["fps"])))


def spans(root: Path, frames: float) -> None:
    content = json.loads((root / "meta/info.json").read_text())
    camera = next(n for n, f in content["features"].items() if f["dtype"] == "video")
    moved = frames / content["fps"]
    v3_column(root, f"videos/{camera}/to_timestamp", lambda v: [v[0] + moved, *v[1:]])


def tasks(root: Path, many: int) -> None:
    jsonl = root / "meta/episodes.jsonl"
    if jsonl.exists():
        rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
        for row in rows[:many]:
            row["tasks"] = [f"please {row['tasks'][0]}"]
        jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        v3_column(root, "tasks", lambda v: [[f"please {t[0]}"] for t in v[:many]] + v[many:])


def shares(*values: float) -> tuple[tuple[str, Any], ...]:
    return tuple((f"{value:.3g} of episodes" if value < 1 else "all", value) for value in values)


def percents(*values: float) -> tuple[tuple[str, Any], ...]:
    return tuple((f"{100 * value:.3g} %", value) for value in values)


def counts(*values: int) -> tuple[tuple[str, Any], ...]:
    return tuple((str(value), value) for value in values)


def bound(function: Callable[..., None], **fixed: Any) -> Callable[..., None]:
    return lambda *args: function(*args, **fixed)


DATA, VIDEO = "data/*/*.parquet", "videos/**/*.mp4"
FAULTS: tuple[Fault, ...] = (
    Fault(
        "idle at the start, share of one episode",
        "B001",
        percents(0.15, 0.45, 0.6),
        bound(idle, end=False),
    ),
    Fault(
        "idle at the end, share of one episode",
        "B001",
        percents(0.15, 0.45, 0.6),
        bound(idle, end=True),
    ),
    Fault("one episode trembles, share of the range", "B002", percents(0.01, 0.05, 0.15), tremble),
    Fault(
        "a state dim is clipped, share of frames",
        "B003",
        percents(0.05, 0.2, 0.4),
        bound(clip, name=STATE),
    ),
    Fault(
        "an action dim is clipped, share of frames",
        "B003",
        percents(0.05, 0.2, 0.4),
        bound(clip, name=ACTION),
    ),
    Fault(
        "actions are offset from the state, share of the range",
        "B004",
        percents(0.03, 0.1, 0.25),
        bound(offset, name=ACTION),
    ),
    Fault(
        "the state is offset from the actions, share of the range",
        "B004",
        percents(0.03, 0.1, 0.25),
        bound(offset, name=STATE),
    ),
    Fault(
        "a spike in the state, share of the range",
        "D004",
        percents(0.2, 0.7, 2.0),
        bound(spike, name=STATE),
    ),
    Fault(
        "a spike in the actions, share of the range",
        "D004",
        percents(0.2, 0.7, 2.0),
        bound(spike, name=ACTION),
    ),
    Fault("a state dim is stuck", "D003", shares(0.4, 0.8, 0.95), stuck),
    Fault("an action dim moves in few frames", "S021", percents(0.03, 0.005, 0.001), rarely),
    Fault("actions come frames late", "D006", counts(6, 12, 24), shifted),
    Fault("actions come frames early", "D006", tuple((str(n), -n) for n in (6, 15, 24)), shifted),
    Fault("actions are the state", "D007", shares(0.2, 0.6, 1.0), same),
    Fault(
        "NaN in the state, share of one episode",
        "D002",
        (("1 frame", 0.0), ("1 %", 0.01), ("all", 1.0)),
        nan,
    ),
    Fault("one episode ends elsewhere, share of the way", "B005", percents(0.3, 0.6, 1.0), ends),
    Fault("an angle wraps", "D005", shares(0.2, 0.5, 1.0), wraps),
    Fault("two action dims are swapped", "B004", shares(0.1, 0.5, 1.0), swapped),
    Fault("an action dim is inverted", "B004", shares(0.1, 0.5, 1.0), flipped),
    Fault("a state dim is in degrees", "S015", shares(0.1, 0.5, 1.0), rescaled),
    Fault("frames are lost in the middle", "E012", counts(1, 5, 20), gap),
    Fault(
        "timestamps jitter, seconds",
        "T005",
        tuple((f"{s:g}", s) for s in (0.0002, 0.002, 0.01)),
        jitter,
    ),
    Fault(
        "timestamps run at another rate",
        "T004 T005",
        tuple((f"{f:g} x", f) for f in (1.02, 1.1, 1.5)),
        rate,
    ),
    Fault(
        "one episode starts late, seconds",
        "T006",
        tuple((f"{s:g}", s) for s in (0.01, 0.5, 5.0)),
        late,
    ),
    Fault("timestamps are repeated, frames", "T003", counts(1, 5, 20), repeated),
    Fault("time runs backwards, frames", "T002", counts(1, 5, 20), backwards),
    Fault("the task changes within episodes", "K010", shares(0.05, 0.3, 1.0), task_changes),
    Fault(
        "total_episodes is wrong, by",
        "F009",
        counts(1, 10, 1000),
        files=lambda r, n: info(r, total_episodes=lambda v: v + n),
    ),
    Fault(
        "total_frames is wrong, by",
        "F010",
        counts(1, 100, 100_000),
        files=lambda r, n: info(r, total_frames=lambda v: v + n),
    ),
    Fault(
        "an episode's length is wrong, by",
        "E004",
        counts(1, 10, 100),
        files=lambda r, n: lengths(r, lambda v: v + n),
    ),
    Fault(
        "mean of the stats is off, share of the range",
        "S009 S017 S018",
        percents(0.005, 0.05, 0.5),
        files=lambda r, s: stat(r, "mean", s),
    ),
    Fault(
        "max of the stats is off, share of the range",
        "S017 S018",
        percents(0.005, 0.05, 0.5),
        files=lambda r, s: stat(r, "max", s),
    ),
    Fault(
        "std of the stats is off, share of the range",
        "S009 S017 S018",
        percents(0.005, 0.05, 0.5),
        files=lambda r, s: stat(r, "std", s),
    ),
    Fault(
        "q99 holds another quantile",
        "S019",
        tuple((q, q) for q in ("q90", "q50", "q10")),
        files=quantile,
        versions=("v3.0",),
    ),
    Fault(
        "count of the stats is wrong, share",
        "S010",
        percents(0.01, 0.1, 1.0),
        files=counted,
        versions=("v3.0",),
    ),
    Fault(
        "a data file is cut off",
        "F007",
        (("8 bytes", 8), ("half", 0.5), ("all", 0.0)),
        files=lambda r, k: cut(r, DATA, k),
    ),
    Fault(
        "data files are Git LFS pointers",
        "F007",
        (("1", 0.0), ("half", 0.5), ("all", 1.0)),
        files=lambda r, s: pointers(r, DATA, s),
    ),
    Fault(
        "data files are missing",
        "F006",
        (("1", 0.0), ("half", 0.5), ("all", 1.0)),
        files=lambda r, s: removed(r, DATA, s),
    ),
    Fault(
        "fps of info.json is wrong",
        "T004 T005",
        tuple((f"{f:g} x", f) for f in (1.02, 1.1, 2.0)),
        files=lambda r, f: info(r, fps=lambda v: v * f),
    ),
    Fault(
        "shape of the state is wrong, dims",
        "C008",
        counts(1, 3, 10),
        files=lambda r, n: feature(
            r,
            STATE,
            shape=[
                json.loads((r / "meta/info.json").read_text())["features"][STATE]["shape"][0] + n
            ],
        ),
    ),
    Fault(
        "names of the state are missing",
        "C011",
        counts(1, 2, 4),
        files=lambda r, n: feature(
            r,
            STATE,
            names=[
                f"j{i}"
                for i in range(
                    json.loads((r / "meta/info.json").read_text())["features"][STATE]["shape"][0]
                    - n
                )
            ],
        ),
    ),
    Fault(
        "video files are missing",
        "V001 V002",
        (("1", 0.0), ("half", 0.5), ("all", 1.0)),
        files=lambda r, s: removed(r, VIDEO, s),
    ),
    Fault(
        "a video file is cut off",
        "V003",
        (("1 byte", 1), ("half", 0.5), ("all", 0.0)),
        files=lambda r, k: cut(r, VIDEO, k),
    ),
    Fault(
        "video files are Git LFS pointers",
        "V003",
        (("1", 0.0), ("half", 0.5), ("all", 1.0)),
        files=lambda r, s: pointers(r, VIDEO, s),
    ),
    Fault(
        "a video lacks frames",
        "V004",
        counts(1, 5, 30),
        files=lambda r, n: video(r, lambda f, fps: (max(f - n, 1), fps)),
    ),
    Fault(
        "a video plays at another rate",
        "V006",
        tuple((f"{f:g} x", f) for f in (1.005, 1.05, 2.0)),
        files=lambda r, x: video(r, lambda f, fps: (f, fps * x)),
    ),
    Fault(
        "an episode's video span is wrong, frames",
        "V007",
        (("0.2", 0.2), ("1", 1.0), ("30", 30.0)),
        files=spans,
        versions=("v3.0",),
    ),
    Fault(
        "row ranges are wrong, rows",
        "E007",
        counts(1, 10, 100),
        files=lambda r, n: v3_column(r, "dataset_to_index", lambda v: [v[0] + n, *v[1:]]),
        versions=("v3.0",),
    ),
    Fault("one episode's actions come late, frames", "D008", counts(2, 8, 15), late_once),
    Fault(
        "stats.json has stats of relative actions, steps per chunk",
        "S022",
        counts(5, 20, 50),
        files=relative,
    ),
    Fault(
        "stats hold a bare NaN, episodes",
        "S023",
        (("1", 0.0), ("half", 0.5), ("all", 1.0)),
        files=bare_nan,
        versions=("v2.1",),
    ),
    Fault("task strings are paraphrased, episodes", "K007", counts(1, 2, 4), files=tasks),
)


# Planting and looking


def version_of(root: Path) -> str:
    return str(json.loads((root / "meta/info.json").read_text())["codebase_version"])


def shorten(root: Path, first: int = 0, stop: int = EPISODES) -> None:
    """Keep some episodes of a v2.1 dataset, numbered from 0."""
    episodes = root / "meta/episodes.jsonl"
    if not episodes.exists():
        return
    for name in ("episodes.jsonl", "episodes_stats.jsonl"):
        file = root / "meta" / name
        kept = [json.loads(line) for line in file.read_text().splitlines()[first:stop]]
        lines = [json.dumps({**row, "episode_index": number}) for number, row in enumerate(kept)]
        file.write_text("\n".join(lines) + "\n")
    frames = 0
    for number, file in enumerate(sorted(root.glob(DATA))):
        if not first <= number < stop:
            file.unlink()
        elif first:
            table = pq.read_table(file)
            at = table.column_names.index("episode_index")
            numbers = pa.array([number - first] * len(table), pa.int64())
            table = table.set_column(at, "episode_index", numbers)
            at = table.column_names.index("index")
            count = pa.array(np.arange(frames, frames + len(table)), pa.int64())
            pq.write_table(table.set_column(at, "index", count), file)
            frames += len(table)
            file.rename(file.with_name(f"episode_{number - first:06d}.parquet"))
    rows = [json.loads(line) for line in episodes.read_text().splitlines()]
    total = sum(row["length"] for row in rows)
    info(
        root,
        total_episodes=lambda _: len(rows),
        total_frames=lambda _: total,
        splits=lambda _: {"train": f"0:{len(rows)}"},
    )


def restate(root: Path) -> None:
    """Compute the stats of the frames as they are."""
    with collect_notices():
        prepare_stats(
            resolve_mixture(mixture_from_roots([root])), RunContext(workers=1, force=True)
        )
    # As if another tool had written them: no rule is to find out by records of what was there.
    shutil.rmtree(root / "meta/prep", ignore_errors=True)
    (root / "meta/quantile_sketch.json").unlink(missing_ok=True)
    for file in (root / "meta").glob("*.bak-*"):
        file.unlink()


def columns_of(table: pa.Table) -> Columns:
    found: Columns = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if name in (STATE, ACTION):
            found[name] = np.array(column.to_pylist(), dtype=np.float32)
        elif pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            found[name] = column.to_numpy(zero_copy_only=False).copy()
    return found


def plant_frames(root: Path, fault: Fault, value: Any) -> None:
    files = sorted(root.glob(DATA))
    tables = [pq.read_table(file) for file in files]
    loaded = [columns_of(table) for table in tables]
    ranges: dict[str, Any] = {}
    for name in (STATE, ACTION):
        whole = np.concatenate([columns[name] for columns in loaded])
        low = whole.min(axis=0)
        ranges[name] = (low, whole.max(axis=0) - low)
        ranges[f"{name} quantiles"] = lambda q, w=whole: np.quantile(w, q, axis=0)
    numbers = np.unique(np.concatenate([columns["episode_index"] for columns in loaded]))
    every = [(c["episode_index"] == n, c[STATE]) for n in numbers for c in loaded]
    moved = np.median([np.ptp(v[rows], axis=0) for rows, v in every if rows.any()], axis=0)
    # A joint that every episode uses: of one that rests it is not known where it should be.
    ranges["used"] = int(np.argmax(moved[: len(moved) * 2 // 3]))
    for file, table, columns in zip(files, tables, loaded, strict=True):
        for number in np.unique(columns["episode_index"]):
            rows = np.flatnonzero(columns["episode_index"] == number)
            part = {name: values[rows] for name, values in columns.items()}
            assert fault.frames is not None
            fault.frames(part, int(np.searchsorted(numbers, number)), len(numbers), value, ranges)
            for name, values in part.items():
                columns[name][rows] = values
        for name, values in columns.items():
            kind = table.schema.field(name).type
            array = pa.array(list(values), kind) if values.ndim > 1 else pa.array(values, kind)
            table = table.set_column(table.column_names.index(name), name, array)
        pq.write_table(table, file)
    restate(root)


def codes(root: Path) -> set[str]:
    subject = Salvage.of(mixture_from_roots([root]))
    options = CheckOptions(deep=True)
    report = validate(subject, RunContext(workers=1), options, remembering=False)
    return {finding.code for finding in report.findings if finding.severity != "note"}


def try_fault(work: tuple[str, str, int, int]) -> tuple[str, int, int, list[str] | None]:
    """Plant one fault at one severity in a copy of one dataset."""
    label, source, number, level = work
    fault = FAULTS[number]
    if version_of(Path(source)) not in fault.versions:
        return label, number, level, None
    with TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        shutil.copytree(source, root)
        clean = set(json.loads((Path(source) / "clean.json").read_text()))
        value = fault.severities[level][1]
        if fault.frames is not None:
            plant_frames(root, fault, value)
        else:
            assert fault.files is not None
            fault.files(root, value)
        return label, number, level, sorted(codes(root) - clean)


def subset_alarms(folder: Path, real: Sequence[Path]) -> list[str]:
    """Return rows of the page: what is found on windows of episodes of clean v2.1 datasets."""
    rows = []
    for root in real:
        whole = load_dataset_metadata(root)
        total = len(whole.episodes)
        for width in (8, 12, 20, 50):
            if whole.is_v3 or width > total:
                continue
            starts = range(0, total - width + 1, max(width // 2, 1))
            found: list[str] = []
            for first in starts:
                copy = folder / f"{root.name}_{width}_{first}"
                shutil.copytree(root, copy)
                shorten(copy, first, first + width)
                write_videos(copy)
                restate(copy)
                found += sorted(codes(copy))
                shutil.rmtree(copy)
            label = f"{root.name}: {len(starts)} windows of {width} episodes"
            rows.append(f"| {label} | {', '.join(found) or 'none'} |")
    return rows


def prepare(folder: Path, real: Sequence[Path]) -> dict[str, Path]:
    """Return label -> a clean dataset with videos and true stats."""
    found = {}
    for each in DEMO_DATASETS:
        if each.repo_id in ("demo/arm6_pick", "demo/bimanual_fold"):
            spec = replace(each.spec, cameras=CAMERAS)  # the demo's own declare no videos
            write_demo_dataset(folder, replace(each, spec=spec))
            name = each.repo_id.partition("/")[2]
            found[f"demo {name} ({spec.version})"] = folder / "datasets" / each.repo_id
    for root in real:
        copy = folder / "real" / root.name
        shutil.copytree(root, copy)
        shorten(copy)
        found[f"{root.name} ({version_of(copy)})"] = copy
    for root in found.values():
        write_videos(root)
        restate(root)
        (root / "clean.json").write_text(json.dumps(sorted(codes(root))))
    return found


def page(
    labels: dict[str, list[str]],
    subsets: Sequence[str],
    results: dict[tuple[int, int], dict[str, list[str]]],
) -> str:
    lines = [
        "# What `validate --deep` finds of planted faults\n",
        "Written by `scripts/bench_faults.py`; frames are changed before the stats are computed, so"
        "\nthat no rule on stale stats gives a fault away. Each cell: severity, and on how many of"
        " the\ndatasets that the fault fits the rule that names it reports it. Other rules that"
        "\nreport something new are under *also*; they do not count as found.\n",
        "A state dim in degrees among radians is not found in one dataset: no rule"
        " compares the units"
        "\nof state and actions. `heads --audit` (H007) finds it among other datasets of the robot."
        "\n"
        "\nOn clean data that no bound was tuned on, `scripts/bench_clean.py --seeds 3"
        " --real g1_pick_bottle`"
        "\nfinds errors or warnings in 5 of 27 datasets, all five true: C003 in the three"
        " whose columns have"
        "\nold names, S019 in two of LeRobot 0.4.4, which averages quantiles. They are"
        " the demo's robots with"
        "\nother seeds (21), the halves of g1_pick_bottle, and four datasets that LeRobot wrote.\n",
        "| clean dataset | errors and warnings |",
        "| --- | --- |",
        *(f"| {label} | {', '.join(found) or 'none'} |" for label, found in labels.items()),
        *subsets,
        "",
        "| fault | rule | mild | middle | severe | also |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    totals = [[0, 0] for _ in range(3)]
    for number, fault in enumerate(FAULTS):
        named, cells, also = set(fault.rules.split()), [], set()
        for level, (label, _) in enumerate(fault.severities):
            found = results.get((number, level), {})
            hits = sum(bool(named & set(some_codes)) for some_codes in found.values())
            also |= {code for some_codes in found.values() for code in some_codes} - named
            cells.append(f"{label}: {hits} of {len(found)}")
            totals[level][0] += hits
            totals[level][1] += len(found)
        words = [fault.name, fault.rules, *cells, " ".join(sorted(also))]
        lines.append(f"| {' | '.join(words)} |")
    for (hits, planted), name in zip(totals, ("mild", "middle", "severe"), strict=True):
        lines.append(f"\n{name.capitalize()}: {hits} of {planted} planted faults are found.")
    lines.append(f"\n{len(FAULTS)} faults, {sum(n for _, n in totals)} planted in all.\n")
    return "\n".join(lines)


def impossible(text: str, results: dict[tuple[int, int], dict[str, list[str]]]) -> list[str]:
    """Return the plantings that are found more, or less often than the page's counts allow."""
    rows = {
        line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in text.splitlines()
    }
    wrong = []
    for (number, level), found in results.items():
        fault, (label, _) = FAULTS[number], FAULTS[number].severities[level]
        hits = sum(bool(set(fault.rules.split()) & set(some)) for some in found.values())
        counts = rows[fault.name][2 + level].removeprefix(f"{label}: ").split(" of ")
        named, fits = map(int, counts)
        if not named - (fits - len(found)) <= hits <= named:
            wrong.append(
                f"{fault.name}, {label}: found in {hits} of {', '.join(found)}; the page says"
                f" {named} of {fits}"
            )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1)
    args = parser.parse_args()
    numbers = [n for n, fault in enumerate(FAULTS) if args.only in fault.name]
    results: dict[tuple[int, int], dict[str, list[str]]] = {}
    with TemporaryDirectory() as folder:
        datasets = prepare(Path(folder), args.real)
        subsets = [] if args.only else subset_alarms(Path(folder), args.real)
        clean = {
            label: json.loads((root / "clean.json").read_text()) for label, root in datasets.items()
        }
        work = [
            (label, str(root), number, level)
            for number in numbers
            for level in range(3)
            for label, root in datasets.items()
        ][:: args.every]
        with ProcessPoolExecutor(args.workers) as pool:
            for label, number, level, found in pool.map(try_fault, work):
                if found is not None:
                    results.setdefault((number, level), {})[label] = found
    if args.check and not args.real:
        wrong = [f"{label} is not clean: {found}" for label, found in clean.items() if found]
        wrong += impossible(PAGE.read_text(), results)
        print("\n".join(wrong) or f"{len(work)} plantings: as {PAGE.name} says")
        return int(bool(wrong))
    text = page(clean, subsets, results)
    if args.check:
        same_page = PAGE.exists() and PAGE.read_text() == text
        print(f"{PAGE.name} is {'what was measured' if same_page else 'stale'}")
        return int(not same_page)
    if args.write:
        PAGE.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
