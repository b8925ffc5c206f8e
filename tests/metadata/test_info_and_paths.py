"""info.json: versions, fps, features, and path templates that nobody should trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import tiny_dataset

from opentau_prep.errors import MetadataError
from opentau_prep.frames import read_frames
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.metadata.paths import fill_template
from opentau_prep.notices import collect_notices

GONE = object()
V2_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"


def set_info(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    info = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in info.items() if v is not GONE}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_dataset(tmp_path, "v2.1")


@pytest.mark.parametrize(
    ("made", "said", "read", "warned"),
    [
        ("v2.0", "v2.0", "v2.0", False),
        ("v2.1", "v2.1", "v2.1", False),
        ("v3.0", "v3.0", "v3.0", False),
        ("v2.1", "2.1", "v2.1", False),
        ("v2.1", GONE, "v2.1", True),
        ("v2.0", GONE, "v2.0", True),
        ("v3.0", GONE, "v3.0", True),
        ("v2.1", "v3.0", "v2.1", True),
        ("v2.0", "v3.0", "v2.0", True),
        ("v3.0", "v2.1", "v3.0", True),
        ("v3.0", "v3.1", "v3.0", True),
        ("v2.1", None, "v2.1", True),
        ("v2.1", 7, "v2.1", True),
        ("v2.1", [[["v2.1"]]], "v2.1", True),
        ("v2.1", "gibberish", "v2.1", True),
        ("v2.1", "v1.6", "v2.1", True),
    ],
)
def test_version_is_what_the_files_are(
    tmp_path: Path, made: Any, said: object, read: str, warned: bool
) -> None:
    root = tiny_dataset(tmp_path, made, name="x")
    set_info(root, codebase_version=said)
    if said == "v3.0" and made != "v3.0":
        set_info(root, data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet")
    with collect_notices() as notices:
        meta = load_dataset_metadata(root)
    assert meta.version == read
    assert [n.kind for n in notices] == ["version_mismatch"] * warned
    assert len(meta.episodes) == 3
    assert read_frames(meta, ["action"]).n_frames == meta.episodes.total_frames


@pytest.mark.parametrize("fps", [30, 29.97, 1e-3])
def test_fps_number_is_kept_as_written(root: Path, fps: float) -> None:
    set_info(root, fps=fps)
    found = load_dataset_metadata(root).fps
    assert found == fps
    assert type(found) is type(fps)


@pytest.mark.parametrize(
    "fps", [0, -1, "30", None, True, [30], 10**400, float("nan"), float("inf"), GONE]
)
def test_fps_anything_else_is_an_error_of_its_own(root: Path, fps: object) -> None:
    set_info(root, fps=fps)
    meta = load_dataset_metadata(root)
    assert len(meta.episodes) == 3
    with pytest.raises(MetadataError, match=r"info\.json: field `fps` "):
        meta.fps  # noqa: B018


@pytest.mark.parametrize(
    "names",
    [["x", "y", "z"], [["x", "y", "z"]], {"axes": ["x", "y", "z"]}, {"x": 0, "y": 1, "z": 2}],
)
def test_features_names_in_any_nesting_are_flattened(root: Path, names: object) -> None:
    feature = {"dtype": "float32", "shape": [3], "names": names}
    set_info(root, features={"state": feature, "actions": {"dtype": "float32"}, "odd": 3})
    features = load_dataset_metadata(root).features
    assert list(features) == ["state", "actions"]
    assert features["state"].names == ("x", "y", "z")
    assert features["state"].shape == (3,)
    assert features["actions"].shape == features["actions"].names == ()


@pytest.mark.parametrize("names", [None, 3, [1, 2], [[[[[["deep"]]]]]], {"a": {"b": 1}}])
def test_features_unusable_names_do_not_stop_anything(root: Path, names: object) -> None:
    set_info(root, features={"state": {"dtype": ["x"], "shape": "3", "names": names}})
    feature = load_dataset_metadata(root).features["state"]
    assert (feature.dtype, feature.shape, feature.is_camera) == ("", (), False)


@pytest.mark.parametrize("features", [GONE, None])
def test_features_absent_are_none(root: Path, features: object) -> None:
    set_info(root, features=features)
    assert load_dataset_metadata(root).features == {}


@pytest.mark.parametrize("features", [[], "x", 3])
def test_features_of_another_schema_are_an_error_of_their_own(root: Path, features: object) -> None:
    set_info(root, features=features)
    meta = load_dataset_metadata(root)
    assert meta.stats
    with pytest.raises(MetadataError, match=r"info\.json: field `features`"):
        meta.features  # noqa: B018


def test_info_of_another_project_is_no_dataset(root: Path) -> None:
    (root / "meta/info.json").write_text('{"name": "other", "version": [1, 2], "fps": null}')
    with pytest.raises(MetadataError, match="is not LeRobot's: its fields are name, version, fps"):
        load_dataset_metadata(root)


def test_info_counts_that_promise_more_do_not_matter(root: Path) -> None:
    set_info(root, total_episodes=105, total_frames=27623, splits={"train": "0:200"})
    meta = load_dataset_metadata(root)
    assert len(meta.episodes) == 3
    assert read_frames(meta, ["action"]).n_frames == 5 + 8 + 11


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not valid JSON (it is empty)"),
        (b"{", "is not valid JSON"),
        (b"[]", "must hold a JSON object, found a list"),
        (b"null", "must hold a JSON object, found null"),
        (b'"x"', "must hold a JSON object, found a string"),
        (b"\x00" * 50, "is not valid JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ('{"é": 1}'.encode("latin-1"), "is not UTF-8 text"),
        (b'{"a":' * 200_000, "nested too deeply"),
    ],
)
def test_info_that_is_no_object_names_the_file(root: Path, content: bytes, said: str) -> None:
    (root / "meta/info.json").write_bytes(content)
    with pytest.raises(MetadataError) as caught:
        load_dataset_metadata(root)
    assert said in str(caught.value)
    assert str(root / "meta/info.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_info_missing_or_a_folder_is_an_error(root: Path) -> None:
    (root / "meta/info.json").unlink()
    with pytest.raises(MetadataError, match="file is missing"):
        load_dataset_metadata(root)
    (root / "meta/info.json").mkdir()
    with pytest.raises(MetadataError, match="is a directory"):
        load_dataset_metadata(root)


def test_info_with_bom_and_bare_nan_is_read(root: Path) -> None:
    text = (root / "meta/info.json").read_text()
    (root / "meta/info.json").write_text("\ufeff" + text.replace("30", "NaN", 1), "utf-8")
    assert len(load_dataset_metadata(root).episodes) == 3


def test_data_path_with_chunk_index_for_episode_chunk_is_understood(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 5, chunks_size=2)
    set_info(root, data_path=V2_PATH.replace("episode_chunk", "chunk_index"))
    meta = load_dataset_metadata(root)
    with collect_notices() as notices:
        paths = meta.data_paths
    assert paths == [f"data/chunk-{e // 2:03d}/episode_{e:06d}.parquet" for e in range(5)]
    assert not notices


@pytest.mark.parametrize(
    "template",
    ["data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "data/{episode_index}.parquet"],
)
def test_data_path_that_leads_nowhere_gives_way_to_the_default(root: Path, template: str) -> None:
    set_info(root, data_path=template)
    meta = load_dataset_metadata(root)
    with collect_notices() as notices:
        assert all((root / rel).is_file() for rel in meta.data_paths)
    assert [n.kind for n in notices] == ["data_path_mismatch"]
    assert template in notices[0].message


@pytest.mark.parametrize(
    "template", ["data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet", "data/x"]
)
def test_data_path_of_v2_in_v3_gives_way_to_the_default(tmp_path: Path, template: str) -> None:
    root = tiny_dataset(tmp_path, "v3.0")
    set_info(root, data_path=template)
    with collect_notices() as notices:
        assert set(load_dataset_metadata(root).data_paths) == {"data/chunk-000/file-000.parquet"}
    assert [n.kind for n in notices] == ["data_path_mismatch"]


def test_data_path_other_layout_is_followed(root: Path) -> None:
    (root / "data").rename(root / "frames")
    set_info(root, data_path=V2_PATH.replace("data/", "frames/"))
    assert read_frames(load_dataset_metadata(root), ["action"]).n_frames == 24


@pytest.mark.parametrize(
    "template",
    [
        "data/{episode_index.__class__}.parquet",
        "data/{episode_index.__init__.__globals__}.parquet",
        "data/{episode_index[0]}.parquet",
        "data/{episode_index!r}.parquet",
        "data/{episode_index:>1000000000d}.parquet",
        "data/{episode_index:0999999999d}.parquet",
        "data/{episode_index:{episode_chunk}}.parquet",
        "data/{}.parquet",
        "data/{0}.parquet",
        "data/{unknown}.parquet",
        "data/{EPISODE_INDEX}.parquet",
        "data/{{episode_index}}.parquet",
        "data/{episode_index.parquet",
        "data/}.parquet",
        "../{episode_index}.parquet",
        "data/../../{episode_index}.parquet",
        "/etc/passwd",
        "C:/{episode_index}",
        "data\\{episode_index}",
        "data/\n{episode_index}",
        "data/\x00",
        "",
        "data/{episode_index" + "x" * 5000 + "}",
    ],
)
def test_data_path_hostile_template_is_refused_in_one_short_line(root: Path, template: str) -> None:
    set_info(root, data_path=template)
    meta = load_dataset_metadata(root)
    with pytest.raises(MetadataError) as caught:
        meta.data_paths  # noqa: B018
    text = str(caught.value)
    assert text.startswith(f"{root}/meta/info.json: path template ")
    assert "\n" not in text
    assert len(text) < len(str(root)) + 400


@pytest.mark.parametrize("value", [3, [], {"a": 1}, True])
def test_data_path_no_string_is_an_error(root: Path, value: object) -> None:
    set_info(root, data_path=value)
    with pytest.raises(MetadataError, match="field `data_path` is"):
        load_dataset_metadata(root).data_paths  # noqa: B018


@pytest.mark.parametrize("size", [0, -5, "1000", 2.5, 10**40, [1]])
def test_chunks_size_unusable_is_an_error(root: Path, size: object) -> None:
    set_info(root, chunks_size=size)
    with pytest.raises(MetadataError, match="field `chunks_size` is"):
        load_dataset_metadata(root).data_paths  # noqa: B018


@pytest.mark.parametrize("size", [GONE, None])
def test_chunks_size_absent_is_a_thousand(root: Path, size: object) -> None:
    set_info(root, chunks_size=size)
    assert all((root / rel).is_file() for rel in load_dataset_metadata(root).data_paths)


def test_fill_template_widths_are_those_of_str_format() -> None:
    template = "a/{episode_chunk}/{episode_chunk:3d}/{episode_index:06d}/{episode_index:02}"
    fields = {"episode_chunk": 7, "episode_index": 12345}
    assert fill_template(template, fields, "x") == template.format(**fields)


def test_repo_id_of_a_relative_root_is_the_folder_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert load_dataset_metadata(".").repo_id == "tiny"
    assert load_dataset_metadata(f"{root}/").repo_id == "tiny"
    assert load_dataset_metadata(root, repo_id="a/b").repo_id == "a/b"
