from __future__ import annotations

import numpy as np
import pytest
from golden_io import assert_same_bits, decode, golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import DataError
from opentau_prep.tokenizer.quantize import (
    code_points,
    dct_coefficients,
    dequantize,
    quantize,
    values_of_code_points,
)


@pytest.mark.parametrize("case", golden_cases("tokenizer"))
def test_quantize_golden_case_same_bits(case):
    chunks, expected = decode(case["chunks"]), case["expected"]
    assert_same_bits(dct_coefficients(chunks), decode(expected["coefficients"]))
    values = quantize(chunks, case["scale"])
    assert values.dtype == np.int32
    assert values.tolist() == np.asarray(decode(expected["quantized"])).tolist()
    assert values.min() == expected["min_token"]
    assert values.max() == expected["max_token"]
    points = code_points(values, expected["min_token"])
    assert points.tolist() == np.asarray(decode(expected["code_points"])).tolist()


def test_quantize_equals_dct_from_its_definition():
    chunks = np.random.default_rng(0).normal(size=(3, 7, 2))
    n = np.arange(7)
    basis = np.cos(np.pi * (2 * n[None, :] + 1) * n[:, None] / 14) * np.sqrt(2 / 7)
    basis[0] /= np.sqrt(2)
    expected = np.einsum("kt,ntd->nkd", basis, chunks) * 10
    assert np.abs(quantize(chunks, 10) - expected.reshape(3, -1)).max() <= 0.5 + 1e-9


def test_dequantize_undoes_quantize_within_half_a_step():
    chunks = np.random.default_rng(0).normal(size=(5, 16, 3)).astype(np.float32)
    back = dequantize(quantize(chunks, 50), 50, time_horizon=16, action_dim=3)
    # The transform keeps lengths, so the error of a column is at most that of its 16 coefficients.
    assert np.linalg.norm(back - chunks, axis=1).max() <= np.sqrt(16) * 0.5 / 50 + 1e-5


@pytest.mark.parametrize(
    ("bad", "reason"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e9, "too large")]
)
def test_quantize_broken_chunk_names_the_dim(bad, reason):
    chunks = np.zeros((4, 5, 3), dtype=np.float32)
    chunks[2, 1, 1] = bad
    with pytest.raises(DataError, match=rf"1 of 4 .*{reason}.*\[1\]"):
        quantize(chunks, 10)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(-550_000, 500_000), min_size=1, max_size=20),
    min_token=st.integers(-2000, 0),
)
def test_code_points_any_value_comes_back(values, min_token):
    points = code_points(np.array(values), min_token)
    text = points.astype("<u4").tobytes().decode("utf-32-le")
    assert "\ufffd" not in text
    assert text.encode("utf-8").decode("utf-8") == text
    assert values_of_code_points(points, min_token).tolist() == values


@pytest.mark.parametrize("edge", [0xD7FF, 0xD800, 0xF7FD, 0xF7FC, 0xF7FE, 0xFFFD, -1])
def test_code_points_at_the_holes_come_back(edge):
    values = np.array([edge]) - 100
    points = code_points(values, -100)
    assert not 0xD800 <= points[0] < 0xE000
    assert points[0] != 0xFFFD
    assert values_of_code_points(points, -100).tolist() == values.tolist()


def test_code_points_near_values_are_the_published_ones():
    values = np.arange(-50, 5000)
    assert [chr(p) for p in code_points(values, -50)] == [chr(int(v) + 50) for v in values]


def test_code_points_out_of_unicode_raises():
    with pytest.raises(DataError, match="Unicode"):
        code_points(np.array([0, 600_000]), 0)


def test_values_of_code_points_broken_byte_is_zero():
    assert values_of_code_points(np.array([0xFFFD, 0xFFFE], dtype=np.uint32), -7)[0] == 0
