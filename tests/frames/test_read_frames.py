"""The frame reader: exactly the right episode's rows, whatever the files look like."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import copy_real, tiny_dataset, tiny_episodes
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import DataError
from opentau_prep.frames import FrameBlock, data_parts, iter_frames, read_frames, rows
from opentau_prep.metadata import DatasetMetadata, load_dataset_metadata

V3_FILE = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
COLUMNS = ["observation.state", "action", "timestamp", "index"]


def edit(path: Path, change: Any, **options: Any) -> None:
    pq.write_table(change(pq.ParquetFile(path).read()), path, **options)


def replaced(name: str, values: Any) -> Any:
    return lambda t: t.set_column(t.column_names.index(name), name, pa.array(values))


def check_episodes(block: FrameBlock, arrays: dict[int, Any], column: str = "action") -> None:
    """Compare each episode's rows with the arrays that the dataset was written from."""
    assert block.episode_index.tolist() == sorted(block.episode_index.tolist())
    assert block.n_frames == sum(len(arrays[e]) for e in block.episode_index.tolist())
    for episode in block.episode_index.tolist():
        np.testing.assert_array_equal(block.episode(column, episode), arrays[episode])


def plain_actions(root: Path) -> dict[int, Any]:
    """Read every episode's actions with nothing but pyarrow."""
    found: dict[int, list[Any]] = {}
    for path in sorted((root / "data").rglob("*.parquet")):
        for row in pq.ParquetFile(path).read().to_pylist():
            found.setdefault(row["episode_index"], []).append(row["action"])
    return {episode: np.array(rows) for episode, rows in found.items()}


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
@pytest.mark.parametrize("list_type", ["fixed_size_list", "list", "large_list"])
@pytest.mark.parametrize("float_dtype", ["float32", "float64"])
def test_read_frames_any_list_type_is_the_written_array(
    tmp_path: Path, version: Any, list_type: Any, float_dtype: Any
) -> None:
    episodes = tiny_episodes(4)
    root = tiny_dataset(
        tmp_path, version, episodes=episodes, list_type=list_type, float_dtype=float_dtype
    )
    block = read_frames(load_dataset_metadata(root), COLUMNS)
    check_episodes(block, {i: e.actions for i, e in enumerate(episodes)})
    check_episodes(block, {i: e.state for i, e in enumerate(episodes)}, "observation.state")
    assert block.columns["action"].dtype == float_dtype
    assert block.columns["index"].tolist() == [[i] for i in range(block.n_frames)]
    assert not block.columns["action"].flags.writeable


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_read_frames_v3_any_layout_and_selection_is_right(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    per_file = data.draw(st.integers(1, 8))
    episodes = tiny_episodes(lengths=lengths)
    omit = ("episode_index",) if data.draw(st.booleans()) else ()
    root = tiny_dataset(
        tmp_path_factory.mktemp("v3"),
        "v3.0",
        episodes=episodes,
        episodes_per_file=per_file,
        chunks_size=data.draw(st.integers(1, 3)),
        omit_columns=omit,
    )
    group = data.draw(st.integers(1, 20))
    for path in (root / "data").rglob("*.parquet"):
        edit(path, lambda t: t, row_group_size=group)  # groups that cut through episodes
    chosen = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True))
    meta = load_dataset_metadata(root)
    actions = {e: episodes[e].actions for e in chosen}
    block = read_frames(meta, ["action", "index"], chosen)
    assert block.episode_index.tolist() == sorted(chosen)
    check_episodes(block, actions)
    max_rows = data.draw(st.integers(1, 30))
    seen: list[int] = []
    for part in iter_frames(meta, ["action"], chosen, max_rows=max_rows):
        check_episodes(part, actions)
        assert part.n_frames <= max_rows or len(part.episode_index) == 1
        seen += part.episode_index.tolist()
    assert sorted(seen) == sorted(chosen)


