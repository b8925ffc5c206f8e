"""Where datasets are looked for, which episodes an entry selects, and mixtures with their data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import tiny_dataset

from opentau_prep.config.load import load_mixture
from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.metadata.locate import locate_dataset
from opentau_prep.metadata.resolve import ResolvedMixture, resolve_mixture
from opentau_prep.metadata.select import select_episodes, selected_stats
from opentau_prep.notices import collect_notices


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "HF_OPENTAU_HOME", "HF_LEROBOT_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


def place(folder: Path) -> Path:
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text("{}")
    return folder


def snapshot(cache: Path, commit: str, ref: str | None = None) -> Path:
    if ref is not None:
        (cache / "refs").mkdir(parents=True, exist_ok=True)
        (cache / "refs" / ref).write_text(commit + "\n")
    return place(cache / "snapshots" / commit)


def test_locate_root_from_the_working_directory_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = place(tmp_path / "config/sets/a")
    monkeypatch.chdir(tmp_path)
    json_dir = tmp_path / "config"
    assert Path(locate_dataset(repo_id="x/y", root="sets/a", json_dir=json_dir)) == beside
    here = place(tmp_path / "sets/a")
    found = locate_dataset(repo_id="x/y", root="sets/a", json_dir=json_dir)
    assert Path(found).resolve() == here


def test_locate_repo_id_tries_the_homes_in_order(empty_home: Path, tmp_path: Path) -> None:
    usual = empty_home / ".cache/huggingface"
    order = [
        snapshot(usual / "hub/datasets--own--er", "abc123", "main"),
        place(usual / "lerobot/own/er"),
        place(usual / "opentau/own/er"),
    ]
    for expected in (order[2], order[1], order[0]):
        assert locate_dataset(repo_id="own/er", root=None, environ={}) == str(expected)
        (expected / "meta/info.json").unlink()
    given = place(tmp_path / "given/own/er")
    for name in ("HF_OPENTAU_HOME", "HF_LEROBOT_HOME"):
        environ = {name: str(tmp_path / "given")}
        assert locate_dataset(repo_id="own/er", root=None, environ=environ) == str(given)


def test_locate_homes_follow_hf_home(tmp_path: Path) -> None:
    home = place(tmp_path / "hf/lerobot/own/er")
    assert locate_dataset(
        repo_id="own/er", root=None, environ={"HF_HOME": f"{tmp_path}/hf"}
    ) == str(home)


@pytest.mark.parametrize("revision", [None, "v1.0", "feature/x", "abc123"])
def test_locate_snapshot_is_the_one_of_the_revision(tmp_path: Path, revision: str | None) -> None:
    cache = tmp_path / "datasets--own--er"
    snapshot(cache, "other000", "dev")
    (cache / "refs/feature").mkdir(parents=True)
    ref = revision if revision not in (None, "abc123") else "main"
    expected = snapshot(cache, "abc123", ref)
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    found = locate_dataset(repo_id="own/er", root=None, revision=revision, environ=environ)
    assert found == str(expected)


def test_locate_snapshot_reference_that_leaves_the_cache_is_passed_over(tmp_path: Path) -> None:
    place(tmp_path / "outside")
    cache = tmp_path / "datasets--own--er"
    (cache / "refs").mkdir(parents=True)
    for text in ("../../outside", str(tmp_path / "outside"), ".."):
        (cache / "refs/main").write_text(text)
        with pytest.raises(MetadataError, match="not found"):
            locate_dataset(repo_id="own/er", root=None, environ={"HF_HUB_CACHE": str(tmp_path)})


def test_locate_not_found_lists_every_place_once(tmp_path: Path) -> None:
    with pytest.raises(MetadataError) as caught:
        locate_dataset(repo_id="own/er", root=None, environ={})
    text = str(caught.value)
    for name in ("opentau/own/er", "lerobot/own/er", "hub/datasets--own--er/snapshots/main"):
        assert text.count(f".cache/huggingface/{name}") == 1
    assert "--download" in text
    with pytest.raises(MetadataError) as caught:
        locate_dataset(repo_id="own/er", root="gone", json_dir=tmp_path)
    assert f"in gone, {tmp_path}/gone. Correct the path" in str(caught.value)
    assert "\n" not in text + str(caught.value)


@pytest.mark.parametrize(
    "repo_id",
    ["../x", "a/../b", "/etc", "a//b", ".", "..", "a\\b", "C:x", "a/\n", "", "~/x", "a/\ud800"],
)
def test_locate_repo_id_that_leaves_the_cache_is_refused(repo_id: str) -> None:
    with pytest.raises(ConfigError, match="is not a hub id") as caught:
        locate_dataset(repo_id=repo_id, root=None, environ={})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("root", ["x" * 5000, "a\x00b", "\ud800", "~nobody-here/x", "a\nb"])
def test_locate_impossible_root_is_not_found(root: str, tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="not found") as caught:
        locate_dataset(repo_id=None, root=root, json_dir=tmp_path)
    str(caught.value).encode("utf-8")


def test_select_episodes_sorted_without_the_excluded(tmp_path: Path) -> None:
    table = load_dataset_metadata(tiny_dataset(tmp_path, "v2.1", 6)).episodes
    assert select_episodes(table, where="x").tolist() == [0, 1, 2, 3, 4, 5]
    found = select_episodes(table, episodes=[5, 0, 3], excluded_episodes=[3, 99], where="x")
    assert found.tolist() == [0, 5]
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("episodes", "excluded", "said"),
    [
        ([0, 6, 7], None, "episodes that the dataset does not have: 6, 7 (it has 6)"),
        ([1], [1], "no episode is left of 1"),
        (None, range(6), "no episode is left of 6"),
        ([], None, "no episode is left of 0"),
        (range(30), None, "and 14 more"),
    ],
)
def test_select_episodes_nothing_or_unknown_names_the_entry(
    tmp_path: Path, episodes: Any, excluded: Any, said: str
) -> None:
    table = load_dataset_metadata(tiny_dataset(tmp_path, "v2.1", 6)).episodes
    with pytest.raises(ConfigError) as caught:
        select_episodes(table, episodes=episodes, excluded_episodes=excluded, where="m.json: x")
    assert said in str(caught.value)
    assert str(caught.value).startswith("m.json: x")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_selected_stats_weigh_the_selected_by_count(tmp_path: Path, version: Any) -> None:
    root = tiny_dataset(tmp_path, version, 20)
    meta = load_dataset_metadata(root)
    chosen = np.arange(1, 20, 2)
    own = [meta.episodes_stats[int(e)]["action"] for e in chosen]
    counts = np.array([s["count"] for s in own], dtype=np.float64)
    found = selected_stats(meta, chosen)["action"]
    means = np.array([s["mean"] for s in own])
    np.testing.assert_allclose(found["mean"], (counts * means).sum(0) / counts.sum(), rtol=1e-12)
    np.testing.assert_array_equal(found["min"], np.min([s["min"] for s in own], axis=0))
    assert found["count"] == counts.sum()
    assert selected_stats(meta, None) is meta.stats


def drop_last_stats(root: Path) -> None:
    path = root / "meta/episodes_stats.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def empty_last_stats(root: Path) -> None:
    drop_last_stats(root)
    with open(root / "meta/episodes_stats.jsonl", "a") as file:
        file.write('{"episode_index": 2, "stats": {}}\n')


@pytest.mark.parametrize("damage", [drop_last_stats, empty_last_stats])
def test_selected_stats_missing_for_an_episode_falls_back_with_a_notice(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    root = tiny_dataset(tmp_path, "v2.1", 3)
    damage(root)
    meta = load_dataset_metadata(root)
    with collect_notices() as notices:
        assert selected_stats(meta, np.array([0, 1]))["action"]["count"] == 5 + 8
        assert not notices
        assert selected_stats(meta, np.array([1, 2])) is meta.stats
    assert [n.kind for n in notices] == ["whole_stats_for_selection"]


def test_selected_stats_v20_stands_in_with_a_notice(tmp_path: Path) -> None:
    meta = load_dataset_metadata(tiny_dataset(tmp_path, "v2.0", 3))
    with collect_notices() as notices:
        assert selected_stats(meta, np.array([1])) is meta.stats
    assert [n.kind for n in notices] == ["whole_stats_for_selection"]


def resolve(tmp_path: Path, *entries: dict[str, Any]) -> ResolvedMixture:
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"datasets": list(entries), "weights": None}))
    return resolve_mixture(load_mixture(path))


def test_resolve_mixture_shares_metadata_and_names_entries(tmp_path: Path) -> None:
    tiny_dataset(tmp_path, "v2.1", name="one", robot_type="arm", control_mode="joint")
    tiny_dataset(tmp_path, "v3.0", name="two", robot_type=None)
    mixture = resolve(
        tmp_path,
        {"repo_id": "a/x", "root": "one", "episodes": [2, 0]},
        {"vqa": "pictures"},
        {"repo_id": "a/x", "root": "one", "control_mode": ""},
        {"repo_id": "a/y", "root": "two", "robot_type": "hand"},
    )
    assert mixture.vqa == ("pictures",)
    assert [e.name for e in mixture.entries] == ["a/x#0", "a/x#1", "a/y"]
    assert [e.index for e in mixture.entries] == [0, 2, 3]
    first, second, third = mixture.entries
    assert first.meta is second.meta
    assert first.episodes.tolist() == [0, 2]
    assert first.is_subset
    assert not second.is_subset
    assert (first.robot_type, first.control_mode) == ("arm", "joint")
    assert (second.control_mode, third.robot_type, third.control_mode) == ("", "hand", None)
    assert first.name_map.columns == {"state": "observation.state", "actions": "action"}
    assert first.stats["action"]["count"] == 5 + 11


def test_resolve_mixture_lists_all_that_cannot_be_opened(tmp_path: Path) -> None:
    broken = tiny_dataset(tmp_path, "v2.1", name="broken")
    (broken / "meta/info.json").write_text("[]")
    with pytest.raises(MetadataError) as caught:
        resolve(
            tmp_path,
            {"repo_id": "a/x", "root": "gone"},
            {"repo_id": "a/y", "root": "broken"},
        )
    assert "2 datasets cannot be opened" in str(caught.value)
    assert "found a list" in str(caught.value)


def test_resolve_mixture_tag_that_is_no_string_is_an_error(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1", name="one")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "robot_type": ["arm"]}))
    entry = resolve(tmp_path, {"repo_id": "a/x", "root": "one"}).entries[0]
    with pytest.raises(MetadataError, match="field `robot_type` is a list of 1"):
        entry.robot_type  # noqa: B018


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_describe_inputs_changes_with_content_only(tmp_path: Path, version: Any) -> None:
    root = tiny_dataset(tmp_path, version, name="a")
    same = tiny_dataset(tmp_path, version, name="b")
    before = describe_inputs(load_dataset_metadata(root))
    assert describe_inputs(load_dataset_metadata(same)) == before
    other = tiny_dataset(tmp_path, version, 4, name="c")
    after = describe_inputs(load_dataset_metadata(other))
    assert (before["episodes"]["count"], after["episodes"]["count"]) == (3, 4)
    assert before["data"]["sha256"] != after["data"]["sha256"]
    assert "data" not in describe_inputs(load_dataset_metadata(root), data=False)
