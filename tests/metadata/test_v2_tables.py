"""v2.0 and v2.1: the JSON-lines tables and everything that is wrong with them in the wild."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import copy_real, tiny_dataset

from opentau_prep.errors import MetadataError
from opentau_prep.metadata import DatasetMetadata, load_dataset_metadata
from opentau_prep.notices import collect_notices
from opentau_prep.pooling import aggregate_stats

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n"


def lines_of(root: Path, rel: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / rel).read_text().splitlines()]


def write_lines(root: Path, rel: str, rows: list[Any]) -> None:
    (root / rel).write_text("".join(json.dumps(row) + "\n" for row in rows))


def fault(question: Callable[[], Any]) -> str:
    with pytest.raises(MetadataError) as caught:
        question()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_dataset(tmp_path, "v2.1", 4, task_indices=[1, 0, 2, 1])


def test_load_v21_gives_what_the_files_hold(root: Path) -> None:
    meta = load_dataset_metadata(root)
    rows = lines_of(root, "meta/episodes.jsonl")
    assert meta.version == "v2.1"
    assert meta.repo_id == "tiny"
    assert meta.episodes.episode_index.tolist() == [row["episode_index"] for row in rows]
    assert meta.episodes.length.tolist() == [row["length"] for row in rows]
    assert meta.episodes.tasks == tuple(tuple(row["tasks"]) for row in rows)
    assert meta.episodes.total_frames == sum(row["length"] for row in rows)
    tasks = lines_of(root, "meta/tasks.jsonl")
    assert meta.tasks == {row["task_index"]: row["task"] for row in tasks}
    for row in lines_of(root, "meta/episodes_stats.jsonl"):
        found = meta.episodes_stats[row["episode_index"]]
        assert {f: {s: a.tolist() for s, a in x.items()} for f, x in found.items()} == row["stats"]
    assert meta.fps == 30
    assert all((root / rel).is_file() for rel in meta.data_paths)


def test_load_real_v21_agrees_with_its_files(tmp_path: Path) -> None:
    root = copy_real("g1_pick_bottle", tmp_path)
    meta = load_dataset_metadata(root)
    rows = lines_of(root, "meta/episodes.jsonl")
    assert meta.episodes.length.tolist() == [row["length"] for row in rows]
    assert meta.features["observation.state"].names[0] == "kLeftShoulderPitch"
    stats = [row["stats"]["action"] for row in lines_of(root, "meta/episodes_stats.jsonl")]
    counts = np.array([s["count"] for s in stats], dtype=np.float64)
    means = np.array([s["mean"] for s in stats])
    np.testing.assert_allclose(
        meta.stats["action"]["mean"], (counts * means).sum(0) / counts.sum(), rtol=1e-12
    )
    assert meta.stats["action"]["count"] == counts.sum()


@pytest.mark.parametrize("n_episodes", [1, 7, 40, 300])
def test_stats_v21_stacked_pooling_equals_pooling_one_by_one(
    tmp_path: Path, n_episodes: int
) -> None:
    root = tiny_dataset(tmp_path, "v2.1", lengths=[1 + i % 13 for i in range(n_episodes)])
    meta = load_dataset_metadata(root)
    expected = aggregate_stats(list(meta.episodes_stats.values()))
    assert list(meta.stats) == list(expected)
    for feature, stats in expected.items():
        assert meta.stats[feature].keys() == stats.keys()
        for stat, array in stats.items():
            found = meta.stats[feature][stat]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            assert found.tobytes() == array.tobytes()


def test_episodes_rows_in_any_order_with_blank_lines_are_sorted(root: Path) -> None:
    rows = lines_of(root, "meta/episodes.jsonl")
    text = "\n\n".join(json.dumps(row) for row in rows[::-1]) + "\r\n\n"
    (root / "meta/episodes.jsonl").write_text("\ufeff" + text, encoding="utf-8")
    meta = load_dataset_metadata(root)
    assert meta.episodes.episode_index.tolist() == [0, 1, 2, 3]
    assert meta.episodes.length.tolist() == [row["length"] for row in rows]
    assert meta.episodes.tasks[0] == tuple(rows[0]["tasks"])


def test_episodes_whole_floats_and_a_bare_task_are_understood(root: Path) -> None:
    rows = [
        {"episode_index": 0.0, "length": 5.0, "tasks": "one"},
        {"episode_index": 1, "length": 8},
    ]
    write_lines(root, "meta/episodes.jsonl", [*rows, {**rows[1], "episode_index": 2, "tasks": [1]}])
    table = load_dataset_metadata(root).episodes
    assert table.episode_index.tolist() == [0, 1, 2]
    assert table.tasks == (("one",), (), ())


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"length": 5}, "field `episode_index` is missing"),
        ({"episode_index": 9}, "field `length` is missing"),
        ({"episode_index": "9", "length": 5}, "field `episode_index` is '9'"),
        ({"episode_index": 9, "length": None}, "field `length` is None"),
        ({"episode_index": 9, "length": -1}, "field `length` is -1"),
        ({"episode_index": 9, "length": 2.5}, "field `length` is 2.5"),
        ({"episode_index": True, "length": 5}, "field `episode_index` is True"),
        ({"episode_index": 9, "length": 10**30}, "field `length` is "),
        ({"episode_index": 10**400, "length": 3}, "field `episode_index` is "),
        ({"episode_index": 9, "length": [[[1]]]}, "field `length` is a list of 1"),
        ({"episode_index": 9, "length": float("nan")}, "field `length` is nan"),
        ([1, 2], "must hold a JSON object, found a list"),
        (None, "must hold a JSON object, found null"),
        ({"episode_index": 0, "length": 5}, "episode 0 occurs twice (lines 1 and 5)"),
    ],
)
def test_episodes_malformed_row_is_named_by_line(root: Path, row: object, said: str) -> None:
    rows = lines_of(root, "meta/episodes.jsonl")
    write_lines(root, "meta/episodes.jsonl", [*rows, row])
    text = fault(lambda: load_dataset_metadata(root).episodes)
    assert said in text
    assert "episodes.jsonl" in text
    assert "line" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"episode_index": 0, "length": 5', "line 1: is not valid JSON"),
        (b'{"episode_index": 0, "length": 5}\n{"episode_index": 1, "le', "line 2: is not valid"),
        (LFS.encode(), "is a Git LFS pointer"),
        (b"\xff\xfe{\x00", "is not UTF-8 text"),
        (b'{"a": "\xff"}\n', "is not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_episodes_that_are_no_json_lines_are_named(root: Path, content: bytes, said: str) -> None:
    (root / "meta/episodes.jsonl").write_bytes(content)
    assert said in fault(lambda: load_dataset_metadata(root).episodes)


def test_episodes_endless_number_is_an_error(root: Path) -> None:
    (root / "meta/episodes.jsonl").write_bytes(b'{"episode_index": ' + b"9" * 10_000 + b"}")
    fault(lambda: load_dataset_metadata(root).episodes)


def test_episodes_empty_file_is_an_empty_table(root: Path) -> None:
    (root / "meta/episodes.jsonl").write_bytes(b"\n")
    meta = load_dataset_metadata(root)
    assert len(meta.episodes) == 0
    assert meta.data_paths == []


@pytest.mark.parametrize("name", ["episodes", "tasks"])
def test_missing_table_names_the_file(root: Path, name: str) -> None:
    (root / f"meta/{name}.jsonl").unlink()
    meta = load_dataset_metadata(root)
    assert f"{name}.jsonl: file is missing" in fault(lambda: getattr(meta, name))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"task_index": 0}, "field `task` is None"),
        ({"task_index": 0, "task": 3}, "field `task` is 3"),
        ({"task": "x"}, "field `task_index` is missing"),
        ({"task_index": -1, "task": "x"}, "field `task_index` is -1"),
    ],
)
def test_tasks_malformed_row_is_named_by_line(root: Path, row: object, said: str) -> None:
    write_lines(root, "meta/tasks.jsonl", [{"task_index": 5, "task": "fine"}, row])
    text = fault(lambda: load_dataset_metadata(root).tasks)
    assert said in text
    assert "line 2" in text


def test_tasks_any_order_and_repeated_index_are_sorted_and_the_last_wins(root: Path) -> None:
    rows = [(2, "two"), (0, "zero"), (2, "two again")]
    write_lines(root, "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in rows])
    assert list(load_dataset_metadata(root).tasks.items()) == [(0, "zero"), (2, "two again")]


def stats_row(episode: int, **changes: object) -> dict[str, object]:
    stats = {"min": [0.0], "max": [1.0], "mean": [0.5], "std": [0.1], "count": [4], **changes}
    return {"episode_index": episode, "stats": {"action": stats}}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"episode_index": 1}, "stats must be an object"),
        ({"episode_index": 1, "stats": []}, "stats must be an object"),
        ({"episode_index": 1, "stats": {"action": 3}}, "stats of 'action' must be an object"),
        (stats_row(1, mean=["x"]), "line 2: stat `action/mean` is not an array of numbers"),
        (stats_row(1, mean=[[1], [1, 2]]), "line 2: stat `action/mean` is not an array of numbers"),
        (stats_row(1, mean={"a": 1}), "stat `action/mean` is not an array of numbers"),
        (stats_row(1, mean=[0.1, 0.2]), "stat `action/mean` has different shapes"),
        ({"stats": {}}, "field `episode_index` is missing"),
    ],
)
def test_episodes_stats_malformed_is_named(root: Path, row: object, said: str) -> None:
    write_lines(root, "meta/episodes_stats.jsonl", [stats_row(0), row])
    meta = load_dataset_metadata(root)
    assert said in fault(lambda: meta.episodes_stats)


def test_episodes_stats_null_nan_and_scalars_load(root: Path) -> None:
    text = json.dumps(stats_row(0, mean=[None], std=float("nan"), count=4))
    (root / "meta/episodes_stats.jsonl").write_text(text)
    action = load_dataset_metadata(root).episodes_stats[0]["action"]
    assert np.isnan(action["mean"]).all()
    assert np.isnan(action["std"]).all()
    assert {array.shape for array in action.values()} == {(1,)}


def test_episodes_stats_that_differ_in_quantiles_pool_with_a_notice(root: Path) -> None:
    rows = [stats_row(0, q01=[0.1]), stats_row(1)]
    write_lines(root, "meta/episodes_stats.jsonl", rows)
    meta = load_dataset_metadata(root)
    with collect_notices() as notices:
        assert "q01" not in meta.stats["action"]
    assert [notice.kind for notice in notices] == ["dropped_quantiles"]
    assert "episode 1" in notices[0].message
    assert meta.episodes_stats[0]["action"]["q01"] == [0.1]


def test_stats_lacking_a_required_one_names_the_episode(root: Path) -> None:
    rows = [stats_row(0), stats_row(7)]
    for row in rows:
        del row["stats"]["action"]["std"]  # type: ignore[attr-defined]
    write_lines(root, "meta/episodes_stats.jsonl", rows)
    assert "tiny, episode 0: stats of 'action' lack std" in fault(
        lambda: load_dataset_metadata(root).stats
    )


def test_stats_of_v20_are_its_own_file(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.0")
    meta = load_dataset_metadata(root)
    raw = json.loads((root / "meta/stats.json").read_text())
    assert {f: {s: a.tolist() for s, a in x.items()} for f, x in meta.stats.items()} == raw
    assert meta.episodes_stats == {}


def test_stats_missing_source_gives_way_to_the_other_with_a_notice(
    tmp_path: Path, root: Path
) -> None:
    (root / "meta/episodes_stats.jsonl").unlink()
    meta = load_dataset_metadata(root)
    assert "the dataset has no stats" in fault(lambda: meta.stats)
    (root / "meta/stats.json").write_text(json.dumps(stats_row(0)["stats"]))
    with collect_notices() as notices:
        stats = load_dataset_metadata(root).stats
    assert stats["action"]["mean"] == [0.5]
    assert [notice.kind for notice in notices] == ["stats_stand_in"]


def test_arrays_of_metadata_are_read_only(root: Path) -> None:
    meta = load_dataset_metadata(root)
    arrays = [meta.episodes.length, meta.episodes_stats[0]["action"]["mean"]]
    assert not any(array.flags.writeable for array in arrays)


def test_episode_table_positions_find_and_refuse(root: Path) -> None:
    meta: DatasetMetadata = load_dataset_metadata(root)
    assert meta.episodes.positions(np.array([3, 0])).tolist() == [3, 0]
    assert meta.episodes.position(2) == 2
    assert 3 in meta.episodes
    assert 4 not in meta.episodes
    with pytest.raises(KeyError):
        meta.episodes.positions(np.array([0, 4]))
