from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from opentau_prep.storage.identity import identity_of

SHA = "ab" * 32


def test_identity_of_hub_lfs_file_is_its_sha256() -> None:
    assert identity_of({"size": 5, "lfs": {"sha256": SHA}, "blob_id": "x"}) == SHA
    assert identity_of({"size": 5, "lfs": SimpleNamespace(sha256=SHA)}) == SHA


def test_identity_of_checksum_hides_the_time() -> None:
    info = {"size": 5, "ETag": '"a1"'}
    assert identity_of({**info, "LastModified": 1}) == identity_of({**info, "LastModified": 2})


@pytest.mark.parametrize(
    "change",
    [{"size": 6}, {"ETag": '"a2"'}, {"md5Hash": "other"}],
)
def test_identity_of_other_content_differs(change) -> None:
    info = {"size": 5, "ETag": '"a1"', "LastModified": 1}
    assert identity_of({**info, **change}) != identity_of(info)


def test_identity_of_time_counts_where_nothing_else_is_told() -> None:
    times = [datetime(2024, 1, day, tzinfo=timezone.utc) for day in (1, 2)]
    first, second = (identity_of({"size": 5, "last_modified": time}) for time in times)
    assert first != second
    assert first is not None
    assert len(first) == 64


@pytest.mark.parametrize("info", [{"size": 5}, {"size": 5, "ETag": None, "mtime": ""}])
def test_identity_of_nothing_told_is_none(info) -> None:
    assert identity_of(info) is None
