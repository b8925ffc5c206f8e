from __future__ import annotations

import numpy as np
import pytest
from golden_io import assert_same_bits, decode, golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import DataError
from opentau_prep.tokenizer.quantize import (
    clip_values,
    code_points,
    dct_coefficients,
    dequantize,
    min_token_of,
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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_quantize_broken_chunk_names_the_dim(bad):
    chunks = np.zeros((4, 5, 3), dtype=np.float32)
    chunks[2, 1, 1] = bad
    with pytest.raises(DataError, match=r"1 of 4 .*not finite.*\[1\]"):
        quantize(chunks, 10)


def test_quantize_absurd_value_keeps_its_sign():
    chunks = np.full((1, 4, 1), -1e30, dtype=np.float32)
    assert quantize(chunks, 10)[0, 0] < -1e9


@settings(max_examples=200, deadline=None)
@given(
    steps=st.integers(1, 60),
    scale=st.floats(0.5, 60),
    headroom=st.floats(0, 30),
    lowest=st.integers(-400, 50),
    seed=st.integers(0, 1000),
)
def test_min_token_covers_every_chunk_within_the_headroom(steps, scale, headroom, lowest, seed):
    """Also the chunks that reach a coefficient's bound: signs of a basis function."""
    min_token = min_token_of(lowest, chunk_size=steps, scale=scale, headroom=headroom)
    rng = np.random.default_rng(seed)
    basis = np.cos(np.pi * (2 * np.arange(steps) + 1) * rng.integers(steps) / (2 * steps))
    random = rng.uniform(-headroom, headroom, steps)
    chunks = np.stack([np.sign(basis) * headroom, -np.sign(basis) * headroom, random])
    values = quantize(chunks[..., None], scale)
    assert min_token <= min(lowest, values.min())
    points = code_points(values, min_token)
    text = points.astype("<u4").tobytes().decode("utf-32-le")
    assert text.encode("utf-8").decode("utf-8") == text
    assert [ord(c) + min_token for c in text] == values.ravel().tolist()
    assert np.array_equal(values_of_code_points(points, min_token), values)


def test_min_token_of_an_absurd_corpus_leaves_half_of_the_code_points_to_positive_numbers():
    min_token = min_token_of(-(10**6), chunk_size=50, scale=10, headroom=10)
    assert min_token == -(0xD7FF // 2)
    values = np.array([-(10**6), 0, 10**6])
    assert clip_values(values, min_token).tolist() == [min_token, 0, min_token + 0xD7FF]
    assert code_points(values, min_token).tolist() == [0, -min_token, 0xD7FF]


def test_min_token_without_headroom_is_the_published_one():
    assert min_token_of(-37, chunk_size=50, scale=10, headroom=0) == -37


def test_code_points_near_values_are_the_published_ones():
    values = np.arange(-50, 5000)
    assert [chr(p) for p in code_points(values, -50)] == [chr(int(v) + 50) for v in values]


def test_values_of_code_points_broken_byte_is_zero():
    assert values_of_code_points(np.array([0xFFFD, 0xD7FF], dtype=np.uint32), -7)[0] == 0


@pytest.mark.parametrize("sign", [-1, 1])
def test_quantize_beyond_the_largest_value_is_clipped_on_either_side(sign):
    chunks = np.full((1, 4, 1), sign * 1e30, dtype=np.float32)  # only the first coefficient
    assert quantize(chunks, 10.0).tolist() == [[sign * (1 << 30), 0, 0, 0]]
