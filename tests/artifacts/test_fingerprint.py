from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from opentau_prep.artifacts.fingerprint import (
    MISSING,
    cache_dir,
    cache_left_alone,
    file_inputs,
    hash_files,
)
from opentau_prep.artifacts.provenance import changes_in_common, describe_changes
from opentau_prep.errors import DataError

SETTLE_S = 0.06


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("OPENTAU_PREP_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    for i in range(3):
        path = folder / "data" / f"{i}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([i]) * (1 << 20) + b"tail")
    time.sleep(SETTLE_S)
    return folder


RELS = [f"data/{i}.parquet" for i in range(3)]


def test_hash_files_is_sha256_of_content_in_order(root: Path) -> None:
    expected = {rel: hashlib.sha256((root / rel).read_bytes()).hexdigest() for rel in RELS[::-1]}
    found = hash_files(root, RELS[::-1])
    assert found == expected
    assert list(found) == RELS[::-1]


def test_hash_files_second_time_opens_nothing(root: Path) -> None:
    opened: list[str] = []
    first = hash_files(root, RELS, opened=opened.append)
    assert sorted(opened) == RELS
    opened.clear()
    assert hash_files(root, RELS, opened=opened.append) == first
    assert opened == []


def test_hash_files_changed_file_is_read_again_whatever_its_times(root: Path) -> None:
    hash_files(root, RELS)
    path = root / RELS[1]
    times = path.stat()
    path.write_bytes(b"\x07" * times.st_size)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    opened: list[str] = []
    found = hash_files(root, RELS, opened=opened.append)
    assert opened == [RELS[1]]
    assert found[RELS[1]] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_hash_files_just_changed_file_is_not_remembered(root: Path) -> None:
    (root / RELS[0]).write_bytes(b"new")
    opened: list[str] = []
    for _ in range(2):
        (root / RELS[0]).touch()
        hash_files(root, [RELS[0]], opened=opened.append)
    assert opened == [RELS[0]] * 2


def test_hash_files_coarse_clock_waits_longer(root: Path) -> None:
    # A file system whose times have no fine part cannot tell two changes within two seconds.
    from opentau_prep.artifacts.fingerprint import _just_changed

    def found(times_s: float) -> os.stat_result:
        ns = int(times_s * 1e9)
        fields = dict.fromkeys(("st_mtime_ns", "st_ctime_ns"), ns)
        return type("Stat", (), fields)()  # type: ignore[return-value]

    now = int(100.5e9)
    assert _just_changed(found(99.0), now)
    assert not _just_changed(found(98.0), now)
    assert not _just_changed(found(100.123456789), now)
    assert _just_changed(found(100.483456789), now)


def test_hash_files_missing_file_is_recorded(root: Path) -> None:
    assert hash_files(root, ["data/9.parquet", "data/0.parquet/x"]) == {
        "data/9.parquet": MISSING,
        "data/0.parquet/x": MISSING,
    }


def test_hash_files_folder_or_pipe_is_a_data_error(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for rel in ("data", "pipe"):
        with pytest.raises(DataError, match=rel):
            hash_files(root, [rel])


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"version": 1, "files": 3}', b'{"version": 99}', b"\xff"]
)
def test_hash_files_corrupt_cache_is_no_cache(root: Path, cache: Path, damage: bytes) -> None:
    first = hash_files(root, RELS)
    (file,) = (cache / "fingerprints").iterdir()
    file.write_bytes(damage)
    opened: list[str] = []
    assert hash_files(root, RELS, opened=opened.append) == first
    assert sorted(opened) == RELS


def test_hash_files_corrupt_entry_is_read_again(root: Path, cache: Path) -> None:
    first = hash_files(root, RELS)
    (file,) = (cache / "fingerprints").iterdir()
    content = json.loads(file.read_bytes())
    content["files"][RELS[0]] = ["x"]
    content["files"][RELS[1]][4] = None
    file.write_text(json.dumps(content))
    assert hash_files(root, RELS) == first


def test_hash_files_unwritable_cache_is_no_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("OPENTAU_PREP_CACHE_DIR", str(tmp_path / "file" / "x"))
    assert set(hash_files(root, RELS)) == set(RELS)


def test_file_inputs_copy_has_the_same_fingerprint(root: Path, tmp_path: Path) -> None:
    first = file_inputs(root, RELS)
    shutil.copytree(root, tmp_path / "copy")
    assert file_inputs(tmp_path / "copy", RELS[::-1]) == first
    assert first["files"] == 3
    assert first["bytes"] == 3 * ((1 << 20) + 4)


def test_file_inputs_changes_are_told_in_words(root: Path) -> None:
    old = {"data": file_inputs(root, RELS)}
    (root / RELS[0]).write_bytes(b"other")
    (root / RELS[2]).unlink()
    assert describe_changes(old, {"data": file_inputs(root, RELS)}) == [
        "data changed (2 of 3 files)"
    ]
    assert describe_changes(old, {"data": file_inputs(root, RELS[1:2])}) == ["data files 3 -> 1"]


def test_cache_dir_follows_the_environment() -> None:
    assert cache_dir({"OPENTAU_PREP_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/opentau-prep")
    assert cache_dir({}) == Path.home() / ".cache" / "opentau-prep"


def test_cache_left_alone_writes_nothing_and_reads_no_file_twice(root: Path, cache: Path) -> None:
    opened: list[str] = []
    with cache_left_alone():
        first = hash_files(root, RELS, opened=opened.append)
        with cache_left_alone():
            assert hash_files(root, RELS, opened=opened.append) == first
        assert not cache.exists()
    assert sorted(opened) == sorted(RELS)
    with cache_left_alone(False):
        hash_files(root, RELS)
    (file,) = (cache / "fingerprints").iterdir()
    before = file.read_bytes()
    with cache_left_alone():
        hash_files(root, RELS[:1], opened=opened.append)
        assert len(opened) == len(RELS)  # what the cache knows is used
    assert file.read_bytes() == before


def test_file_inputs_without_reading_tells_sizes_until_hashes_are_remembered(
    root: Path, cache: Path
) -> None:
    sizes = sum((root / rel).stat().st_size for rel in RELS)
    unread = file_inputs(root, RELS, read=False)
    assert unread == {"files": len(RELS), "bytes": sizes}
    assert not cache.exists()
    known = file_inputs(root, RELS)
    assert file_inputs(root, RELS, read=False) == known
    assert changes_in_common({"data": known}, {"data": unread}) == []
    (root / RELS[0]).write_bytes(b"longer than it was before")
    now = file_inputs(root, RELS, read=False)
    assert changes_in_common({"data": known}, {"data": now}) == ["data changed"]


def test_changes_in_common_passes_over_what_only_one_side_knows() -> None:
    old = {"episodes": {"count": 19, "sha256": "a"}, "gone": 1, "data": {"files": 2, "sha256": "b"}}
    new = {"episodes": {"count": 20}, "new": 2, "data": {"files": 2}}
    assert changes_in_common(old, new) == ["episodes 19 -> 20"]
