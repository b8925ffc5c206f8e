from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.artifacts.catalog import CATALOG
from opentau_prep.artifacts.place import dataset_place, file_place, safe_folder_name
from opentau_prep.artifacts.provenance import Provenance, describe_changes
from opentau_prep.errors import ConfigError

FIELDS = {"recipe": "0a1b-chunk50", "mixture_id": "mix-0a1b2c3d4e5f", "file": "chunk-000/file-000"}


def test_catalog_paths_are_below_meta_and_distinct() -> None:
    paths = [spec.path(**FIELDS) for spec in CATALOG.values()]
    provenance = [spec.provenance_path(**FIELDS) for spec in CATALOG.values()]
    assert len(set(paths)) == len(set(provenance)) == len(CATALOG)
    assert all(str(path).startswith("meta/") for path in paths)
    assert all(str(path).startswith("meta/prep/") for path in provenance)


def test_dataset_place_names_and_paths(tmp_path: Path) -> None:
    head = dataset_place("norm_head", tmp_path, mixture_id="v1.2-0a1b")
    assert head.path == tmp_path / "meta/norm_heads/v1.2-0a1b.json"
    assert head.provenance_path == tmp_path / "meta/prep/norm_heads/v1.2-0a1b.json"
    assert head.name == "norm_heads/v1.2-0a1b"
    episodes = dataset_place("episodes", tmp_path, file="chunk-000/file-001")
    assert episodes.provenance_path == tmp_path / "meta/prep/episodes/chunk-000/file-001.json"


def test_file_place_no_two_files_share_a_provenance(tmp_path: Path) -> None:
    names = ["x.json", "x.csv", "x", "x.csv.json", "x.prep", "x.JSON", "y.json", ".json"]
    beside = [file_place("a", tmp_path / name).provenance_path for name in names]
    assert beside[0] == tmp_path / "x.prep.json"
    assert len({*beside, *(tmp_path / name for name in names)}) == 2 * len(names)


@pytest.mark.parametrize("bad", ["", "..", "a/../b", "/etc", "a//b", "a\\b", "a\x00b", "./a"])
def test_dataset_place_field_that_leaves_its_folder_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError, match="mixture_id"):
        dataset_place("norm_head", tmp_path, mixture_id=bad)


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=0, max_size=40))
def test_safe_folder_name_stays_below_its_root(name: str) -> None:
    parts = safe_folder_name(name).split("/")
    assert len(parts) <= 2
    assert all(part not in ("", ".", "..") and part.isascii() for part in parts)
    assert all(len(part) <= 120 for part in parts)


def test_safe_folder_name_keeps_usual_names_and_never_merges_two() -> None:
    assert safe_folder_name("lerobot/aloha_sim-v1.0") == "lerobot/aloha_sim-v1.0"
    names = [
        "a b",
        "a_b",
        "a:b",
        "a#1",
        "a/b",
        "a/b/c",
        "a_b_c",
        "../a",
        "a",
        "a/meta",
        "meta",
        ".a",
        "A",
    ]
    names += [safe_folder_name(name) for name in names if safe_folder_name(name) != name]
    assert len({safe_folder_name(name) for name in names}) == len(set(names))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"episodes": {"count": 19}}, {"episodes": {"count": 19}}, []),
        (
            {"episodes": {"count": 19, "frames": 4958, "sha256": "a"}},
            {"episodes": {"sha256": "b", "frames": 27623, "count": 105}},
            ["frames 4,958 -> 27,623", "episodes 19 -> 105"],
        ),
        (
            {"tasks": {"count": 1, "sha256": "a"}},
            {"tasks": {"count": 1, "sha256": "b"}},
            ["tasks changed"],
        ),
        (
            {"data": {"files": 2, "bytes": 9, "each": {"a": "1", "b": "1"}}},
            {"data": {"files": 3, "bytes": 8, "each": {"a": "1", "b": "2", "c": "1"}}},
            ["data files 2 -> 3", "data changed (1 of 3 files)"],
        ),
        ({"a": 1, "gone": 1}, {"a": 1, "new": 1}, ["new added", "gone removed"]),
        (
            {"scale": 10, "on": True},
            {"scale": 20, "on": False},
            ["scale 10 -> 20", "on true -> false"],
        ),
        ({"x": "a" * 99}, {"x": {"count": 1}}, ["x changed"]),
        ({"a": float("nan")}, {"a": float("nan")}, []),
        ({"e": {"count": "19"}}, {"e": {"count": 3}}, ["e changed"]),
    ],
)
def test_describe_changes_in_words(
    old: dict[str, object], new: dict[str, object], words: list[str]
) -> None:
    assert describe_changes(old, new) == words


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_from_bytes_damaged_record_never_raises(data: st.DataObject) -> None:
    record = Provenance("stats", 1, "opentau-prep", "0.1.0", "stats", {"q": [0.5]}, "ab", {"n": 1})
    whole = record.to_bytes()
    assert Provenance.from_bytes(whole) == record
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    found = Provenance.from_bytes(cut)
    assert found is None or isinstance(found.sha256, str)
