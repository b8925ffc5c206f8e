from __future__ import annotations

import numpy as np
import pytest
from golden_io import assert_same_bits, decode, load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import ConfigError, DataError
from opentau_prep.frames.chunks import (
    chunk_padding,
    chunk_rows,
    first_pad,
    gather_chunks,
    nearest_rows,
    shifted_rows,
    subtract_state,
)

CASES = load_golden("chunks")["cases"]
VALUE_CASES = load_golden("chunks")["value_cases"]


def _arguments(case):
    end = case["episode_start_row"] + case["episode_length"]
    timing = {key: case[key] for key in ("chunk_size", "fps", "action_freq")}
    return case["global_index"], case["episode_start_row"], end, timing


@pytest.mark.parametrize("case", [*CASES, *VALUE_CASES])
def test_chunk_rows_golden_case_same_bits(case):
    start, first, end, timing = _arguments(case)
    expected = case["expected"]
    soft = chunk_rows([start], first, end, **timing)
    assert soft.dtype == np.float64
    assert soft[0].tolist() == expected["soft"]
    padding = chunk_padding([start], end, **timing)
    assert int(padding.sum()) == expected["n_pad"]
    at = int(first_pad(padding)[0])
    assert (None if at == case["chunk_size"] else at) == expected["first_pad"]
    if case["strategy"] == "nearest":
        assert nearest_rows(soft)[0].tolist() == expected["rows"]
        assert (nearest_rows(soft)[0] - first).tolist() == expected["rows_in_episode"]
    else:
        assert np.floor(soft)[0].tolist() == expected["floor"]
        assert np.ceil(soft)[0].tolist() == expected["ceil"]
        assert (soft - np.floor(soft))[0].tolist() == expected["weight"]


@pytest.mark.parametrize("case", VALUE_CASES)
def test_gather_chunks_golden_case_same_bits(case):
    start, first, end, timing = _arguments(case)
    matrix = decode(load_golden("chunks")["data"])
    soft = chunk_rows([start], first, end, **timing)
    values = gather_chunks(matrix, soft, case["strategy"])
    assert_same_bits(values[0], decode(case["expected"]["values"]))


def test_chunk_rows_many_starts_equal_single_ones():
    cases = [c for c in CASES if (c["fps"], c["action_freq"]) == (30, 50.0)]
    size = max(c["chunk_size"] for c in cases)
    starts = [c["global_index"] for c in cases]
    firsts = [c["episode_start_row"] for c in cases]
    ends = [c["episode_start_row"] + c["episode_length"] for c in cases]
    together = chunk_rows(starts, firsts, ends, chunk_size=size, fps=30, action_freq=50.0)
    assert len(cases) > 1
    for row, case in zip(together, cases, strict=True):
        assert row[: case["chunk_size"]].tolist() == case["expected"]["soft"]


def test_chunk_rows_scalar_episode_broadcasts():
    soft = chunk_rows([3, 4], 3, 6, chunk_size=4, fps=10, action_freq=None)
    assert soft.tolist() == [[3, 4, 5, 5], [4, 5, 5, 5]]


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 40),
    first=st.integers(0, 1000),
    chunk_size=st.integers(1, 60),
    fps=st.sampled_from([5, 10, 15, 29.97, 30, 50]),
    action_freq=st.sampled_from([None, 5, 7.5, 20, 50, 100]),
    strategy=st.sampled_from(["nearest", "linear"]),
    data=st.data(),
)
def test_gather_chunks_any_timing_equals_plain_loop(
    length, first, chunk_size, fps, action_freq, strategy, data
):
    at = data.draw(st.integers(0, length - 1))
    matrix = np.random.default_rng(0).normal(size=(first + length + 3, 2)).astype(np.float32)
    soft = chunk_rows(
        [first + at], first, first + length, chunk_size=chunk_size, fps=fps, action_freq=action_freq
    )
    got = gather_chunks(matrix, soft, strategy)[0]
    rate = action_freq or fps
    for k in range(chunk_size):
        row = min(max(first + at + (k / rate) * fps, first), first + length - 1)
        if strategy == "nearest":
            expected = matrix[round(row)]
        else:
            low, high = int(np.floor(row)), int(np.ceil(row))
            weight = row - low
            below, above = matrix[[low, high]].astype(float)
            expected = below * (1 - weight) + above * weight
        assert got[k].tolist() == expected.tolist()


def test_gather_chunks_unknown_strategy_raises():
    with pytest.raises(ConfigError, match="cubic"):
        gather_chunks(np.zeros((2, 1)), np.zeros((1, 1)), "cubic")


@pytest.mark.parametrize("start", [2, 6])
def test_chunk_rows_start_outside_episode_raises(start):
    with pytest.raises(DataError, match="outside its episode"):
        chunk_rows([start], 3, 6, chunk_size=2, fps=10, action_freq=None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunk_size": 0},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"action_freq": -1.0},
    ],
)
def test_chunk_rows_impossible_timing_raises(wrong):
    timing = {"chunk_size": 2, "fps": 10.0, "action_freq": 10.0, **wrong}
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        chunk_rows([0], 0, 5, **timing)


def test_subtract_state_maps_only_named_dims():
    chunks = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    state = np.array([[1, 10, 100], [2, 20, 200]], dtype=np.float32)
    before = chunks.copy()
    delta = subtract_state(chunks, state, {1: 2})
    assert delta[..., 0].tolist() == chunks[..., 0].tolist()
    assert delta[0, :, 1].tolist() == [-99, -97, -95]
    assert delta[1, :, 1].tolist() == [-193, -191, -189]
    assert np.array_equal(chunks, before)


@pytest.mark.parametrize(("state_map", "side"), [({2: 0}, "action"), ({0: 3}, "state")])
def test_subtract_state_dim_out_of_range_raises(state_map, side):
    with pytest.raises(ConfigError, match=f"{side} dims"):
        subtract_state(np.zeros((4, 5, 2)), np.zeros((4, 3)), state_map)


def test_subtract_state_last_dim_of_few_steps():
    delta = subtract_state(np.zeros((1, 2, 6)), np.full((1, 6), 7.0), {5: 5})
    assert delta[0].tolist() == [[0.0] * 5 + [-7.0]] * 2


def test_shifted_rows_round_a_tie_by_its_row_in_the_dataset():
    soft = np.array([[7.5, 8.5], [8.5, 9.25]])
    shift = np.array([-7, -3])
    assert shifted_rows(soft, shift, "nearest").tolist() == [[1.0, 1.0], [5.0, 6.0]]
    assert shifted_rows(soft, shift, "linear").tolist() == [[0.5, 1.5], [5.5, 6.25]]
