"""Within a run nothing is read twice, and nothing that was written meanwhile is missed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from builders import VERSIONS, tiny_dataset
from fake_stores import fake_store, upload

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.config.load import mixture_from_roots
from opentau_prep.engine import get_engine, map_ordered
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.storage import LocalStorage, look, open_storage
from opentau_prep.storage.look import looking_anew, one_look


def test_what_is_there_is_seen_as_without_a_look(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0")
    (root / "meta/link.json").symlink_to(root / "meta/info.json")
    (root / "meta/broken.json").symlink_to(root / "meta/nowhere.json")
    os.mkfifo(root / "meta/pipe.json")
    names = ["info.json", "link.json", "broken.json", "pipe.json", "episodes", "none/x.json"]
    plain = LocalStorage(root)
    with one_look():
        seen = LocalStorage(root)
        for rel in [f"meta/{name}" for name in names] + ["data", "data/x.parquet"]:
            assert seen.exists(rel) is plain.exists(rel), rel
            assert seen.size(rel) == plain.size(rel), rel
        for folder in ("meta", "meta/episodes", "data", "videos"):
            assert seen.list_files(folder) == plain.list_files(folder)
        assert seen.list_files("meta", ".parquet") == plain.list_files("meta", ".parquet")


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny_dataset(tmp_path, "v2.1")
    read: Counter[str] = Counter()
    really = look.read_file
    monkeypatch.setattr(
        look, "read_file", lambda path, *more: (read.update([path]), really(path, *more))[1]
    )
    with one_look():
        for _ in range(3):
            meta = load_dataset_metadata(root)
            assert (len(meta.episodes) > 0, len(load_dataset_metadata(root).tasks) > 0) == (
                True,
            ) * 2
            assert LocalStorage(root).read_bytes("meta/info.json")
    assert read
    assert max(read.values()) == 1


def test_stat_of_a_file_that_was_read_asks_nothing(tmp_path, monkeypatch):
    file = tmp_path / "info.json"
    file.write_bytes(b"{}")
    with one_look():
        look.file_bytes(file)
        monkeypatch.setattr(look.os, "stat", lambda path: pytest.fail(str(path)))
        found = look.file_stat(file)
    assert found is not None
    assert (found.st_size, found.st_ino) == (2, os.lstat(file).st_ino)


def test_own_writes_are_seen_at_once(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1")
    with one_look():
        storage = open_storage(root)
        before = load_dataset_metadata(root)
        assert not storage.exists("meta/prep/x.json")
        assert len(before.tasks)
        write_atomic(root / "meta/prep/x.json", b"1")
        assert storage.exists("meta/prep/x.json")
        assert storage.read_bytes("meta/prep/x.json") == b"1"
        write_atomic(root / "meta/prep/x.json", b"22")
        assert (storage.read_bytes("meta/prep/x.json"), storage.size("meta/prep/x.json")) == (
            b"22",
            2,
        )
        assert load_dataset_metadata(root) is not before


def test_files_of_a_replaced_folder_are_seen_though_it_was_never_listed(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text(name)
    with one_look():
        assert look.file_bytes(tmp_path / "old/x.json") == b"old"
        (tmp_path / "old").rename(tmp_path / "kept")
        (tmp_path / "new").rename(tmp_path / "old")
        look.forget(tmp_path / "old")
        assert look.file_bytes(tmp_path / "old/x.json") == b"new"


def test_writes_by_another_spelling_of_the_folder_are_seen(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1")
    (tmp_path / "link").symlink_to(root)
    with one_look():
        storage = LocalStorage(root)
        assert not storage.exists("meta/x.json")
        write_atomic(tmp_path / "link/meta/x.json", b"1")
        assert storage.read_bytes("meta/x.json") == b"1"


def test_writes_of_workers_are_seen(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1")
    with one_look():
        storage = LocalStorage(root)
        assert not storage.exists("meta/prep/1.json")
        paths = [root / "meta/prep/1.json", root / "meta/prep/2.json"]
        map_ordered(_write, paths, labels=["1", "2"], engine=get_engine(workers=2))
        assert storage.read_bytes("meta/prep/1.json") == b"worker"
        assert storage.exists("meta/prep/2.json")


def _write(path: Path) -> None:
    write_atomic(path, b"worker")


def test_others_writes_are_seen_by_who_looks_anew(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v2.1")
    with one_look():
        storage = LocalStorage(root)
        before = storage.read_bytes("meta/info.json")
        (root / "meta/info.json").write_bytes(b"{}")
        assert storage.read_bytes("meta/info.json") == before
        with looking_anew():
            assert storage.read_bytes("meta/info.json") == b"{}"


def test_large_files_and_many_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "MAX_FILE_BYTES", 10)
    for i in range(4):
        (tmp_path / str(i)).write_bytes(b"x" * (5 + 5 * i))
    with one_look() as seen:
        seen.room = 12
        for i in range(4):
            assert len(look.file_bytes(tmp_path / str(i))) == 5 + 5 * i
        assert seen.room == 7
        seen.forget(str(tmp_path / "0"))
        assert seen.room == 12


@pytest.mark.parametrize("version", VERSIONS)
def test_datasets_in_stores_are_read_in_few_requests(tmp_path: Path, version: str) -> None:
    names = [f"d{i}" for i in range(3)]
    with fake_store("fake", concurrent=True) as store:
        for name in names:
            upload(store, tiny_dataset(tmp_path, version, name=name), f"bucket/{name}")
        with one_look():
            for _ in range(2):
                mixture = mixture_from_roots([f"fake://bucket/{name}" for name in names])
                for dataset in resolve_mixture(mixture).datasets:
                    assert dataset.meta.tasks
                    assert len(dataset.meta.stats) > 0
                    assert dataset.present == dataset.declared
        assert Counter(store.listed) == dict.fromkeys(
            [f"bucket/{name}/{top}" for name in names for top in ("meta", "data")], 1
        )
        assert len(set(store.asked)) == len(store.asked) <= 5 * len(names)
        assert not [path for path, *_ in store.asked if "/data/" in path]


def test_empty_folder_is_believed_where_another_can_be_listed() -> None:
    with fake_store("fake", {"bucket/ds/meta/info.json": b"{}"}, concurrent=True) as store:
        storage = open_storage("fake://bucket/ds")
        assert storage.exists("meta/info.json")
        store.fault = lambda what, path: pytest.fail(path) if what == "info" else None
        assert not [i for i in range(20) if storage.exists(f"videos/{i}.mp4")]
