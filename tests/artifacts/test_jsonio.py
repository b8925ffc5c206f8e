from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.artifacts.jsonio import (
    dump_foreign,
    dump_foreign_lines,
    dump_own,
    dump_own_lines,
    load_own,
    load_own_lines,
)
from opentau_prep.errors import ArtifactError, MetadataError

WORDS = st.sampled_from(["NaN", "Infinity", "-Infinity", "\\NaN", "\\\\-Infinity", "nan", "\ud800"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | WORDS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | WORDS, inner, max_size=4)
    ),
    max_leaves=20,
)


def bits(value: Any) -> Any:
    """The value with every float as its bits; all NaNs are one."""
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [bits(item) for item in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return (type(value), value)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_dump_own_any_value_reads_back_bit_for_bit(value: Any) -> None:
    data = dump_own(value)
    assert data.endswith(b"\n")
    assert bits(load_own(data, where="x")) == bits(value)
    assert dump_own(load_own(data, where="x")) == data
    json.loads(data.decode("utf-8"), parse_constant=pytest.fail)  # strict JSON, valid UTF-8


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES, max_size=4))
def test_dump_own_lines_any_rows_read_back(rows: list[Any]) -> None:
    data = dump_own_lines(rows)
    assert data.count(b"\n") == len(rows)
    assert bits(load_own_lines(data, where="x")) == bits(rows)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=6))
def test_dump_own_float32_array_casts_back_exactly(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    back = np.array(load_own(dump_own(array), where="x"), dtype=np.float32)
    nan = np.isnan(array)
    assert np.array_equal(nan, np.isnan(back))
    assert array[~nan].tobytes() == back[~nan].tobytes()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_dump_foreign_finite_values_read_by_the_json_module(value: dict[str, float]) -> None:
    assert bits(json.loads(dump_foreign(value, where="x"))) == bits(value)


def test_dump_own_numpy_values_and_layout() -> None:
    value = {"mean": np.float32([0.1, -0.0]), "n": np.int64(3), "ok": np.bool_(True), 7: (1, [2])}
    assert dump_own({"state": value, "empty": {}}).decode() == (
        '{\n  "state": {\n    "mean": [0.10000000149011612, -0.0],\n    "n": 3,\n    "ok": true,\n'
        '    "7": [1, [2]]\n  },\n  "empty": {}\n}\n'
    )
    assert (
        dump_own([np.nan, np.inf, -np.inf, "NaN"])
        == rb'["NaN", "Infinity", "-Infinity", "\\NaN"]' + b"\n"
    )


def test_dump_own_extreme_floats_keep_their_bits() -> None:
    values = [
        5e-324,
        -5e-324,
        2.2250738585072014e-308,
        1.7976931348623157e308,
        0.1 + 0.2,
        1e16,
        -0.0,
    ]
    assert bits(load_own(dump_own(np.array(values)), where="x")) == bits(values)


@pytest.mark.parametrize(
    "value",
    [{1, 2}, b"bytes", {(1, 2): 3}, {"1": 0, 1: 0}, np.array([1j]), np.longdouble(1), object()],
)
def test_dump_own_without_json_form_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        dump_own({"a": value})


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32(-np.inf)])
def test_dump_foreign_non_finite_is_refused_and_named(bad: float) -> None:
    stats = {"observation.state": {"mean": [0.0, bad]}}
    with pytest.raises(
        ArtifactError, match=r"^meta/stats\.json: observation\.state\.mean\[1\] would"
    ):
        dump_foreign(stats, where="meta/stats.json")
    with pytest.raises(ArtifactError, match=r"\[1\]\.a would"):
        dump_foreign_lines([{"a": 0}, {"a": bad}], where="x")
    forced = dump_foreign(stats, where="x", allow_non_finite=True)
    back = json.loads(forced)["observation.state"]["mean"][1]
    assert np.array_equal(back, bad, equal_nan=True)
    assert b'"' not in forced[forced.index(b"[") :].split(b"]")[0]


def test_dump_foreign_text_that_looks_like_a_number_is_untouched() -> None:
    assert json.loads(dump_foreign_lines([{"task": "NaN"}], where="x")) == {"task": "NaN"}


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a": 1', b"\xff\xfe\x00", b"nope", b"[" * 100_000, b"1" * 10_000]
)
def test_load_own_broken_file_is_a_metadata_error(data: bytes) -> None:
    with pytest.raises(MetadataError, match=r"^f\.json"):
        load_own(data, where="f.json")


def test_load_own_lines_broken_line_is_named() -> None:
    with pytest.raises(MetadataError, match=r"^f\.jsonl:3"):
        load_own_lines(b'{"a": 1}\n\n{"a"\n', where="f.jsonl")
