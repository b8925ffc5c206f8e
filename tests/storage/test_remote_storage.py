from __future__ import annotations

import hashlib
import io
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import VERSIONS, tiny_dataset
from fake_stores import fake_store, upload
from fsspec.registry import _registry

from opentau_prep.errors import ConfigError, DataError, EngineError, MetadataError, PrepError
from opentau_prep.frames import read_frames
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.storage import LocalStorage, driver, open_storage
from opentau_prep.storage import remote as remote_module
from opentau_prep.storage.remote import RemoteStorage

ROWS = 40_000


@pytest.fixture(params=[False, True], ids=["blocking", "concurrent"])
def store(request):
    with fake_store("fake", concurrent=request.param) as found:
        yield found


@pytest.fixture
def remote() -> RemoteStorage:
    return RemoteStorage("fake://bucket/ds")


@pytest.fixture
def wide(store, tmp_path: Path) -> tuple[str, Path]:
    """One data file of eight columns of 320 KB each."""
    rng = np.random.default_rng(0)
    path = tmp_path / "wide.parquet"
    columns = {f"c{i}": rng.random(ROWS) for i in range(8)}
    pq.write_table(pa.table(columns), path, row_group_size=ROWS // 4, use_dictionary=False)
    store.files["bucket/ds/data/wide.parquet"] = path.read_bytes()
    return "data/wide.parquet", path


@pytest.mark.parametrize("version", VERSIONS)
def test_remote_dataset_reads_as_the_local_one(store, remote, tmp_path: Path, version) -> None:
    root = tiny_dataset(tmp_path, version)
    upload(store, root, "bucket/ds")
    here, there = load_dataset_metadata(root), load_dataset_metadata("fake://bucket/ds/")
    assert there.root == "fake://bucket/ds"
    assert there.repo_id == "ds"
    assert there.version == version
    assert there.tasks == here.tasks
    assert there.episodes.length.tolist() == here.episodes.length.tolist()
    assert list(there.data_paths) == list(here.data_paths)
    a, b = (read_frames(meta, ["observation.state", "action"]) for meta in (here, there))
    for name, values in a.columns.items():
        np.testing.assert_array_equal(b.columns[name], values)
    assert list(there.storage.list_files("meta")) == list(here.storage.list_files("meta"))


def test_read_bytes_exists_and_size_as_local(store, remote) -> None:
    store.files["bucket/ds/meta/info.json"] = b"{}"
    store.files["bucket/ds/meta/.hidden"] = b""
    assert remote.read_bytes("meta/info.json") == b"{}"
    assert remote.exists("meta/info.json")
    assert not remote.exists("meta/other.json")
    assert not remote.exists("meta")
    assert (remote.size("meta/info.json"), remote.size("meta/no")) == (2, None)
    assert remote.list_files("meta") == ["meta/info.json"]
    assert remote.list_files("videos") == []
    assert remote.opened == {"meta": 1}


def test_listing_is_asked_once_a_folder(store, remote) -> None:
    for i in range(50):
        store.files[f"bucket/ds/data/chunk-000/e{i}.parquet"] = b"x" * i
    assert [remote.size(f"data/chunk-000/e{i}.parquet") for i in range(50)] == list(range(50))
    assert remote.list_files("data", ".parquet")
    assert store.listed == ["bucket/ds/data"]
    assert store.asked == []


def test_list_files_of_one_folder_only(store, remote) -> None:
    for name in ("meta/episodes/a.parquet", "meta/episodes2/b.parquet", "meta/tasks.parquet"):
        store.files[f"bucket/ds/{name}"] = b""
    assert remote.list_files("meta/episodes", ".parquet") == ["meta/episodes/a.parquet"]


def test_read_table_fetches_only_its_columns(store, remote, wide) -> None:
    rel, path = wide
    table = remote.read_table(rel, ["c1", "c5"])
    assert table.equals(pq.read_table(path, columns=["c1", "c5"]))
    read, whole = store.bytes_read(f"bucket/ds/{rel}"), path.stat().st_size
    assert 0.25 * whole <= read <= 0.25 * whole + 2 * (64 << 10)
    assert sum(remote.opened.values()) == 1


def test_read_table_fetches_only_its_row_groups(store, remote, wide) -> None:
    rel, path = wide
    file = remote.open_parquet(rel)
    table = remote.read_table(rel, ["c0"], row_groups=[2], file=file)
    assert table.num_rows == ROWS // 4
    assert store.bytes_read(f"bucket/ds/{rel}") <= path.stat().st_size / 32 + 2 * (64 << 10)


def test_open_parquet_reads_the_footer_only(store, remote, wide) -> None:
    rel, _ = wide
    assert remote.open_parquet(rel).metadata.num_rows == ROWS
    assert store.bytes_read(f"bucket/ds/{rel}") == 64 << 10


def episodes(n: int, size: int = 0) -> dict[str, bytes]:
    """Return `n` parquet files of one column, as v2.1 keeps episodes."""
    found = {}
    for i in range(n):
        sink = io.BytesIO()
        pq.write_table(pa.table({"x": np.full(100, i), "pad": ["y" * size] * 100}), sink)
        found[f"bucket/ds/data/chunk-000/episode_{i:06d}.parquet"] = sink.getvalue()
    return found


def test_small_files_opened_in_order_take_few_round_trips() -> None:
    with fake_store("fake", episodes(100), concurrent=True) as store:
        remote = RemoteStorage("fake://bucket/ds")
        for i, rel in enumerate(remote.list_files("data")):
            assert remote.read_table(rel, ["x"]).column(0)[0].as_py() == i
        assert store.rounds <= 12
        assert sum(b - a for _, a, b in store.asked) == sum(map(len, store.files.values()))


def test_small_files_opened_here_and_there_fetch_nothing_in_vain() -> None:
    with fake_store("fake", episodes(40), concurrent=True) as store:
        remote = RemoteStorage("fake://bucket/ds")
        rels = remote.list_files("data")
        for i in (30, 3, 17, 9, 2, 39, 0):
            assert remote.read_table(rels[i], ["x"]).column(0)[0].as_py() == i
        assert len(store.asked) == 7


def test_read_ahead_fault_of_the_next_file_is_told_when_it_is_opened() -> None:
    with fake_store("fake", episodes(8), concurrent=True) as store:
        remote = RemoteStorage("fake://bucket/ds")
        rels = remote.list_files("data")

        def fault(what: str, path: str) -> None:
            if path.endswith("000005.parquet"):
                raise PermissionError("denied")

        store.fault = fault
        for rel in rels[:5]:
            remote.open_parquet(rel)
        with pytest.raises(DataError, match="no access") as caught:
            remote.open_parquet(rels[5])
        assert str(caught.value.where).endswith("000005.parquet")
        assert remote.read_table(rels[6]).num_rows == 100


def test_read_ahead_by_threads_gives_each_its_file() -> None:
    with fake_store("fake", episodes(60), concurrent=True):
        remote = RemoteStorage("fake://bucket/ds")
        rels = remote.list_files("data")
        with ThreadPoolExecutor(6) as pool:
            tables = list(pool.map(lambda rel: remote.read_table(rel, ["x"]), rels))
        assert [table.column(0)[0].as_py() for table in tables] == list(range(60))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"junk" * 40, "not a whole parquet file"),
        (b"PAR1" + b"x" * 500, "truncated or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
    ],
)
def test_open_parquet_damage_is_told(store, remote, content: bytes, said: str) -> None:
    store.files["bucket/ds/data/a.parquet"] = content
    with pytest.raises(DataError, match=said) as caught:
        remote.open_parquet("data/a.parquet")
    assert caught.value.where == "fake://bucket/ds/data/a.parquet"


