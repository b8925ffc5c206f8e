"""Sixty and more ways to break a dataset, and the rules that must say so: no more, no fewer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from breaking import (
    FPS,
    both,
    column,
    document,
    drop,
    episode,
    feature,
    info,
    lines,
    mutation,
    put,
    table,
    times,
    with_stats,
    written,
)
from mp4_files import mp4

STATE, ACTION = "observation.state", "action"
EPISODES, TASKS, STATS = "meta/episodes.jsonl", "meta/tasks.jsonl", "meta/episodes_stats.jsonl"
V3_EPISODES, V3_TASKS = "meta/episodes/*/*.parquet", "meta/tasks.parquet"
V2_FILE, V3_FILE = "data/chunk-000/episode_000002.parquet", "data/chunk-000/file-000.parquet"
CAMERA = "observation.images.front"
V2_VIDEO = f"videos/chunk-000/{CAMERA}/episode_000002.mp4"
V3_VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1234\n"


def field(row: int, **values: Any):
    """Return what sets fields of one row of a JSON-lines file."""

    def edit(rows: list[Any]) -> list[Any]:
        rows[row] = {**rows[row], **values}
        return rows

    return edit


def stat(name: str, dim: int, value: float, feature: str = STATE):
    """Return what sets one number of stats.json."""

    def edit(stats: dict[str, Any]) -> dict[str, Any]:
        stats[feature][name][dim] = value
        return stats

    return edit


def episode_stat(name: str, dim: int, value: float):
    def edit(rows: list[Any]) -> list[Any]:
        rows[1]["stats"][STATE][name][dim] = value
        return rows

    return edit


def without_stat(name: str):
    def edit(rows: list[Any]) -> list[Any]:
        for row in rows:
            del row["stats"][STATE][name]
        return rows

    return edit


def _later(values: list[float]) -> list[float]:
    return [value + 1 / FPS for value in values]


def _only_whole_stats(root) -> None:
    with_stats()(root)
    (root / STATS).unlink()
    (root / "meta/prep/episodes_stats.json").unlink(missing_ok=True)


def _with_language(content):
    import pyarrow as pa

    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    return content.append_column("language_events", pa.array([[]] * len(content), kind))


def _hardly_moves(episodes):
    still = episode(-1, state=put(slice(None), 5, 0.5))(episodes)
    return episode(0, state=put(slice(20, 23), 5, 1.0))(still)


def _later_tasks(episodes):
    for number, task in enumerate([each.task_index for each in episodes]):
        episodes = episode(number, task_index=lambda n, task=task: n * 0 + task + 1)(episodes)
    return episodes


def _flickers(episodes):
    still = episode(-1, state=put(slice(None), 5, 0.5))(episodes)
    for number in range(4):  # of six: under one frame in a hundred
        still = episode(number, state=put(20, 5, 1.0))(still)
    return still


def _more(edit):
    """Return what makes sixteen episodes of one task, and then changes them."""

    def change(episodes):
        from breaking import ARM6, EpisodeData, demonstrate

        made = []
        for number in range(16):
            motion = demonstrate(ARM6, n_frames=90, task_seed=70, episode_seed=number)
            made.append(EpisodeData(motion.state, motion.actions, 0))
        made[0] = _with_task(made[0], 1)
        return edit(made)

    return change


def _with_task(old, task):
    from dataclasses import replace

    return replace(old, task_index=task)


def _idle_start(episodes):
    def hold(values):
        return np.concatenate([np.repeat(values[:1], 80, axis=0), values])

    return episode(3, state=hold, actions=hold)(episodes)


def _trembles(episodes):
    def shake(values):
        values[:, 1] += 0.15 * (-1.0) ** np.arange(len(values))
        return values

    return episode(3, state=shake, actions=shake)(episodes)


def _clipped(episodes):
    every = np.concatenate([e.state[:, 1] for e in episodes])
    high = float(np.quantile(every, 0.7))
    return episode(-1, state=put(slice(None), 1, lambda v: np.minimum(v, high)))(episodes)


def _offset(episodes):
    every = np.concatenate([e.state[:, 1] for e in episodes])
    apart = 0.2 * float(np.ptp(every))
    return episode(-1, actions=put(slice(None), 1, lambda v: v + apart))(episodes)


def _ends_elsewhere(episodes):
    low = np.min([e.state.min(axis=0) for e in episodes], axis=0)
    high = np.max([e.state.max(axis=0) for e in episodes], axis=0)
    ends = np.median([e.state[-1] for e in episodes], axis=0)
    far = np.where(ends - low > high - ends, low, high)

    def drift(values):
        part = np.linspace(0, 1, len(values))[:, None] ** 2
        return values * (1 - part) + far * part

    return episode(3, state=drift, actions=drift)(episodes)


def shift(values: np.ndarray) -> np.ndarray:
    """Return the values three frames later."""
    return np.concatenate([np.repeat(values[:1], 5, axis=0), values[:-5]])


def _relative(root: Path, steps: int) -> None:
    """Put the stats of relative actions where the actions' own are, as LeRobot 0.6.2 does."""
    table = pq.ParquetDataset(root / "data").read()
    state, action = (np.array(table.column(n).to_pylist()) for n in (STATE, ACTION))
    ends = np.flatnonzero(np.diff(table.column("episode_index").to_numpy(), append=-1)) + 1
    begins = np.concatenate([[0], ends[:-1]])
    starts = np.concatenate(
        [np.arange(a, b - steps + 1) for a, b in zip(begins, ends, strict=True)]
    )
    values = np.concatenate([action[starts + k] - state[starts] for k in range(steps)])
    own = {name: getattr(values, name)(axis=0).tolist() for name in ("min", "max", "mean", "std")}
    own["count"] = [len(values)]
    document("meta/stats.json", lambda stats: {**stats, ACTION: own})(root)