def test_read_frames_v3_wrong_from_index_follows_the_data(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0", 4)
    expected = plain_actions(root)
    edit(root / EPISODES, replaced("dataset_from_index", [99, 0, 3, 7]))
    check_episodes(read_frames(load_dataset_metadata(root), ["action"]), expected)


@pytest.mark.parametrize("starts", [[0, 0, 0, 0], [0, 5, 5, 20], [1000, 1005, 1013, 1024], None])
def test_read_frames_v3_without_episode_column_counts_rows(
    tmp_path: Path, starts: list[int] | None
) -> None:
    episodes = tiny_episodes(4)
    root = tiny_dataset(tmp_path, "v3.0", episodes=episodes, omit_columns=("episode_index",))
    name = "dataset_from_index"
    drop = lambda t: t.drop_columns([name])  # noqa: E731
    edit(root / EPISODES, drop if starts is None else replaced(name, starts))
    block = read_frames(load_dataset_metadata(root), ["action"])
    check_episodes(block, {i: e.actions for i, e in enumerate(episodes)})


def test_read_frames_v3_rows_not_in_episode_order_come_out_sorted(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0", 4)
    expected = plain_actions(root)
    edit(root / V3_FILE, lambda t: pa.concat_tables([t.slice(24), t.slice(0, 13), t.slice(13, 11)]))
    meta = load_dataset_metadata(root)
    check_episodes(read_frames(meta, ["action"]), expected)
    check_episodes(read_frames(meta, ["action"], [1, 3]), expected)


def test_read_frames_v3_scattered_episode_is_an_error(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0", 3)
    edit(root / V3_FILE, lambda t: pa.concat_tables([t.slice(2), t.slice(0, 2)]))
    meta = load_dataset_metadata(root)
    with pytest.raises(DataError, match=r"episode 0 has rows in 2 separate places"):
        read_frames(meta, ["action"])
    assert read_frames(meta, ["action"], [1, 2]).n_frames == 8 + 11


def test_read_frames_v3_episode_not_in_its_file_is_an_error(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0", 3)
    edit(root / V3_FILE, lambda t: t.slice(0, 13))
    meta = load_dataset_metadata(root)
    with pytest.raises(DataError, match=r"file-000\.parquet: episode 2 has no rows"):
        read_frames(meta, ["action"])
    edit(root / V3_FILE, lambda t: t.drop_columns(["episode_index"]))
    with pytest.raises(DataError, match="has 13 rows, but its episodes should end at row 24"):
        read_frames(meta, ["action"])


def test_read_frames_episode_lengths_that_lie_follow_the_rows(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 3)
    rows = [{"episode_index": i, "tasks": [], "length": 1000} for i in range(3)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    block = read_frames(load_dataset_metadata(root), ["action"])
    check_episodes(block, plain_actions(root))
    assert block.lengths.tolist() == [1000] * 3


@pytest.mark.parametrize("list_type", ["fixed_size_list", "list"])
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_read_frames_empty_episodes_are_empty_spans(
    tmp_path: Path, version: Any, list_type: Any
) -> None:
    episodes = tiny_episodes(lengths=[4, 1, 3])
    root = tiny_dataset(tmp_path, version, episodes=episodes, list_type=list_type)
    if version == "v2.1":
        path = root / "data/chunk-000/episode_000001.parquet"
        edit(path, lambda t: t.slice(0, 0))
    else:
        path = root / V3_FILE
        edit(path, lambda t: pa.concat_tables([t.slice(0, 4), t.slice(5)]))
        edit(root / EPISODES, replaced("length", [4, 0, 3]))
    meta = load_dataset_metadata(root)
    block = read_frames(meta, ["action"])
    assert np.diff(block.spans, axis=1)[:, 0].tolist() == [4, 0, 3]
    np.testing.assert_array_equal(block.episode("action", 2), episodes[2].actions)
    alone = read_frames(meta, ["action"], [1])
    assert alone.n_frames == 0
    assert alone.columns["action"].shape[0] == 0


def nested(path: Path, kind: pa.DataType, rows: list[Any]) -> None:
    edit(path, lambda t: t.slice(0, len(rows)).append_column("x", pa.array(rows, kind)))


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (pa.list_(pa.list_(pa.float32())), [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]]),
        (pa.list_(pa.list_(pa.float64(), 2), 2), [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
        (pa.large_list(pa.list_(pa.int64(), 1)), [[[1], [2]], [[3], [4]]]),
        (pa.int64(), [1, 2]),
        (pa.bool_(), [True, False]),
        (pa.float16(), [np.float16(1), np.float16(2)]),
        (pa.list_(pa.float32()), [[], []]),
    ],
)
def test_read_frames_nested_lists_are_flattened_by_row(
    tmp_path: Path, kind: pa.DataType, rows: list[Any]
) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 1)
    nested(root / "data/chunk-000/episode_000000.parquet", kind, rows)
    found = read_frames(load_dataset_metadata(root), ["x"]).columns["x"]
    assert found.tolist() == np.array(rows).reshape(2, -1).tolist()


@pytest.mark.parametrize(
    ("kind", "rows", "said"),
    [
        (pa.list_(pa.float32()), [[1], None, [2]], "1 null rows (the first is row 1)"),
        (pa.list_(pa.float32(), 1), [[1], None, [2]], "1 null rows (the first is row 1)"),
        (pa.list_(pa.float32()), [[1], [2], [None]], "has 1 null value"),
        (pa.float32(), [1, None, None], "has 2 null values"),
        (pa.list_(pa.float32()), [[1], [2], [3, 4]], "is ragged: row 2 has 2 values, row 0 has 1"),
        (pa.list_(pa.list_(pa.int8())), [[[1]], [[2]], [[3, 4]]], "is ragged: inner row 2 has 2"),
        (pa.string(), ["a", "b", "c"], "holds string, not numbers"),
        (pa.list_(pa.string()), [["a"]] * 3, "not numbers"),
        (pa.struct([("path", pa.string())]), [{"path": "x"}] * 3, "not numbers"),
        (pa.timestamp("us"), [1, 2, 3], "not numbers"),
        (pa.null(), [None] * 3, "not numbers"),
    ],
)
def test_read_frames_no_matrix_names_file_column_and_row(
    tmp_path: Path, kind: pa.DataType, rows: list[Any], said: str
) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 1)
    path = root / "data/chunk-000/episode_000000.parquet"
    nested(path, kind, rows)
    with pytest.raises(DataError) as caught:
        read_frames(load_dataset_metadata(root), ["x"])
    if "null rows in a list column" in str(caught.value):
        assert int(pa.__version__.split(".")[0]) < 26
        assert said.startswith("1 null rows")
        return
    assert said in str(caught.value)
    assert caught.value.where == f"{path}, column x"
    assert caught.value.hint


def test_read_frames_ragged_between_row_groups_names_the_row(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 1)
    path = root / "data/chunk-000/episode_000000.parquet"
    nested(path, pa.list_(pa.float32()), [[1], [2], [3, 4], [5, 6]])
    edit(path, lambda t: t, row_group_size=2)
    with pytest.raises(DataError, match="ragged"):
        read_frames(load_dataset_metadata(root), ["x"])


def test_read_frames_missing_column_names_the_nearest(tmp_path: Path) -> None:
    meta = load_dataset_metadata(tiny_dataset(tmp_path, "v2.1", 1))
    with pytest.raises(DataError, match=r"has no column 'actions' .*Did you mean 'action'\?"):
        read_frames(meta, ["actions"])
    with pytest.raises(DataError, match=r"has no column 'xyz' .*\. Map it"):
        read_frames(meta, ["action", "xyz"])


def test_read_frames_column_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 1)
    path = root / "data/chunk-000/episode_000000.parquet"
    edit(path, lambda t: t.append_column("action", t["action"]))
    with pytest.raises(DataError, match="has 2 columns 'action'"):
        read_frames(load_dataset_metadata(root), ["action"])


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_read_frames_column_names_with_dots_do_not_mix(tmp_path: Path, version: Any) -> None:
    root = tiny_dataset(tmp_path, version, 2)
    for path in (root / "data").rglob("*.parquet"):
        edit(path, lambda t: t.append_column("action.extra", t["index"]))
    block = read_frames(load_dataset_metadata(root), ["action", "action.extra", "action"])
    assert list(block.columns) == ["action", "action.extra"]
    check_episodes(block, plain_actions(root))


def test_read_frames_different_widths_name_the_files(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 2)
    path = root / "data/chunk-000/episode_000001.parquet"
    edit(path, replaced("action", [[1.0, 2.0, 3.0]] * 8))
    meta = load_dataset_metadata(root)
    with pytest.raises(DataError, match=r"different widths: 2 in .*000000.*, 3 in .*000001"):
        read_frames(meta, ["action"])
    assert [b.columns["action"].shape[1] for b in iter_frames(meta, ["action"])] == [2, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "file is missing"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"PAR1 and no more", "truncated or damaged"),
    ],
)
def test_read_frames_damaged_file_leaves_the_others_readable(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 3)
    expected = plain_actions(root)
    path = root / "data/chunk-000/episode_000001.parquet"
    path.unlink() if content is None else path.write_bytes(content)
    meta = load_dataset_metadata(root)
    with pytest.raises(DataError, match=said) as caught:
        read_frames(meta, ["action"])
    assert caught.value.where == str(path)
    check_episodes(read_frames(meta, ["action"], [2, 0]), expected)