def test_open_parquet_missing_is_told(store, remote) -> None:
    with pytest.raises(DataError, match="missing"):
        remote.open_parquet("data/a.parquet")


def test_read_table_file_that_shrank_is_told(store, remote, wide) -> None:
    rel, path = wide
    remote.exists(rel)
    store.files[f"bucket/ds/{rel}"] = path.read_bytes()[:1000]
    with pytest.raises(DataError, match="shorter than its store declares"):
        remote.read_table(rel, ["c0"])


@pytest.mark.parametrize("rel", ["../x", "/etc/passwd", "meta/../../x", "a\\b"])
def test_paths_that_leave_the_root_are_refused(store, remote, rel: str) -> None:
    for ask in (remote.read_bytes, remote.exists, remote.size, remote.open_parquet):
        with pytest.raises(PrepError):
            ask(rel)
    with pytest.raises(PrepError):
        remote.list_files(rel)
    assert store.asked == []


class NoCredentialsError(Exception):
    """Like that of a driver's own package."""


class EndpointConnectionError(Exception):
    """Like that of a driver's own package."""


class HttpError(Exception):
    """Like that of a driver's own package."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answer {status}")
        self.status = status


@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        (FileNotFoundError("The specified bucket does not exist"), "bucket", "Correct the root"),
        (FileNotFoundError("bucket/ds/meta/info.json"), "missing", "Correct the root"),
        (HttpError(404), "missing", "Correct the root"),
        (PermissionError("Access Denied"), "no access .*Access Denied", "credentials"),
        (HttpError(403), "no access", "Log in"),
        (NoCredentialsError("Unable to locate credentials"), "no access", "Log in"),
        (EndpointConnectionError("Could not connect"), "Could not connect", "network"),
        (TimeoutError(), "TimeoutError", "network"),
        (ConnectionResetError(104, "reset by peer"), "reset by peer", "network"),
        (RuntimeError("odd\nsecond line"), r"cannot be read \(odd\)", ""),
    ],
)
def test_driver_errors_are_told_in_our_words(store, remote, error, said: str, hint: str) -> None:
    def fault(what: str, path: str) -> None:
        raise error

    store.files["bucket/ds/meta/info.json"] = b"{}"
    store.fault = fault
    with pytest.raises(MetadataError, match=said) as caught:
        remote.read_bytes("meta/info.json")
    assert caught.value.where == "fake://bucket/ds/meta/info.json"
    assert hint in (caught.value.hint or "")
    with pytest.raises(MetadataError):
        remote.list_files("meta") if not isinstance(error, FileNotFoundError) else (
            remote.read_bytes("meta/info.json")
        )


def test_driver_error_while_arrow_reads_is_told(store, remote, wide) -> None:
    rel, _ = wide
    file = remote.open_parquet(rel)

    def fault(what: str, path: str) -> None:
        raise ConnectionError("gone")

    store.fault = fault
    with pytest.raises(DataError, match="gone"):
        remote.read_table(rel, ["c0"], file=file)


def test_driver_error_shows_no_credentials(store, remote) -> None:
    def fault(what: str, path: str) -> None:
        raise OSError("cannot reach https://me:S3CRET@proxy/x?sig=S3CRET")

    store.files["bucket/ds/meta/info.json"] = b"{}"
    store.fault = fault
    with pytest.raises(MetadataError, match=r"proxy/x") as caught:
        remote.read_bytes("meta/info.json")
    assert "S3CRET" not in str(caught.value)


def test_who_may_not_list_can_read(store, remote) -> None:
    def fault(what: str, path: str) -> None:
        if what == "list":
            raise PermissionError("list")

    store.files["bucket/ds/meta/info.json"] = b"{}"
    store.fault = fault
    assert remote.exists("meta/info.json")
    assert not remote.exists("meta/no.json")
    with pytest.raises(MetadataError, match="no access"):
        remote.list_files("meta")


def test_known_digest_reads_nothing(store, remote) -> None:
    store.files["bucket/ds/data/a"] = b"abc"
    first = remote.known_digest("data/a")
    assert first is not None
    assert remote.known_digest("data/no") is None
    store.facts = {"ETag": '"e2"'}
    assert RemoteStorage(remote.url).known_digest("data/a") != first
    assert store.asked == []


def test_content_digest_where_the_store_tells_nothing(store, remote) -> None:
    store.files["bucket/ds/data/a"] = b"abc" * 4_000_000
    store.facts = {}
    assert remote.known_digest("data/a") is None
    expected = hashlib.sha256(store.files["bucket/ds/data/a"]).hexdigest()
    assert remote.content_digest("data/a") == expected
    assert max(stop - start for _, start, stop in store.asked) <= 8 << 20
    assert remote.known_digest("data/a") == expected


def test_storage_travels_without_its_listings(store, remote) -> None:
    store.files["bucket/ds/meta/a"] = b"1"
    assert remote.exists("meta/a")
    store.files["bucket/ds/meta/b"] = b"2"
    assert not remote.exists("meta/b")
    other = pickle.loads(pickle.dumps(remote))
    assert other.url == remote.url
    assert other.exists("meta/b")


def test_memory_files_written_by_fsspec_are_read() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe({"/prep-test/ds/meta/info.json": b"{}", "/prep-test/ds/data/x/y.parquet": b"p"})
    try:
        storage = open_storage("memory://prep-test/ds")
        assert storage.read_bytes("meta/info.json") == b"{}"
        assert list(storage.list_files("data", ".parquet")) == ["data/x/y.parquet"]
        assert storage.known_digest("data/x/y.parquet") is not None
        assert not storage.exists("meta/none")
    finally:
        fs.rm("/prep-test", recursive=True)


def test_local_url_through_fsspec_equals_the_folder(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path, "v3.0")
    there, here = open_storage(f"local://{root}"), open_storage(root)
    assert isinstance(there, RemoteStorage)
    assert isinstance(here, LocalStorage)
    for folder in ("meta", "data"):
        assert list(there.list_files(folder)) == list(here.list_files(folder))
        for rel in here.list_files(folder):
            assert there.read_bytes(rel) == here.read_bytes(rel)


def test_fsspec_missing_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(EngineError, match=r"opentau-prep\[remote\]"):
        load_dataset_metadata("s3://bucket/ds")


@pytest.mark.parametrize(
    ("root", "package"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs"), ("abfs://c@a/x", "adlfs")]
)
def test_driver_missing_names_its_package(monkeypatch, root: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, root.partition(":")[0], raising=False)
    with pytest.raises(EngineError, match=f"pip install {package}"):
        load_dataset_metadata(root)


def test_unknown_protocol_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no driver is known for nope://"):
        load_dataset_metadata("nope://b/x")


def silent(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let requests have 0.2 s; return the event that lets faults go on."""
    monkeypatch.setenv("OPENTAU_PREP_STORE_TIMEOUT_S", "0.2")
    monkeypatch.setattr(driver, "_silent_since", {})
    return threading.Event()