def _nan_camera(row):
    row["stats"]["observation.images.front"]["std"] = [[[float("nan")]]] * 3
    return row


def wrapped(values: np.ndarray) -> np.ndarray:
    turn = np.linspace(0, 4 * np.pi, len(values))
    values[:, 4] = (turn + np.pi) % (2 * np.pi) - np.pi
    return values


def stuck(values: np.ndarray) -> np.ndarray:
    values[:, 3] = values[0, 3] + len(values) / 1000
    return values


def same_as_state(episodes):
    from dataclasses import replace

    return [replace(e, actions=e.state.copy()) for e in episodes]


def one_twice(episodes):
    from dataclasses import replace

    return [*episodes[:4], replace(episodes[1], task_index=episodes[4].task_index), *episodes[5:]]


def no_names(features: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(features, "nothing")


MUTATIONS = (
    # F: format
    mutation("no info.json", "F001", files=written("meta/info.json", None)),
    mutation("info.json cut off", "F001", files=written("meta/info.json", b'{"fps": 10, "tot')),
    mutation("info.json is a list", "F001", files=written("meta/info.json", b"[]")),
    mutation("info.json is an LFS pointer", "F001", files=written("meta/info.json", LFS)),
    mutation("no codebase_version", "F002", files=info(codebase_version=...)),
    mutation("another project's version", "F002", files=info(codebase_version="1.2-alpha")),
    mutation("v3.0 said of v2.1 files", "F003", files=info(codebase_version="v3.0")),
    mutation("v2.1 said of v3.0 files", "F003", "v3.0", files=info(codebase_version="v2.1")),
    mutation("data_path leads out", "F004", files=info(data_path="../{episode_index}.parquet")),
    mutation("data_path is a number", "F004", files=info(data_path=3)),
    mutation("data_path asks for an attribute", "F004", files=info(data_path="{a.__class__}")),
    mutation("no data_path", "F005", files=info(data_path=...)),
    mutation(
        "chunk_index for episode_chunk",
        "O002",
        files=info(data_path="data/chunk-{chunk_index:03d}/episode_{episode_index:06d}.parquet"),
    ),
    mutation("data_path to nowhere", "F005", files=info(data_path="x/{episode_index}.parquet")),
    mutation("data file gone", "F006", files=written(V2_FILE, None)),
    mutation("data file is an LFS pointer", "F007", files=written(V2_FILE, LFS)),
    mutation("data file is empty", "F007", files=written(V2_FILE, b"")),
    mutation("shared data file gone", "F006", "v3.0", files=written(V3_FILE, None)),
    mutation(
        "a data file too many",
        "F008",
        files=lambda root: written("data/chunk-000/episode_000099.parquet", LFS)(root),
    ),
    mutation("105 episodes promised", "F009", files=info(total_episodes=105)),
    mutation("27,623 frames promised", "F010", files=info(total_frames=27623)),
    mutation("0 episodes promised", "F009", "v3.0", files=info(total_episodes=0)),
    mutation(
        "19 of 105 episodes",
        "F009",
        files=info(total_episodes=105, total_frames=27623, splits={"train": "0:105"}),
    ),
    mutation("another program's info.json", "F001", files=written("meta/info.json", b'{"a": 1}')),
    mutation("recording aborted", "E002", files=lambda root: _aborted(root)),
    mutation("9 tasks promised", "F011", files=info(total_tasks=9)),
    mutation("4 chunks promised", "F012", files=info(total_chunks=4)),
    mutation("split runs past", "F013", files=info(splits={"train": "0:5", "test": "5:80"})),
    mutation("split is a number", "F013", files=info(splits={"train": 6})),
    mutation("fps is 0", "F014", files=info(fps=0)),
    mutation("no fps", "F014", "v3.0", files=info(fps=...)),
    mutation("total_frames is a text", "F015", files=info(total_frames="many")),
    mutation("robot_type is a list", "F015", files=info(robot_type=["a"])),
    mutation("no total_frames", "F016", files=info(total_frames=...)),
    # E: episodes
    mutation("no episodes table", "E001", files=written(EPISODES, None)),
    mutation("an episode twice", "E001", files=lines(EPISODES, lambda rows: [*rows, rows[0]])),
    mutation(
        "episodes table torn",
        "E001",
        "v3.0",
        files=written("meta/episodes/chunk-000/file-000.parquet", b"PAR1garbage"),
    ),
    mutation("no episodes", "E002", files=lines(EPISODES, lambda rows: [])),
    mutation("length 0", "E003", files=lines(EPISODES, field(5, length=0))),
    mutation("length 1 too many", "E004", files=lines(EPISODES, field(5, length=91))),
    mutation(
        "fewer rows than lengths",
        "E004",
        "v3.0",
        files=table("data/chunk-000/file-001.parquet", lambda t: t.slice(0, len(t) - 20)),
    ),
    mutation(
        "episode left out of the table",
        "F009",
        files=lines(EPISODES, lambda rows: drop(rows, 0)),
    ),
    mutation(
        "episode taken out everywhere",
        "E005",
        files=both(
            lines(EPISODES, lambda rows: drop(rows, 0)),
            lines(STATS, lambda rows: drop(rows, 0)),
            written("data/chunk-000/episode_000000.parquet", None),
            written(f"videos/chunk-000/{CAMERA}/episode_000000.mp4", None),
            info(total_episodes=5, total_frames=390, total_videos=5, splits={"train": "0:5"}),
        ),
    ),
    mutation("files swapped", "E006", files=lambda root: _swap(root)),
    mutation(
        "row ranges off by one",
        "E007",
        "v3.0",
        files=table(V3_EPISODES, column("dataset_to_index", lambda v: [x + 1 for x in v])),
    ),
    mutation(
        "no row ranges",
        "E008",
        "v3.0",
        files=table(
            V3_EPISODES, lambda t: t.drop_columns(["dataset_from_index", "dataset_to_index"])
        ),
    ),
    mutation("an episode of 4 frames", "E009", frames=lambda e: [*e[:5], _cut(e[5], 4)]),
    mutation(
        "an episode's rows in two places",
        "E010",
        "v3.0",
        files=table(V3_FILE, lambda t: t.take([*range(5, len(t)), *range(5)])),
    ),
    mutation("an episode twice, renumbered", "E011", frames=one_twice),
    mutation("frame_index begins at 1", "E012", frames=episode(2, frame_index=lambda n: n + 1)),
    mutation("a frame lost", "E012", frames=episode(3, frame_index=lambda n: n + (n > 40))),
    mutation("index counts an episode", "E013", frames=episode(3, index=lambda n: n)),
    # C: columns
    mutation("no features", "C001", files=info(features=...)),
    mutation("features that are texts", "C001", files=info(features=no_names)),
    mutation(
        "no action",
        "C002",
        files=info(features=lambda f: {k: v for k, v in f.items() if k != ACTION}),
    ),
    mutation("state and actions", "C003", state_feature="state", action_feature="actions"),
    mutation(
        "a feature without column",
        "C004",
        files=feature("next.done", dtype="bool", shape=[1], names=None),
    ),
    mutation("no task_index and no index", "C005 O003", omit_columns=("task_index", "index")),
    mutation(
        "a column without feature",
        "C006",
        files=info(features=lambda f: {k: v for k, v in f.items() if k != "extra"}),
        frames=episode(-1, extra=lambda n: n * 0.5),
    ),
    mutation(
        "float64 for float32",
        "C007",
        float_dtype="float64",
        list_type="list",
        files=both(feature(STATE, dtype="float32"), feature(ACTION, dtype="float32")),
    ),
    mutation("7 dims declared of 6", "C008", files=feature(STATE, shape=[7])),
    mutation(
        "7 dims declared of 6, lists",
        "C008",
        list_type="list",
        files=feature(STATE, shape=[7]),
    ),
    mutation(
        "camera without channels", "C009", files=feature("observation.images.front", shape=[48, 64])
    ),
    mutation("shape of nothing", "C009", "v3.0", files=feature(ACTION, shape=[0])),
    mutation("names in a list", "C010", files=feature(STATE, names=[list("abcdef")])),
    mutation("names in an object", "C010", files=feature(STATE, names={"motors": list("abcdef")})),
    mutation("too few names", "C011", files=feature(STATE, names=list("abcde"))),
    mutation("a name twice", "C011", files=feature(STATE, names=list("abcdea"))),
    mutation(
        "state wider than actions",
        "C012",
        state_names=tuple("abcdefg"),
        frames=episode(-1, state=lambda v: np.hstack([v, v[:, :1] * 0.5])),
    ),
    mutation("one file in float64", "C013", files=table(V2_FILE, lambda t: _float64(t))),
    mutation(
        "video of 25 frames per second",
        "C014",
        files=feature("observation.images.front", info={"video.fps": 25}),
    ),
    # D: frames
    mutation("a null", "D001", files=table(V2_FILE, column("timestamp", lambda v: [None, *v[1:]]))),
    mutation("a NaN", "D002", frames=episode(4, actions=put(7, 2, np.nan))),
    mutation("a joint is stuck", "D003", frames=episode(-1, state=stuck)),
    mutation("a spike", "D004", frames=episode(1, state=put(30, 1, lambda v: v + 3))),
    mutation("an angle wraps", "D005", frames=episode(-1, state=wrapped, actions=wrapped)),
    mutation("actions five frames late", "D006", frames=episode(-1, actions=shift)),
    mutation("one episode's actions late", "D008", frames=episode(3, actions=shift)),
    mutation("actions are the state", "D007", frames=same_as_state),
    # B: behaviour
    mutation("an idle start", "B001", frames=_more(_idle_start)),
    mutation("an episode trembles", "B002", frames=_more(_trembles)),
    mutation("a joint is clipped", "B003", frames=_more(_clipped)),
    mutation("the leader is calibrated otherwise", "B004", frames=_more(_offset)),
    mutation("an episode ends elsewhere", "B005", frames=_more(_ends_elsewhere)),
    # T: timestamps
    mutation(
        "a time is NaN",
        "T001",
        frames=episode(2, timestamp=times(lambda t: np.where(t == t[9], np.nan, t))),
    ),
    mutation(
        "time runs back",
        "T002",
        frames=episode(2, timestamp=times(lambda t: np.where(t == t[9], t[4] + 0.03, t))),
    ),
    mutation(
        "a time twice",
        "T003",
        frames=episode(2, timestamp=times(lambda t: np.where(t == t[9], t[8], t))),
    ),
    mutation(
        "recorded at 15 Hz", "T004", frames=episode(-1, timestamp=times(lambda t: t * FPS / 15))
    ),
    mutation(
        "a gap of 5 ms", "T005", frames=episode(2, timestamp=times(lambda t: t + 0.005 * (t > 3)))
    ),
    mutation("begins at 2 s", "T006", frames=episode(2, timestamp=times(lambda t: t + 2))),
    # V: videos
    mutation("no video at all", "V001", files=lambda root: shutil.rmtree(root / "videos")),
    mutation("a video gone", "V002", files=written(V2_VIDEO, None)),
    mutation("a shared video gone", "V002", "v3.0", files=written(V3_VIDEO, None)),
    mutation("a video of 0 bytes", "V003", files=written(V2_VIDEO, b"")),
    mutation("a video is an LFS pointer", "V003", files=written(V2_VIDEO, LFS)),
    mutation("a video is cut off", "V003", files=written(V2_VIDEO, mp4(72, FPS)[:-40])),
    mutation("a video without index", "V003", files=written(V2_VIDEO, mp4(72, FPS)[:112])),
    mutation("a video is a text", "V003", files=written(V2_VIDEO, b"there was a video here")),
    mutation("a video of 70 frames", "V004", files=written(V2_VIDEO, mp4(70, FPS))),
    mutation("a video of 80 frames", "V005", files=written(V2_VIDEO, mp4(80, FPS))),
    mutation("a shared video one short", "V004", "v3.0", files=written(V3_VIDEO, mp4(197, FPS))),
    mutation("a video at 15 Hz", "V006", files=written(V2_VIDEO, mp4(72, 15))),
    mutation(
        "spans off by a frame",
        "V007",
        "v3.0",
        files=table(V3_EPISODES, column(f"videos/{CAMERA}/to_timestamp", _later)),
    ),
    mutation(
        "no spans",
        "V008",
        "v3.0",
        files=table(V3_EPISODES, lambda t: t.drop_columns([f"videos/{CAMERA}/from_timestamp"])),
    ),
    mutation("a small video", "V009", files=written(V2_VIDEO, mp4(72, FPS, size=(320, 240)))),
    mutation("two codecs", "V010", files=written(V2_VIDEO, mp4(72, FPS, codec=b"avc1"))),
    mutation("video_path leads out", "V011", files=info(video_path="../{video_key}.mp4")),
    mutation(
        "Lance storage",
        "F017",
        "v3.0",
        files=both(info(storage_format="lance"), lambda root: shutil.rmtree(root / "data")),
    ),
    mutation("Lance tables", "F017", "v3.0", files=lambda root: _lance(root)),
    mutation("a depth camera", "", "v3.0", files=lambda root: _depth(root, 3000.0)),
    # O: trainers
    mutation("no timestamps", "C005 O007", omit_columns=("timestamp",)),
    mutation("no episode stats in v2.1", "O001", files=_only_whole_stats),
    mutation(
        "language columns",
        "O004",
        "v3.0",
        files=both(
            feature("language_events", dtype="language", shape=[1], names=None),
            table("data/*/*.parquet", _with_language),
        ),
    ),
    # S: stats
    mutation("stats.json is a list", "S001", "v3.0", files=written("meta/stats.json", b"[1]")),
    mutation(
        "stats of texts",
        "S001",
        "v2.0",
        files=document("meta/stats.json", lambda s: {k: {"mean": "x"} for k in s}),
    ),
    mutation("episode stats cut off", "S002", files=written(STATS, b'{"episode_index": 0, "sta')),
    mutation("no stats", "S003", "v2.0", files=written("meta/stats.json", None)),
    mutation("no stats.json", "S004", "v3.0", files=written("meta/stats.json", None)),
    mutation(
        "no stats of the state",
        "S005",
        "v3.0",
        files=document("meta/stats.json", lambda s: {k: v for k, v in s.items() if k != STATE}),
    ),
    mutation("no std", "S003", files=lines(STATS, without_stat("std"))),
    mutation(
        "no std in stats.json",
        "S006",
        "v2.0",
        files=document(
            "meta/stats.json",
            lambda s: {**s, STATE: {k: v for k, v in s[STATE].items() if k != "std"}},
        ),
    ),
    mutation(
        "stats of five dims",
        "S008",
        "v2.0",
        files=document(
            "meta/stats.json",
            lambda s: {**s, STATE: {k: v[:5] for k, v in s[STATE].items()}},
        ),
    ),
    mutation(
        "std is NaN",
        "S007",
        "v2.0",
        files=document("meta/stats.json", stat("std", 2, float("nan"))),
    ),
    mutation(
        "min above max",
        "S009",
        "v2.0",
        files=document("meta/stats.json", stat("min", 2, 50.0)),
    ),
    mutation(
        "std is negative",
        "S009",
        "v2.0",
        files=document("meta/stats.json", stat("std", 2, -0.5)),
    ),
    mutation(
        "count of another dataset",
        "S010",
        "v3.0",
        files=document("meta/stats.json", stat("count", 0, 7)),
    ),
    mutation(
        "stats of relative actions",
        "S022",
        "v3.0",
        files=lambda root: _relative(root, 8),
    ),
    mutation(
        "a bare NaN for a camera",
        "S023",
        files=lines(STATS, lambda rows: [_nan_camera(rows[0]), *rows[1:]]),
    ),
    mutation("no count", "S011", files=lines(STATS, without_stat("count"))),
    mutation("an episode without stats", "S012", files=lines(STATS, lambda rows: drop(rows, 3))),
    mutation(
        "images of 0 to 255",
        "S013",
        "v3.0",
        files=document(
            "meta/stats.json",
            lambda s: {
                **s,
                "observation.images.front": {
                    **s["observation.images.front"],
                    "max": [[[255.0]], [[255.0]], [[255.0]]],
                },
            },
        ),
    ),
    mutation("a constant dim", "S014", frames=episode(-1, state=put(slice(None), 3, 0.25))),
    mutation("a dim that hardly moves", "D003", "v3.0", frames=_hardly_moves),
    mutation("a dim that flickers", "S021", "v3.0", frames=_flickers),
    mutation(
        "ticks beside radians",
        "S015",
        frames=episode(-1, state=put(slice(None), 3, lambda v: v * 1000 + 2048)),
    ),
    mutation(
        "stats.json of older data",
        "S017",
        "v3.0",
        files=document("meta/stats.json", stat("mean", 1, -1.0)),
    ),
    mutation("max of one episode wrong", "S018", files=lines(STATS, episode_stat("max", 2, 2.9))),
    mutation(
        "a quantile is none", "S019", "v2.0", files=document("meta/stats.json", stat("q90", 0, 0.0))
    ),
    mutation("episodes' own quantiles", "S020", files=with_stats(episode_quantiles="episode")),
    # K: tasks
    mutation("no tasks table", "K001", files=written(TASKS, None)),
    mutation("tasks.parquet is text", "K001", "v3.0", files=written(V3_TASKS, LFS)),
    mutation("a task twice", "K002", files=lines(TASKS, lambda rows: [*rows, rows[1]])),
    mutation("tasks from 1 on", "K006", files=lines(TASKS, field(0, task_index=2))),
    mutation(
        "tasks from 1 on in the data too",
        "K003",
        frames=_later_tasks,
        files=lines(
            TASKS, lambda rows: [{**row, "task_index": row["task_index"] + 1} for row in rows]
        ),
    ),
    mutation("a task of blanks", "K004", files=lines(TASKS, field(1, task="  "))),
    mutation(
        "a task in capitals",
        "K005",
        files=lines(TASKS, lambda rows: [*rows, {"task_index": 2, "task": "Pick up  the cube"}]),
    ),
    mutation("a task lost", "K006", files=lines(TASKS, lambda rows: rows[:1])),
    mutation("a paraphrase", "K007", files=lines(EPISODES, field(1, tasks=["open it"]))),
    mutation(
        "an episode without task",
        "K008",
        "v3.0",
        files=table(V3_EPISODES, column("tasks", lambda v: [[], *v[1:]])),
    ),
    mutation("a task unused", "K009", "v3.0", files=table(V3_TASKS, lambda t: _one_more(t))),
    mutation(
        "the task changes",
        "K010",
        frames=episode(0, task_index=lambda n: (n > 30).astype(np.int64)),
    ),
    mutation("the other task", "K011", files=lines(EPISODES, field(0, tasks=["open the drawer"]))),
    # H: heads
    mutation("no control_mode", "", control_mode=None),
    mutation("neither tag", "H002", control_mode=None, robot_type=None),
    mutation("robot unknown", "", robot_type="Unknown"),
)


def _lance(root) -> None:
    shutil.rmtree(root / "data")
    written("frames.lance/data/0.lance", b"LANC")(root)


def _depth(root, most: float) -> None:
    details = {"is_depth_map": True, "depth_unit": "mm", "video.codec": "av1"}
    feature(CAMERA, shape=[480, 640, 1], info=details)(root)

    def edit(stats):
        stats[CAMERA] = {"min": [[[1.0]]], "mean": [[[2.0]]], "std": [[[1.0]]], "max": [[[most]]]}
        return stats

    document("meta/stats.json", edit)(root)


def _cut(old, length):
    from dataclasses import replace

    return replace(old, state=old.state[:length], actions=old.actions[:length])


def _swap(root) -> None:
    folder = root / "data/chunk-000"
    a, b, spare = (folder / n for n in ("episode_000001.parquet", "episode_000002.parquet", "x"))
    a.rename(spare)
    b.rename(a)
    spare.rename(b)


def _float64(content):
    import pyarrow as pa

    position = content.column_names.index("timestamp")
    return content.set_column(position, "timestamp", content.column("timestamp").cast(pa.float64()))


def _one_more(content):
    import pyarrow as pa

    names = content.column_names
    rows = {n: [*content.column(n).to_pylist(), 2 if n == "task_index" else "wave"] for n in names}
    return pa.table(rows)


def _aborted(root) -> None:
    info(total_episodes=0, total_frames=0, total_tasks=0, splits={"train": "0:0"})(root)
    for name in ("data", "videos"):
        shutil.rmtree(root / name, ignore_errors=True)
    for file in (EPISODES, TASKS, STATS):
        (root / file).unlink()