def test_read_frames_unknown_and_no_episodes_are_errors(tmp_path: Path) -> None:
    meta = load_dataset_metadata(tiny_dataset(tmp_path, "v2.1", 3))
    with pytest.raises(DataError, match="has no episode 3, 77"):
        read_frames(meta, ["action"], [0, 3, 77])
    with pytest.raises(DataError, match="no episode is selected"):
        read_frames(meta, ["action"], [])


def test_read_frames_more_files_than_the_table_are_passed_over(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 3)
    lines = (root / "meta/episodes.jsonl").read_text().splitlines()
    (root / "meta/episodes.jsonl").write_text("\n".join(lines[:2]))
    assert read_frames(load_dataset_metadata(root), ["action"]).episode_index.tolist() == [0, 1]


def test_read_frames_linked_snapshot_is_read_like_a_folder(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0", 3)
    blobs = tmp_path / "hub/datasets--a--b/blobs"
    blobs.mkdir(parents=True)
    snapshot = blobs.parent / "snapshots/abc"
    for number, path in enumerate(p for p in sorted(root.rglob("*")) if p.is_file()):
        link = snapshot / path.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / str(number))
        link.symlink_to(
            Path("../" * (len(link.relative_to(snapshot).parts) + 1), "blobs", str(number))
        )
    meta = load_dataset_metadata(snapshot)
    check_episodes(read_frames(meta, ["action"]), plain_actions(snapshot))


