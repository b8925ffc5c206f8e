"""Datasets of `write_dataset`, read back with nothing but pyarrow and json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from builders import VERSIONS, real_data_dir, tiny_dataset, tiny_episodes

from opentau_prep.demo.spec import ABSENT, DatasetSpec, EpisodeData, Version
from opentau_prep.demo.write import write_dataset
from opentau_prep.errors import ArtifactError, ConfigError

LENGTHS = [5, 8, 11, 4, 9]
CAMERA = "observation.images.top"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def vectors(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(row) for row in table[name].to_pylist()])


def all_frames(root: Path) -> pa.Table:
    files = sorted((root / "data").rglob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def plain(values: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Min, max, mean and std by their definitions, in Python's exact sums."""
    columns = [[float(v) for v in column] for column in values.T]
    means = [math.fsum(c) / len(c) for c in columns]
    squares = [
        math.fsum((v - m) ** 2 for v in c) / len(c) for c, m in zip(columns, means, strict=True)
    ]
    return {
        "min": np.array([min(c) for c in columns]),
        "max": np.array([max(c) for c in columns]),
        "mean": np.array(means),
        "std": np.sqrt(squares),
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_write_dataset_any_version_counts_agree(tmp_path: Path, version: Version) -> None:
    root = tiny_dataset(tmp_path, version, lengths=LENGTHS, chunks_size=2, cameras=(CAMERA,))
    info = read_json(root / "meta/info.json")
    frames = all_frames(root)
    assert info["codebase_version"] == version
    assert info["total_episodes"] == len(LENGTHS) == len(set(frames["episode_index"].to_pylist()))
    assert info["total_frames"] == sum(LENGTHS) == frames.num_rows
    assert info["splits"] == {"train": f"0:{len(LENGTHS)}"}
    assert set(info["features"]) - {CAMERA} == set(frames.column_names)
    assert frames["index"].to_pylist() == list(range(sum(LENGTHS)))
    assert frames["frame_index"].to_pylist() == [i for n in LENGTHS for i in range(n)]
    expected = np.array([i / 30 for n in LENGTHS for i in range(n)], dtype=np.float32)
    np.testing.assert_array_equal(frames["timestamp"].to_numpy(), expected)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("list_type", ["fixed_size_list", "list", "large_list"])
@pytest.mark.parametrize("float_dtype", ["float32", "float64"])
def test_write_dataset_list_types_keep_values(
    tmp_path: Path, version: Version, list_type: str, float_dtype: str
) -> None:
    episodes = tiny_episodes(3)
    root = tiny_dataset(
        tmp_path, version, episodes=episodes, list_type=list_type, float_dtype=float_dtype
    )
    frames = all_frames(root)
    kind = frames.schema.field("action").type
    assert kind.value_type == (pa.float32() if float_dtype == "float32" else pa.float64())
    check = {
        "fixed_size_list": pa.types.is_fixed_size_list,
        "list": pa.types.is_list,
        "large_list": pa.types.is_large_list,
    }[list_type]
    assert check(kind)
    np.testing.assert_array_equal(
        vectors(frames, "observation.state"), np.concatenate([e.state for e in episodes])
    )
    np.testing.assert_array_equal(
        vectors(frames, "action"), np.concatenate([e.actions for e in episodes])
    )
    declared = read_json(root / "meta/info.json")["features"]["action"]
    assert declared["dtype"] == float_dtype
    assert declared["shape"] == [2]


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_write_dataset_v2_puts_episodes_in_chunk_folders(tmp_path: Path, version: Version) -> None:
    root = tiny_dataset(tmp_path, version, lengths=LENGTHS, chunks_size=2)
    info = read_json(root / "meta/info.json")
    assert info["total_chunks"] == 3
    rows = read_lines(root / "meta/episodes.jsonl")
    assert [row["length"] for row in rows] == LENGTHS
    for row in rows:
        index = row["episode_index"]
        path = info["data_path"].format(episode_chunk=index // 2, episode_index=index)
        table = pq.read_table(root / path)
        assert table.num_rows == row["length"]
        assert set(table["episode_index"].to_pylist()) == {index}


def test_write_dataset_v3_row_ranges_are_global(tmp_path: Path) -> None:
    root = tiny_dataset(
        tmp_path, "v3.0", lengths=LENGTHS, episodes_per_file=2, chunks_size=2, rows_per_meta_file=3
    )
    info = read_json(root / "meta/info.json")
    meta_files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    assert len(meta_files) == 2
    rows = [row for file in meta_files for row in pq.read_table(file).to_pylist()]
    assert [row["episode_index"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["dataset_from_index"] for row in rows] == [0, 5, 13, 24, 28]
    assert [row["dataset_to_index"] for row in rows] == [5, 13, 24, 28, 37]
    places = [(row["data/chunk_index"], row["data/file_index"]) for row in rows]
    assert places == [(0, 0), (0, 0), (0, 1), (0, 1), (1, 0)]
    for row, (chunk, file) in zip(rows, places, strict=True):
        path = root / info["data_path"].format(chunk_index=chunk, file_index=file)
        table = pq.read_table(path)
        own = table.filter(pc.equal(table["episode_index"], row["episode_index"]))
        first, last = row["dataset_from_index"], row["dataset_to_index"]
        assert own["index"].to_pylist() == list(range(first, last))
    for file in meta_files:
        chunk, number = (int(part.split("-")[1]) for part in file.with_suffix("").parts[-2:])
        for row in pq.read_table(file).to_pylist():
            assert row["meta/episodes/chunk_index"] == chunk
            assert row["meta/episodes/file_index"] == number


def test_write_dataset_v3_default_shares_one_file(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0", lengths=LENGTHS, episodes_per_row_group=2)
    (file,) = (root / "data").rglob("*.parquet")
    metadata = pq.ParquetFile(file).metadata
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [13, 15, 9]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_write_dataset_episode_stats_describe_episodes(tmp_path: Path, version: Version) -> None:
    episodes = tiny_episodes(3)
    root = tiny_dataset(tmp_path, version, episodes=episodes, quantiles=True, cameras=(CAMERA,))
    if version == "v2.1":
        rows = [row["stats"] for row in read_lines(root / "meta/episodes_stats.jsonl")]
    else:
        table = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet")
        rows = [{} for _ in range(table.num_rows)]
        for name in table.column_names:
            if name.startswith("stats/"):
                _, feature, stat = name.split("/")
                for row, value in zip(rows, table[name].to_pylist(), strict=True):
                    row.setdefault(feature, {})[stat] = value
    for row, episode in zip(rows, episodes, strict=True):
        stats = row["observation.state"]
        for stat, expected in plain(episode.state).items():
            np.testing.assert_allclose(stats[stat], expected, rtol=1e-12, atol=1e-15)
        middle = np.median(episode.state.astype(np.float64), axis=0)
        np.testing.assert_allclose(stats["q50"], middle, rtol=1e-12)
        assert stats["count"] == [len(episode)]
        assert np.shape(row[CAMERA]["mean"]) == (3, 1, 1)
        assert np.shape(row[CAMERA]["count"]) == (1,)
        assert row["index"]["max"][0] - row["index"]["min"][0] == len(episode) - 1


@pytest.mark.parametrize("version", ["v2.0", "v3.0"])
def test_write_dataset_whole_stats_describe_all_frames(tmp_path: Path, version: Version) -> None:
    episodes = tiny_episodes(4)
    root = tiny_dataset(tmp_path, version, episodes=episodes, cameras=(CAMERA,))
    stats = read_json(root / "meta/stats.json")
    actions = np.concatenate([e.actions for e in episodes if e.actions is not None])
    for stat, expected in plain(actions).items():
        np.testing.assert_allclose(stats["action"][stat], expected, rtol=1e-12, atol=1e-15)
    assert set(stats["action"]) == {"min", "max", "mean", "std"} | (
        {"count"} if version == "v3.0" else set()
    )
    if version == "v3.0":
        assert stats["action"]["count"] == [len(actions)]
    assert np.shape(stats[CAMERA]["std"]) == (3, 1, 1)


def test_write_dataset_tags_absent_null_or_present(tmp_path: Path) -> None:
    bare = tiny_dataset(tmp_path, name="a", robot_type=ABSENT)
    null = tiny_dataset(tmp_path, name="b", robot_type=None, control_mode=None)
    full = tiny_dataset(tmp_path, name="c", robot_type="arm", control_mode="joint", fps=12.5)
    info = [read_json(root / "meta/info.json") for root in (bare, null, full)]
    assert not {"robot_type", "control_mode"} & set(info[0])
    assert (info[1]["robot_type"], info[1]["control_mode"]) == (None, None)
    assert (info[2]["robot_type"], info[2]["control_mode"], info[2]["fps"]) == (
        "arm",
        "joint",
        12.5,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_write_dataset_tasks_and_paraphrases_are_kept(tmp_path: Path, version: Version) -> None:
    first, second = tiny_episodes(2, task_indices=[1, 0])
    paraphrased = EpisodeData(second.state, second.actions, 0, task_strings=("grab it",))
    root = tiny_dataset(tmp_path, version, episodes=[first, paraphrased], tasks=("take", "give"))
    if version == "v3.0":
        table = pq.read_table(root / "meta/tasks.parquet")
        assert table.to_pydict() == {"task_index": [0, 1], "__index_level_0__": ["take", "give"]}
        rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    else:
        tasks = read_lines(root / "meta/tasks.jsonl")
        assert tasks == [{"task_index": 0, "task": "take"}, {"task_index": 1, "task": "give"}]
        rows = read_lines(root / "meta/episodes.jsonl")
    assert [row["tasks"] for row in rows] == [["give"], ["grab it"]]
    assert all_frames(root)["task_index"].to_pylist() == [1] * 5 + [0] * 8


def test_write_dataset_v3_tasks_read_by_pandas_have_strings_as_index(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    for column, name in (("__index_level_0__", None), ("task", "task")):
        root = tiny_dataset(tmp_path, "v3.0", name=column, tasks=("a", "b"), task_column=column)
        frame = pandas.read_parquet(root / "meta/tasks.parquet")
        assert frame.index.tolist() == ["a", "b"]
        assert frame.index.name == name
        assert frame["task_index"].tolist() == [0, 1]


def test_write_dataset_extra_and_omitted_columns(tmp_path: Path) -> None:
    (episode,) = tiny_episodes(1)
    extra = {"next.done": np.arange(5) == 4, "timestamp": np.full(5, 7.0, np.float32)}
    root = tiny_dataset(
        tmp_path,
        episodes=[EpisodeData(episode.state, None, extra=extra)],
        state_feature="state",
        omit_columns=("index", "task_index"),
    )
    frames = all_frames(root)
    assert frames.column_names == [
        "state",
        "timestamp",
        "frame_index",
        "episode_index",
        "next.done",
    ]
    assert frames["next.done"].to_pylist() == [False] * 4 + [True]
    assert frames["timestamp"].to_pylist() == [7.0] * 5


@pytest.mark.parametrize("version", VERSIONS)
def test_write_dataset_empty_episode_has_no_rows(tmp_path: Path, version: Version) -> None:
    root = tiny_dataset(tmp_path, version, lengths=[4, 0, 3])
    assert all_frames(root)["episode_index"].to_pylist() == [0] * 4 + [2] * 3


@pytest.mark.parametrize("version", VERSIONS)
def test_write_dataset_twice_gives_the_same_bytes(tmp_path: Path, version: Version) -> None:
    roots = [tiny_dataset(tmp_path, version, name=name, quantiles=True) for name in "ab"]
    files = [sorted(p.relative_to(root) for p in root.rglob("*.*")) for root in roots]
    assert files[0] == files[1]
    for rel in files[0]:
        assert (roots[0] / rel).read_bytes() == (roots[1] / rel).read_bytes()


def test_write_dataset_where_one_is_refuses(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path)
    before = {p: p.read_bytes() for p in root.rglob("*.*")}
    with pytest.raises(ArtifactError, match="dataset already"):
        write_dataset(root, DatasetSpec(), tiny_episodes(2))
    assert before == {p: p.read_bytes() for p in root.rglob("*.*")}


def test_write_dataset_unfit_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one episode"):
        write_dataset(tmp_path / "a", DatasetSpec(), [])
    with pytest.raises(ConfigError, match=r"episode 1: task_index 4"):
        write_dataset(tmp_path / "b", DatasetSpec(), tiny_episodes(2, task_indices=[0, 4]))
    mixed = [*tiny_episodes(1, state_dim=3), *tiny_episodes(1, state_dim=4)]
    with pytest.raises(ConfigError, match=r"episode 1: columns"):
        write_dataset(tmp_path / "c", DatasetSpec(), mixed)
    with pytest.raises(ConfigError, match="differ in length"):
        EpisodeData(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(ConfigError, match="version is 'v1'"):
        DatasetSpec(version="v1")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_write_dataset_v3_schemas_equal_published_ones(tmp_path: Path) -> None:
    real = real_data_dir() / "so101_record_test"
    features = read_json(real / "meta/info.json")["features"]
    cameras = tuple(name for name, feature in features.items() if feature["dtype"] == "video")
    root = tiny_dataset(
        tmp_path, "v3.0", state_dim=6, action_dim=6, cameras=cameras, quantiles=True
    )
    for rel in ("data", "meta/episodes"):
        rel = f"{rel}/chunk-000/file-000.parquet"
        ours, theirs = pq.read_schema(root / rel), pq.read_schema(real / rel)
        assert set(ours.names) == set(theirs.names)
        assert {n: ours.field(n).type for n in ours.names} == {
            n: theirs.field(n).type for n in theirs.names
        }
    assert pq.read_schema(root / "meta/tasks.parquet").equals(
        pq.read_schema(real / "meta/tasks.parquet"), check_metadata=False
    )
    same_shapes(read_json(root / "meta/stats.json"), read_json(real / "meta/stats.json"))
    same_info(root, real)


def test_write_dataset_v21_files_look_like_published_ones(tmp_path: Path) -> None:
    real = real_data_dir() / "g1_pick_bottle"
    camera = "observation.images.cam_high"
    root = tiny_dataset(tmp_path, "v2.1", state_dim=26, action_dim=26, cameras=(camera,))
    rel = "data/chunk-000/episode_000000.parquet"
    ours, theirs = pq.read_schema(root / rel), pq.read_schema(real / rel)
    assert ours.equals(theirs, check_metadata=True)
    for rel in ("meta/episodes.jsonl", "meta/tasks.jsonl"):
        assert list(read_lines(root / rel)[0]) == list(read_lines(real / rel)[0])
    ours_row, theirs_row = (read_lines(r / "meta/episodes_stats.jsonl")[0] for r in (root, real))
    assert list(ours_row) == list(theirs_row)
    same_shapes(ours_row["stats"], theirs_row["stats"])
    same_info(root, real)


def same_shapes(ours: Any, theirs: Any) -> None:
    def shapes(stats: Any) -> Any:
        return {f: {s: np.shape(v) for s, v in one.items()} for f, one in stats.items()}

    assert shapes(ours) == shapes(theirs)


def same_info(root: Path, real: Path) -> None:
    ours, theirs = (read_json(r / "meta/info.json") for r in (root, real))
    assert list(ours) == list(theirs)
    for name in ("data_path", "video_path", "chunks_size", "fps"):
        assert ours[name] == theirs[name]
    for name, feature in theirs["features"].items():
        mine = ours["features"][name]
        assert (mine["dtype"], mine["shape"]) == (feature["dtype"], feature["shape"])
