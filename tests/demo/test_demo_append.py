"""`append_episode`: a dataset that grows stays a whole dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import VERSIONS, copy_real, tiny_dataset, tiny_episodes

from opentau_prep.demo.append import append_episode
from opentau_prep.demo.spec import Version
from opentau_prep.errors import ConfigError, MetadataError

CAMERA = "observation.images.top"


def files_of(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def read_info(root: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((root / "meta/info.json").read_text())
    return info


def episodes_table(root: Path) -> list[dict[str, Any]]:
    if (root / "meta/episodes").is_dir():
        files = sorted((root / "meta/episodes").glob("*/*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]
    lines = (root / "meta/episodes.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def schemas(root: Path) -> set[str]:
    """The data files' schemas, as text: one, if all is well."""
    found = (pq.read_schema(file) for file in (root / "data").rglob("*.parquet"))
    return {schema.to_string(truncate_metadata=False) for schema in found}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("list_type", ["fixed_size_list", "large_list"])
def test_append_episode_equals_writing_all_at_once(
    tmp_path: Path, version: Version, list_type: str
) -> None:
    """With one episode a file the grown dataset is, byte for byte, the one written whole."""
    episodes = tiny_episodes(5, task_indices=[0, 1, 0, 1, 1])
    options: dict[str, Any] = {
        "chunks_size": 2,
        "list_type": list_type,
        "float_dtype": "float64",
        "quantiles": True,
        "episodes_per_file": 1,
        "rows_per_meta_file": 1,
    }
    whole = tiny_dataset(tmp_path, version, name="whole", episodes=episodes, **options)
    grown = tiny_dataset(tmp_path, version, name="grown", episodes=episodes[:3], **options)
    for episode in episodes[3:]:
        append_episode(grown, episode)
    assert set(files_of(grown)) == set(files_of(whole))
    for rel, content in files_of(whole).items():
        if rel.endswith(".parquet"):
            ours, theirs = pq.read_table(grown / rel), pq.read_table(whole / rel)
            assert ours.equals(theirs, check_metadata=True), rel
        else:
            assert files_of(grown)[rel] == content, rel


def test_append_episode_v3_leaves_old_files_untouched(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0", cameras=(CAMERA,))
    before = files_of(root)
    append_episode(root, tiny_episodes(1)[0])
    after = files_of(root)
    changed = {rel for rel in before if after[rel] != before[rel]}
    assert changed == {"meta/info.json", "meta/stats.json"}
    assert set(after) - set(before) == {
        "data/chunk-000/file-001.parquet",
        "meta/episodes/chunk-000/file-001.parquet",
    }
    last, previous = episodes_table(root)[-1], episodes_table(root)[-2]
    assert (last["dataset_from_index"], last["dataset_to_index"]) == (24, 29)
    assert last[f"stats/{CAMERA}/mean"] == previous[f"stats/{CAMERA}/mean"]


def test_append_episode_without_update_leaves_stats_behind(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0")
    before = (root / "meta/stats.json").read_bytes()
    append_episode(root, tiny_episodes(1)[0], update_stats=False)
    assert (root / "meta/stats.json").read_bytes() == before
    append_episode(root, tiny_episodes(1)[0])
    assert json.loads((root / "meta/stats.json").read_text())["action"]["count"] == [34]


@pytest.mark.parametrize(
    ("name", "dim", "n_before", "frames_before"),
    [("g1_pick_bottle", 26, 100, 35_965), ("so101_record_test", 6, 4, 1_492)],
)
def test_append_episode_to_a_published_dataset_keeps_its_form(
    tmp_path: Path, name: str, dim: int, n_before: int, frames_before: int
) -> None:
    root = copy_real(name, tmp_path)
    (episode,) = tiny_episodes(1, state_dim=dim, action_dim=dim)
    schemas_before = schemas(root)
    append_episode(root, episode)
    info = read_info(root)
    assert info["total_episodes"] == n_before + 1
    assert info["total_frames"] == frames_before + 5
    assert info["splits"] == {"train": f"0:{n_before + 1}"}
    rows = episodes_table(root)
    assert [row["episode_index"] for row in rows] == list(range(n_before + 1))
    assert rows[-1]["tasks"] == rows[0]["tasks"]
    assert schemas(root) == schemas_before
    added = pq.read_table(sorted((root / "data").rglob("*.parquet"))[-1])
    np.testing.assert_array_equal(np.stack(added["action"].to_pylist()), episode.actions)
    assert added["index"].to_pylist() == list(range(frames_before, frames_before + 5))


def test_append_episode_to_a_published_dataset_updates_its_stats(tmp_path: Path) -> None:
    root = copy_real("so101_record_test", tmp_path)
    old = json.loads((root / "meta/stats.json").read_text())
    (episode,) = tiny_episodes(1, state_dim=6, action_dim=6)
    append_episode(root, episode)
    new = json.loads((root / "meta/stats.json").read_text())
    tables = [pq.read_table(f, columns=["action"]) for f in (root / "data").rglob("*.parquet")]
    actions = np.stack(pa.concat_tables(tables)["action"].to_pylist()).astype(np.float64)
    np.testing.assert_allclose(new["action"]["mean"], actions.mean(axis=0), rtol=1e-12)
    assert new["action"]["count"] == [1497]
    assert {f: set(s) for f, s in new.items()} == {f: set(s) for f, s in old.items()}
    camera = "observation.images.front"
    assert new[camera] == old[camera]


@pytest.mark.parametrize("version", VERSIONS)
def test_append_episode_that_does_not_fit_changes_nothing(tmp_path: Path, version: Version) -> None:
    root = tiny_dataset(tmp_path, version)
    before = files_of(root)
    with pytest.raises(ConfigError, match=r"observation\.state.* 4 wide, the dataset 3"):
        append_episode(root, tiny_episodes(1, state_dim=4)[0])
    with pytest.raises(ConfigError, match="task_index 5"):
        append_episode(root, tiny_episodes(1, task_indices=[5])[0])
    assert files_of(root) == before


def test_append_episode_without_a_dataset_says_so(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="complete LeRobot dataset"):
        append_episode(tmp_path, tiny_episodes(1)[0])