def test_iter_frames_opens_each_file_once(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0", 9, episodes_per_file=3)
    meta: DatasetMetadata = load_dataset_metadata(root)
    blocks = list(iter_frames(meta, ["action", "timestamp"], max_rows=10))
    assert len(blocks) > 3
    assert meta.storage.opened["data"] == 3  # type: ignore[attr-defined]
    assert [part.episodes.tolist() for part in data_parts(meta)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
    ]


@pytest.mark.parametrize("name", ["g1_pick_bottle", "so101_record_test"])
def test_read_frames_real_dataset_is_what_pyarrow_reads(tmp_path: Path, name: str) -> None:
    root = copy_real(name, tmp_path)
    meta = load_dataset_metadata(root)
    chosen = [meta.episodes.episode_index[-1], 0, 2]
    block = read_frames(meta, ["action"], chosen)
    expected = plain_actions(root)
    check_episodes(block, {int(e): expected[int(e)] for e in chosen})


@pytest.mark.parametrize(
    ("from_index", "first"),
    [
        (None, [0, 3]),
        ([10, 13], [0, 3]),
        ([10, 15], [0, 5]),  # rows of nobody between them
        ([15, 10], [5, 0]),
        ([10, 12], [0, 3]),  # episodes cannot overlap
    ],
)
def test_first_rows_are_where_the_table_says_unless_episodes_would_overlap(from_index, first):
    index = None if from_index is None else np.array(from_index)
    table = SimpleNamespace(length=np.array([3, 2]), from_index=index)
    meta = SimpleNamespace(episodes=table)
    assert rows._first_rows(meta, np.array([0, 1])).tolist() == first
    assert rows._first_rows(meta, np.array([], dtype=np.int64)).tolist() == []


@pytest.mark.parametrize("length", [1, 4])
def test_an_episode_of_any_length_without_rows_is_data_error(length):
    part = rows.DataPart("f", np.array([0, 1]), np.array([2, length]), np.array([0, 2]))
    with pytest.raises(DataError, match="episode 1 "):
        rows._spans_from_column(np.array([0, 0]), part, "f")
