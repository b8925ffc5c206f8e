"""The storage of local folders: what it refuses, and in which words."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opentau_prep.errors import ConfigError, DataError, MetadataError
from opentau_prep.storage import LocalStorage, open_storage

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    (tmp_path / "meta").mkdir()
    (tmp_path / "data/chunk-000").mkdir(parents=True)
    return LocalStorage(tmp_path)


def write_table(storage: LocalStorage, rel: str = "data/x.parquet") -> Path:
    path = storage.root / rel
    pq.write_table(pa.table({"a": list(range(1000)), "b": ["text"] * 1000}), path)
    return path


@pytest.mark.parametrize(
    "rel",
    [
        "../secret",
        "data/../../secret",
        "/etc/passwd",
        "",
        "..",
        "C:/x",
        "data\\..\\x",
        "data/a\x00b",
        "data/a\nb",
        "data/\ud800",
    ],
)
@pytest.mark.parametrize("method", ["read_bytes", "exists", "size", "open_parquet", "path"])
def test_any_method_path_that_leaves_the_root_is_refused(
    storage: LocalStorage, method: str, rel: str
) -> None:
    with pytest.raises(DataError) as caught:
        getattr(storage, method)(rel)
    assert "\n" not in str(caught.value)
    str(caught.value).encode("utf-8")


def test_path_below_meta_that_leaves_the_root_is_a_metadata_error(storage: LocalStorage) -> None:
    with pytest.raises(MetadataError):
        storage.read_bytes("meta/../../x")


@pytest.mark.parametrize("rel", ["meta/a b.json", "meta/..a", "meta/é.json", "meta/a..b/c"])
def test_read_bytes_unusual_names_are_read(storage: LocalStorage, rel: str) -> None:
    path = storage.root / rel
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"content")
    assert storage.read_bytes(rel) == b"content"
    assert storage.exists(rel)
    assert storage.size(rel) == 7


def test_read_bytes_missing_names_the_file(storage: LocalStorage) -> None:
    with pytest.raises(MetadataError, match="missing") as caught:
        storage.read_bytes("meta/none.json")
    assert caught.value.where == str(storage.root / "meta/none.json")
    assert storage.size("meta/none.json") is None
    assert not storage.exists("meta/none.json")


@pytest.mark.parametrize("method", ["read_bytes", "open_parquet"])
def test_folder_in_place_of_a_file_is_said_so(storage: LocalStorage, method: str) -> None:
    (storage.root / "data/x.parquet").mkdir()
    assert not storage.exists("data/x.parquet")
    with pytest.raises(DataError, match="is a directory"):
        getattr(storage, method)("data/x.parquet")


@pytest.mark.parametrize("method", ["read_bytes", "open_parquet"])
def test_pipe_in_place_of_a_file_does_not_block(storage: LocalStorage, method: str) -> None:
    os.mkfifo(storage.root / "data/x.parquet")
    with pytest.raises(DataError, match="not a regular file"):
        getattr(storage, method)("data/x.parquet")


def test_loop_of_links_is_an_error(storage: LocalStorage) -> None:
    (storage.root / "meta/info.json").symlink_to(storage.root / "meta/info.json")
    assert not storage.exists("meta/info.json")
    with pytest.raises(MetadataError, match="cannot be read"):
        storage.read_bytes("meta/info.json")


def test_name_too_long_is_an_error(storage: LocalStorage) -> None:
    rel = "meta/" + "x" * 300
    assert not storage.exists(rel)
    with pytest.raises(MetadataError, match="cannot be read"):
        storage.read_bytes(rel)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (LFS, "is a Git LFS pointer (130 bytes of text)"),
        (b"hello world, no parquet here", "is not a whole parquet file (28 bytes)"),
        (b"PAR1" + b"\x00" * 100, "is a truncated or damaged parquet file (104 bytes)"),
        (b"PAR1\x00\x00\x00\x00PAR1", "is a truncated or damaged parquet file (12 bytes)"),
        (b"PAR1\xff\xff\xff\x7fPAR1", "is a truncated or damaged parquet file (12 bytes)"),
    ],
)
def test_open_parquet_of_something_else_says_what_it_is(
    storage: LocalStorage, content: bytes, found: str
) -> None:
    (storage.root / "data/x.parquet").write_bytes(content)
    with pytest.raises(DataError) as caught:
        storage.open_parquet("data/x.parquet")
    assert caught.value.message.startswith(found)
    assert caught.value.where == str(storage.root / "data/x.parquet")
    assert caught.value.hint


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_open_parquet_truncated_is_named(storage: LocalStorage, share: float) -> None:
    path = write_table(storage)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="truncated or damaged"):
        storage.open_parquet("data/x.parquet")


def test_read_table_damaged_page_is_an_error(storage: LocalStorage) -> None:
    path = write_table(storage)
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196  # the first page; the footer still promises it
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        storage.read_table("data/x.parquet")


def test_read_table_columns_and_row_groups_are_those_asked_for(storage: LocalStorage) -> None:
    table = pa.table({"a": range(10), "b": range(10)})
    pq.write_table(table, storage.root / "data/x.parquet", row_group_size=4)
    file = storage.open_parquet("data/x.parquet")
    found = storage.read_table("data/x.parquet", ["b"], row_groups=[2, 0], file=file)
    assert found.to_pydict() == {"b": [8, 9, 0, 1, 2, 3]}
    assert storage.column_names("data/x.parquet", file) == ["a", "b"]
    assert storage.opened == {"data": 1}


def test_list_files_links_and_loops_gives_each_file_once(storage: LocalStorage) -> None:
    (storage.root / "data/chunk-000/b.parquet").touch()
    (storage.root / "data/chunk-000/a.parquet").touch()
    (storage.root / "data/chunk-000/.hidden.parquet").touch()
    (storage.root / "data/chunk-000/note.txt").touch()
    elsewhere = storage.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "c.parquet").touch()
    (storage.root / "data/chunk-001").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(storage.root / "data")
    assert storage.list_files("data", ".parquet") == [
        "data/chunk-000/a.parquet",
        "data/chunk-000/b.parquet",
        "data/chunk-001/c.parquet",
    ]
    assert storage.list_files("nothing/here") == []
    assert storage.list_files("data/chunk-000/a.parquet") == []


def test_read_without_permission_is_named_by_file() -> None:
    code = textwrap.dedent(
        """
        import os, tempfile
        from pathlib import Path
        import pyarrow.parquet  # while this process may still read Python's own files
        from opentau_prep.errors import PrepError
        from opentau_prep.metadata.locate import locate_dataset
        from opentau_prep.storage import LocalStorage

        root = Path(tempfile.mkdtemp())
        os.chmod(root, 0o755)
        for name in ("meta/sub", "data", "closed/meta"):
            (root / name).mkdir(parents=True)
        for name in ("meta/info.json", "data/x.parquet", "closed/meta/info.json"):
            (root / name).write_text("{}")
            os.chmod(root / name, 0)
        os.chmod(root / "meta/sub", 0)
        os.chmod(root / "closed", 0)
        if os.geteuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        storage = LocalStorage(root)
        asked = [
            lambda: storage.read_bytes("meta/info.json"),
            lambda: storage.open_parquet("data/x.parquet"),
            lambda: storage.list_files("meta/sub"),
            lambda: storage.read_bytes("closed/meta/info.json"),
            lambda: locate_dataset(repo_id=None, root=str(root / "closed")),
        ]
        for ask in asked:
            try:
                print("read", ask())
            except PrepError as error:
                print(type(error).__name__, error)
        """
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    kinds = [line.split()[0] for line in lines if "Error" in line.split()[0]]
    assert kinds == ["MetadataError", "DataError", "MetadataError", "DataError", "MetadataError"]
    assert all("permission denied" in line for line in lines[:4])


def test_open_storage_file_url_is_a_folder(tmp_path: Path) -> None:
    assert open_storage(f"file://{tmp_path}").url == str(tmp_path)
    assert open_storage(tmp_path).url == str(tmp_path)


@pytest.mark.parametrize("root", ["a\x00b", "\ud800"])
def test_open_storage_impossible_name_is_a_config_error(root: str) -> None:
    with pytest.raises(ConfigError, match="folder's name"):
        open_storage(root)
