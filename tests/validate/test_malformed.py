"""No mutation of any metadata file ends in a traceback, or hides what is said of other datasets."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from breaking import check, mutation, write_broken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opentau_prep.validate.formats import as_github, as_junit, as_text

VERSIONS = ("v2.0", "v2.1", "v3.0")
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["../../x", "{a.__class__}", "\x1b[31m", "v3.0", "0:9", "1e999"]),
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
SLOW = {
    "deadline": None,
    "max_examples": 60,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for version in VERSIONS:
        write_broken(folder / version, mutation("clean", "", version))
    return folder


def copied(originals: Path, version: str, target: Path) -> list[Path]:
    """Copy a dataset, and return its metadata files."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(originals / version, target)
    return sorted(path for path in (target / "meta").rglob("*") if path.is_file())


def assert_told(root: Path, *, deep: bool) -> None:
    """Check, and show in every format; a fault of ours would be an X001 or an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing may reach stderr past the findings
        report = check(root, deep=deep)

    assert not [f.message for f in report.findings if f.code == "X001"]
    for shown in (as_text(report), as_github(report), as_junit(report)):
        assert "\x1b" not in shown
    json.dumps(report.as_json())


@settings(**SLOW)
@given(data=st.data(), version=st.sampled_from(VERSIONS), deep=st.booleans())
def test_validate_flipped_bytes_never_raise(originals, tmp_path, data, version, deep) -> None:
    root = tmp_path / "work"
    file = data.draw(st.sampled_from(copied(originals, version, root)))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    file.write_bytes(bytes(content[:cut]))

    assert_told(root, deep=deep)


def _somewhere(data: st.DataObject, value: Any) -> Any:
    """Return the value with junk put somewhere in it, or something taken out."""
    if isinstance(value, (dict, list)) and value and data.draw(st.integers(0, 4)):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = data.draw(st.sampled_from(list(keys)))
        if not data.draw(st.integers(0, 9)):
            del value[key]
        else:
            value[key] = _somewhere(data, value[key])
        return value
    return data.draw(JUNK)


@settings(**SLOW)
@given(data=st.data(), version=st.sampled_from(VERSIONS), deep=st.booleans())
def test_validate_junk_in_json_never_raises(originals, tmp_path, data, version, deep) -> None:
    root = tmp_path / "work"
    files = [f for f in copied(originals, version, root) if f.suffix in (".json", ".jsonl")]
    file = data.draw(st.sampled_from(files))
    if file.suffix == ".json":
        file.write_text(json.dumps(_somewhere(data, json.loads(file.read_text()))))
    else:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        number = data.draw(st.integers(0, len(rows) - 1))
        rows[number] = _somewhere(data, rows[number])
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert_told(root, deep=deep)


def test_validate_torn_dataset_hides_no_other(originals: Path, tmp_path: Path) -> None:
    write_broken(tmp_path / "counts", mutation("counts", "F009"))
    info = tmp_path / "counts/meta/info.json"
    info.write_text(info.read_text().replace('"total_episodes": 6', '"total_episodes": 9'))
    for number, file in enumerate(copied(originals, "v2.1", tmp_path / "torn")):
        file.write_bytes(file.read_bytes()[: 5 + number])
    (tmp_path / "empty").mkdir()

    report = check(tmp_path / "torn", tmp_path / "counts", tmp_path / "empty")

    assert {f.code for f in report.of("counts")} == {"F009"}
    assert {f.code for f in report.of("empty")} >= {"F001"}
    assert "F001" in {f.code for f in report.of("torn")}  # the cause alone, not what follows


def test_validate_dim_of_nothing_but_nan_is_told_and_no_more(
    originals: Path, tmp_path: Path
) -> None:
    copied(originals, "v2.1", tmp_path / "nan")
    for file in (tmp_path / "nan/data").rglob("*.parquet"):
        table = pq.read_table(file)
        width = len(table["action"][0])
        nan = pa.array([[float("nan")] * width] * len(table), table["action"].type)
        where = table.schema.get_field_index("action")
        pq.write_table(table.set_column(where, "action", nan), file)
    assert_told(tmp_path / "nan", deep=True)
    assert "D002" in {f.code for f in check(tmp_path / "nan", deep=True).of("nan")}