def test_silent_store_is_named_within_the_limit_and_not_asked_again(store, monkeypatch) -> None:
    go_on = silent(monkeypatch)
    for root in ("bucket/ds", "bucket/other"):
        store.files[f"{root}/meta/info.json"] = b"{}"
    asked = []

    def fault(what: str, path: str) -> None:
        asked.append(path)
        go_on.wait(5)

    store.fault = fault
    try:
        with pytest.raises(MetadataError, match=r"no answer within 0\.2 s.*STORE_TIMEOUT_S"):
            load_dataset_metadata("fake://bucket/ds")
        # Another root of the same bucket fails at once; what was asked for was asked once.
        with pytest.raises(MetadataError, match="no answer"):
            RemoteStorage("fake://bucket/other").read_bytes("meta/info.json")
        assert len(asked) == 1
    finally:
        go_on.set()


def test_one_slow_file_does_not_make_its_store_silent(monkeypatch) -> None:
    # The concurrent fake would hold up its event loop, and so all requests.
    with fake_store("fake") as store:
        _ask_for_a_slow_file(store, monkeypatch)


def _ask_for_a_slow_file(store, monkeypatch) -> None:
    go_on = silent(monkeypatch)
    store.files["bucket/ds/meta/info.json"] = b"{}"
    store.files["bucket/ds/meta/slow.json"] = b"{}"
    remote = RemoteStorage("fake://bucket/ds")

    def fault(what: str, path: str) -> None:
        if path.endswith("slow.json"):
            go_on.wait(5)

    store.fault = fault
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(remote.read_bytes, "meta/slow.json")
        for _ in range(30):
            remote.read_bytes("meta/info.json")
            time.sleep(0.01)
        with pytest.raises(MetadataError, match="no answer"):
            slow.result()
        assert remote.read_bytes("meta/info.json") == b"{}"
        go_on.set()


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_timeout_that_is_no_number_of_seconds_is_a_config_error(monkeypatch, text: str) -> None:
    monkeypatch.setenv("OPENTAU_PREP_STORE_TIMEOUT_S", text)
    with pytest.raises(ConfigError, match="number of seconds above 0"):
        RemoteStorage("fake://bucket/ds")


def test_large_ranges_come_in_pieces(store, remote, wide, monkeypatch) -> None:
    monkeypatch.setattr(remote_module, "_BLOCK_BYTES", 10_000)
    monkeypatch.setattr(remote_module, "_REQUEST_BYTES", 35_000)
    rel, path = wide
    assert remote.read_table(rel).equals(pq.read_table(path))
    assert max(stop - start for _, start, stop in store.asked) <= 64 << 10
    assert len(store.asked) > path.stat().st_size / 10_000
