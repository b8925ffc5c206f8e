import json

import pytest

from opentau_prep.errors import ConfigError
from opentau_prep.storage import open_storage
from opentau_prep.storage.urls import check_url, is_remote, safe_url, scheme_of
from opentau_prep.text import printable, without_secrets


@pytest.mark.parametrize(
    ("root", "remote"),
    [
        ("s3://bucket/ds", True),
        ("HF://datasets/o/n", True),
        ("simplecache::s3://bucket/ds", True),
        ("local:///abs", True),
        ("file:///abs", False),
        ("/abs/path", False),
        ("relative/a::b", False),
        ("c://drive", False),
        ("odd/s3://x", False),
    ],
)
def test_is_remote_only_urls_of_stores(root: str, remote: bool) -> None:
    assert is_remote(root) is remote


def test_scheme_of_is_lower_case() -> None:
    assert scheme_of("S3://b/x") == "s3"


@pytest.mark.parametrize("root", ["s3://b/x/", "s3://b/x//", "s3://b/x"])
def test_check_url_slash_at_the_end_is_dropped(root: str) -> None:
    assert check_url(root) == "s3://b/x"


@pytest.mark.parametrize(
    "root",
    [
        "abfs://container@account/ds",
        "sftp://user@host/ds",
        "github://org:repo@main/ds",
        "hf://datasets/o/n@v2",
    ],
)
def test_check_url_names_before_an_at_are_no_secret(root: str) -> None:
    assert check_url(root) == root


@pytest.mark.parametrize(
    "root",
    [
        "s3://KEY:S3CRET@bucket/ds",
        "ftp://user:S3CRET@host/ds",
        "simplecache::ftp://user:S3CRET@host/ds",
        "zip://x::s3://k:S3CRET@b/a.zip",
        "https://S3CRET@host/ds",
        "https://host/ds?sig=S3CRET",
        "s3://b/ds?X-Amz-Signature=S3CRET",
        "s3://b/ds#S3CRET",
        "s3://K:S3/CRET@bucket/ds",
        "hf://S3CRET@datasets/o/n",
        "github://o:S3CRET@main/ds",
        "github://o:ghp_S3CRETs3cret@main/ds",
        "s3://b/ds%3FX-Amz-Signature=S3CRET",
        "s3://b/ds%23S3CRET",
        "s3://KEY%3AS3CRET%40bucket/ds",
        "s3://KEY%3aS3CRET%40more%40bucket/ds",
    ],
)
def test_check_url_secrets_are_refused_and_not_shown(root: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url(root)
    assert "CRET" not in f"{caught.value} {caught.value.where} {caught.value.hint}"
    assert "CRET" not in safe_url(root)


@pytest.mark.parametrize(
    "root",
    ["file://u:S3CRET@h/ds", "s3:/K:S3CRET@b/ds", "file:///a?k=S3CRET", "s3:/b/ds?k=S3CRET"],
)
def test_safe_url_hides_secrets_in_what_is_taken_for_a_path(root: str) -> None:
    assert "S3CRET" not in safe_url(root)
    assert "S3CRET" not in printable(f"no meta/info.json in {root}")
    assert "S3CRET" not in printable(root.replace(":S", "\x1d:S"))
    document = json.dumps({"a": f'{root} "x" {root}"é', "b": "c?", "d": "x#y"})
    hidden = without_secrets(document)
    assert "S3CRET" not in hidden
    assert {**json.loads(hidden), "a": 0} == {**json.loads(document), "a": 0}


def test_open_storage_file_url_with_credentials_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        open_storage("file://u:S3CRET@/tmp/ds")
    assert "S3CRET" not in f"{caught.value} {caught.value.where} {caught.value.hint}"


@pytest.mark.parametrize("root", ["s3://", "s3:///", "s3://b/../x", "s3://b/a\nb", "http://h/x"])
def test_check_url_unusable_is_a_config_error(root: str) -> None:
    with pytest.raises(ConfigError):
        check_url(root)


def test_safe_url_in_a_text_hides_only_the_secret() -> None:
    told = "cannot reach ftp://me:pw@host/x today, nor s3://b/y"
    assert safe_url(told) == "cannot reach ftp://***@host/x today, nor s3://b/y"
    assert safe_url("me@home?") == "me@home?"
