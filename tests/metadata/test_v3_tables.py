"""v3.0: the parquet tables under meta/, against plain pyarrow reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import copy_real, tiny_dataset

from opentau_prep.errors import MetadataError
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.notices import collect_notices

EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def edit(root: Path, change: Callable[[pa.Table], pa.Table], rel: str = EPISODES) -> None:
    table = pq.read_table(root / rel, partitioning=None)
    pq.write_table(change(table), root / rel)


def replaced(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        array = values if isinstance(values, pa.Array) else pa.array(values)
        return table.set_column(table.column_names.index(name), name, array)

    return change


def fault(question: Callable[[], Any]) -> str:
    with pytest.raises(MetadataError) as caught:
        question()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_dataset(
        tmp_path, "v3.0", 5, task_indices=[0, 1, 0, 1, 1], cameras=("cam",), quantiles=True
    )


@pytest.mark.parametrize("rows_per_meta_file", [None, 1, 2])
@pytest.mark.parametrize("episodes_per_file", [None, 1, 2])
def test_load_v3_gives_what_the_files_hold(
    tmp_path: Path, rows_per_meta_file: int | None, episodes_per_file: int | None
) -> None:
    root = tiny_dataset(
        tmp_path,
        "v3.0",
        5,
        chunks_size=2,
        rows_per_meta_file=rows_per_meta_file,
        episodes_per_file=episodes_per_file,
        cameras=("cam",),
    )
    files = sorted((root / "meta/episodes").rglob("*.parquet"))
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    meta = load_dataset_metadata(root)
    table = meta.episodes
    for found, column in [
        (table.episode_index, "episode_index"),
        (table.length, "length"),
        (table.data_chunk, "data/chunk_index"),
        (table.data_file, "data/file_index"),
        (table.from_index, "dataset_from_index"),
        (table.to_index, "dataset_to_index"),
    ]:
        assert found is not None
        assert found.tolist() == [row[column] for row in rows]
    assert table.tasks == tuple(tuple(row["tasks"]) for row in rows)
    assert meta.data_paths == [
        f"data/chunk-{r['data/chunk_index']:03d}/file-{r['data/file_index']:03d}.parquet"
        for r in rows
    ]
    for row in rows:
        own = meta.episodes_stats[row["episode_index"]]
        for feature, stats in own.items():
            for stat, array in stats.items():
                np.testing.assert_array_equal(array, row[f"stats/{feature}/{stat}"])
        assert own["cam"]["mean"].shape == (3, 1, 1)
    raw = json.loads((root / "meta/stats.json").read_text())
    assert {f: {s: a.tolist() for s, a in x.items()} for f, x in meta.stats.items()} == raw


def test_load_real_v3_agrees_with_its_files(tmp_path: Path) -> None:
    root = copy_real("so101_record_test", tmp_path)
    meta = load_dataset_metadata(root)
    rows = pq.ParquetFile(root / EPISODES).read().to_pylist()
    assert meta.episodes.length.tolist() == [row["length"] for row in rows]
    assert list(meta.tasks) == [0]
    for row in rows:
        for feature, stats in meta.episodes_stats[row["episode_index"]].items():
            for stat, array in stats.items():
                np.testing.assert_array_equal(array, row[f"stats/{feature}/{stat}"])


@pytest.mark.parametrize("column", ["task", "__index_level_0__", "description"])
def test_tasks_string_column_by_any_name(tmp_path: Path, column: str) -> None:
    root = tiny_dataset(tmp_path, "v3.0", 2, task_indices=[0, 1], task_column=column)
    assert load_dataset_metadata(root).tasks == {0: "do task 0", 1: "do task 1"}


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_tasks_any_string_type_and_order(root: Path, kind: pa.DataType) -> None:
    names = pa.array(["b", None, "a"]).cast(kind)
    other = pa.array(["x", "y", "z"])
    table = pa.table({"category": other, "task": names, "task_index": pa.array([7, 3, 0])})
    pq.write_table(table, root / "meta/tasks.parquet")
    assert list(load_dataset_metadata(root).tasks.items()) == [(0, "a"), (3, ""), (7, "b")]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"task_index": [0]}, "has no column of task strings (columns: 'task_index')"),
        ({"task": ["x"]}, "has no column `task_index`"),
        ({"task": ["x"], "task_index": ["0"]}, "column `task_index` must hold whole numbers"),
        ({"task": ["x"], "task_index": [-1]}, "column `task_index` must hold whole numbers"),
        ({"task": ["x"], "task_index": [0.5]}, "column `task_index` must hold whole numbers"),
        ({"task": ["x", "y"], "task_index": [0, None]}, "found int64 with 1 nulls"),
        ({"task": [b"\xff"], "task_index": [0]}, "has no column of task strings"),
    ],
)
def test_tasks_malformed_table_names_the_column(
    root: Path, table: dict[str, Any], said: str
) -> None:
    pq.write_table(pa.table(table), root / "meta/tasks.parquet")
    text = fault(lambda: load_dataset_metadata(root).tasks)
    assert said in text
    assert "meta/tasks.parquet" in text


def test_tasks_string_that_is_not_utf8_is_an_error(root: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    pq.write_table(pa.table({"task": bad, "task_index": [0]}), root / "meta/tasks.parquet")
    assert "must hold UTF-8 text" in fault(lambda: load_dataset_metadata(root).tasks)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["episode_index"]), "has no column `episode_index`"),
        (
            lambda t: t.drop_columns(["length", "dataset_to_index"]),
            "has no column `length`",
        ),
        (replaced("length", list("abcde")), "column `length` must hold whole numbers"),
        (replaced("length", [1, 2, 3, 4, None]), "found int64 with 1 nulls"),
        (replaced("length", [1, 2, 3, 4, -5]), "negative, fractional or huge"),
        (replaced("length", [1, 2, 3, 4, 2**62]), "negative, fractional or huge"),
        (replaced("length", pa.array([1, 2, 3, 4, 2**64 - 1], pa.uint64())), "negative"),
        (replaced("length", [1.0, 2.0, 3.0, 4.0, float("nan")]), "negative, fractional or huge"),
        (replaced("length", [[1], [2], [3], [4], [5]]), "column `length` must hold whole numbers"),
        (replaced("episode_index", [0, 1, 2, 3, 3]), "episode 3 occurs twice"),
        (lambda t: t.append_column("length", t["length"]), "has 2 columns `length`"),
    ],
)
def test_episodes_malformed_table_names_the_column(
    root: Path, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    edit(root, change)
    text = fault(lambda: load_dataset_metadata(root).episodes)
    assert said in text
    assert "meta/episodes" in text


def test_episodes_without_length_takes_it_from_the_row_range(root: Path) -> None:
    lengths = load_dataset_metadata(root).episodes.length.tolist()
    edit(root, lambda t: t.drop_columns(["length"]))
    assert load_dataset_metadata(root).episodes.length.tolist() == lengths


def test_episodes_shuffled_rows_are_sorted_with_their_stats(root: Path) -> None:
    before = load_dataset_metadata(root)
    edit(root, lambda t: t.take([3, 0, 4, 2, 1]))
    after = load_dataset_metadata(root)
    assert after.episodes.length.tolist() == before.episodes.length.tolist()
    assert after.episodes.tasks == before.episodes.tasks
    assert after.data_paths == before.data_paths
    for episode, stats in before.episodes_stats.items():
        mean = after.episodes_stats[episode]["action"]["mean"]
        np.testing.assert_array_equal(mean, stats["action"]["mean"])


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint64(), pa.float64()])
def test_episodes_other_number_types_are_read(root: Path, kind: pa.DataType) -> None:
    edit(root, replaced("length", pa.array([5, 8, 11, 14, 17]).cast(kind)))
    assert load_dataset_metadata(root).episodes.length.tolist() == [5, 8, 11, 14, 17]


def test_episodes_tasks_absent_or_of_another_type_are_empty(root: Path) -> None:
    edit(root, replaced("tasks", list("abcde")))
    assert load_dataset_metadata(root).episodes.tasks[1] == ("b",)
    edit(root, replaced("tasks", [1, 2, 3, 4, 5]))
    assert load_dataset_metadata(root).episodes.tasks[1] == ()
    edit(root, lambda t: t.drop_columns(["tasks"]))
    assert load_dataset_metadata(root).episodes.tasks == ((),) * 5


def test_episodes_without_file_columns_load_but_have_no_paths(root: Path) -> None:
    edit(root, lambda t: t.drop_columns(["data/file_index"]))
    meta = load_dataset_metadata(root)
    assert len(meta.episodes) == 5
    assert "lacks the columns data/chunk_index and data/file_index" in fault(
        lambda: meta.data_paths
    )


def test_episodes_files_of_unlike_types_are_an_error(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0", 2, rows_per_meta_file=1)
    edit(root, replaced("length", ["x"]))
    assert "columns of different types" in fault(lambda: load_dataset_metadata(root).episodes)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"version https://git-lfs.github.com/spec/v1\n"])
def test_episodes_damaged_file_is_named(root: Path, content: bytes) -> None:
    (root / EPISODES).write_bytes(content)
    assert str(root / EPISODES) in fault(lambda: load_dataset_metadata(root).episodes)


def test_episodes_folder_missing_is_an_error(root: Path) -> None:
    (root / EPISODES).unlink()
    assert "holds no parquet file" in fault(lambda: load_dataset_metadata(root).episodes)


def test_episodes_stats_null_rows_are_stats_that_those_lack(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        rows = table.column("stats/action/q01").to_pylist()
        return replaced("stats/action/q01", [rows[0], None, *rows[2:4], None])(table)

    edit(root, change)
    edit(root, lambda t: t.take([4, 3, 2, 1, 0]))
    meta = load_dataset_metadata(root)
    carried = [e for e, stats in meta.episodes_stats.items() if "q01" in stats["action"]]
    assert carried == [0, 2, 3]
    expected = {
        r["episode_index"]: r["stats/action/q01"]
        for r in pq.read_table(root / EPISODES, partitioning=None).to_pylist()
    }
    for episode in carried:
        found = meta.episodes_stats[episode]["action"]["q01"]
        np.testing.assert_array_equal(found, expected[episode])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1.0], [1.0, 2.0], [1.0], [1.0], [1.0]], "rows differ in shape"),
        ([["a"]] * 5, "must hold numbers, found string"),
        ([[[1.0], None]] * 5, "rows differ in shape"),
    ],
)
def test_episodes_stats_malformed_column_is_named(root: Path, values: Any, said: str) -> None:
    edit(root, replaced("stats/action/mean", values))
    text = fault(lambda: load_dataset_metadata(root).episodes_stats)
    assert said in text
    assert "stats/action/mean" in text


def test_stats_missing_file_gives_way_to_the_aggregate(root: Path) -> None:
    expected = load_dataset_metadata(root).stats["action"]
    (root / "meta/stats.json").unlink()
    with collect_notices() as notices:
        found = load_dataset_metadata(root).stats["action"]
    assert [n.kind for n in notices] == ["stats_stand_in"]
    np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-6)
    assert found["count"] == expected["count"]
