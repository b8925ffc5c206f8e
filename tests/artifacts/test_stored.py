from __future__ import annotations

from pathlib import Path

import pytest
from fake_stores import fake_store

from opentau_prep.artifacts.fingerprint import (
    MISSING,
    file_inputs,
    hash_files,
    stored_hashes,
    stored_inputs,
)
from opentau_prep.artifacts.place import (
    StoredFile,
    check_artifact_root,
    dataset_place,
    files_beside,
)
from opentau_prep.artifacts.provenance import Recipe
from opentau_prep.artifacts.store import State, inspect, publish
from opentau_prep.errors import ArtifactError
from opentau_prep.storage import open_storage

FILES = {"b/ds/data/a": b"aa", "b/ds/data/c": b"ccc"}
RELS = ["data/a", "data/c", "data/none"]
ROOT = "fake://b/ds"


@pytest.fixture
def store():
    with fake_store("fake", FILES) as found:
        yield found


def test_stored_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_bytes(b"aa")
    storage = open_storage(tmp_path)
    assert stored_hashes(storage, RELS) == hash_files(tmp_path, RELS)
    assert stored_inputs(storage, RELS) == file_inputs(tmp_path, RELS)


def test_stored_inputs_of_a_store_download_nothing(store) -> None:
    first = stored_inputs(open_storage(ROOT), RELS)
    assert (first["files"], first["bytes"]) == (3, 5)
    assert set(first["each"]) == set(RELS)
    assert stored_hashes(open_storage(ROOT), RELS)["data/none"] == MISSING
    assert stored_inputs(open_storage(ROOT), RELS) == first
    store.facts = {"ETag": "other"}
    assert stored_inputs(open_storage(ROOT), RELS)["sha256"] != first["sha256"]
    assert store.asked == []


def test_stored_inputs_where_nothing_is_told_reads_only_if_allowed(store, tmp_path: Path) -> None:
    store.facts = {}
    assert stored_inputs(open_storage(ROOT), RELS, read=False) == {"files": 3, "bytes": 5}
    assert store.asked == []
    (tmp_path / "data").mkdir()
    for name in ("a", "c"):
        (tmp_path / "data" / name).write_bytes(FILES[f"b/ds/data/{name}"])
    # The content's own hash: what a local copy has.
    assert stored_inputs(open_storage(ROOT), RELS) == file_inputs(tmp_path, RELS)


def test_dataset_place_in_a_store_needs_an_artifact_root(store) -> None:
    with pytest.raises(ArtifactError, match=r"fake://b/ds: .*--artifact-root DIR"):
        dataset_place("stats", open_storage(ROOT))
    with pytest.raises(ArtifactError, match="--artifact-root DIR"):
        check_artifact_root(["/a", ROOT], None)
    check_artifact_root(["/a", "file:///b"], None)
    check_artifact_root([ROOT], Path("A"))


def test_inspect_looks_into_the_store_next(store, tmp_path: Path) -> None:
    storage = open_storage(ROOT)
    place = dataset_place("stats", storage, artifact_root=tmp_path)
    assert place.path == tmp_path / "ds/meta/stats.json"
    recipe = Recipe("stats", {"n": 1})
    assert inspect(place, recipe).state is State.MISSING
    store.files["b/ds/meta/stats.json"] = b"{}"
    place = dataset_place("stats", open_storage(ROOT), artifact_root=tmp_path)
    found = inspect(place, recipe)
    assert (found.state, found.content) == (State.FOREIGN, b"{}")
    assert str(found.path) == "fake://b/ds/meta/stats.json"
    before = dict(store.files)
    assert publish(place, b"[]", recipe, force=True).status == "written"
    assert inspect(place, recipe).path == place.path
    assert store.files == before


def test_files_beside_are_those_of_the_folder_only(store) -> None:
    for name in ("x-1.json", "x-2.json", "y-1.json", "sub/x-3.json"):
        store.files[f"b/ds/meta/delta_stats/{name}"] = b""
    here = StoredFile(open_storage(ROOT), "meta/delta_stats/x-0.json")
    assert [file.name for file in files_beside(here, "x-", ".json")] == ["x-1.json", "x-2.json"]
