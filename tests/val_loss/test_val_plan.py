"""The plan: every sample once, even shares, rounds that a simulated per-dataset loop confirms."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep import ConfigError, DataError, plan_validation

lengths_lists = st.lists(st.integers(0, 60), max_size=12)
world_sizes = st.integers(1, 9)
batch_sizes = st.integers(1, 17)


def simulate_per_dataset_loop(lengths, world_size, batch_size):
    """Deal each dataset's batches to the ranks in turn; return the rounds."""
    rounds = 0
    for length in lengths:
        batches = [min(batch_size, length - i) for i in range(0, length, batch_size)]
        while batches:
            rounds += 1
            del batches[:world_size]
    return rounds


@settings(max_examples=80, deadline=None)
@given(lengths_lists, world_sizes, batch_sizes)
def test_plan_validation_any_mixture_covers_every_sample_once(lengths, world_size, batch_size):
    plan = plan_validation(lengths, world_size=world_size, batch_size=batch_size)
    shares = [plan.indices(rank) for rank in range(world_size)]
    np.testing.assert_array_equal(np.concatenate(shares), np.arange(sum(lengths)))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert all(share.dtype == np.int64 for share in shares)
    assert plan.rounds == math.ceil(max(sizes) / batch_size)


@settings(max_examples=80, deadline=None)
@given(lengths_lists, world_sizes, batch_sizes)
def test_batches_of_all_ranks_are_full_and_weigh_every_sample_once(lengths, world_size, batch_size):
    plan = plan_validation(lengths, world_size=world_size, batch_size=batch_size)
    for rank in range(world_size):
        batches, weights = list(plan.batches(rank)), plan.weights(rank)
        assert len(batches) == len(plan.batches(rank)) == plan.rounds
        assert weights.shape == (plan.rounds, batch_size)
        assert all(len(batch) == batch_size for batch in batches)
        positions = np.array(batches, dtype=np.int64).reshape(plan.rounds, batch_size)
        np.testing.assert_array_equal(positions[weights == 1], plan.indices(rank))
        assert weights.sum() == len(plan.indices(rank))
        assert not positions.size or (positions.min() >= 0 and positions.max() < plan.total)


@settings(max_examples=40, deadline=None)
@given(lengths_lists, world_sizes, batch_sizes)
def test_batches_without_a_rank_are_every_ranks_in_turn(lengths, world_size, batch_size):
    plan = plan_validation(lengths, world_size=world_size, batch_size=batch_size)
    together = plan.batches()
    assert (together.batch_size, together.drop_last) == (batch_size, False)
    for rank in range(world_size):
        assert together[rank::world_size] == list(plan.batches(rank))


def test_batches_are_read_again_and_by_index():
    sampler = plan_validation([5], world_size=2, batch_size=2).batches(0)
    assert list(sampler) == list(sampler) == [[0, 1], [2, 2]]
    assert sampler[-1] == [2, 2]
    with pytest.raises(IndexError):
        sampler[2]


@settings(max_examples=80, deadline=None)
@given(lengths_lists, world_sizes, batch_sizes)
def test_rounds_match_a_simulated_loop(lengths, world_size, batch_size):
    plan = plan_validation(lengths, world_size=world_size, batch_size=batch_size)
    rounds = simulate_per_dataset_loop(lengths, world_size, batch_size)
    assert plan.rounds_per_dataset_loop == rounds
    assert plan.rounds <= rounds
    if rounds:
        assert plan.expected_speed_up == rounds / plan.rounds


def test_plan_validation_one_frame_datasets_shows_the_gain():
    plan = plan_validation([1] * 64, world_size=8, batch_size=8)
    assert (plan.rounds, plan.rounds_per_dataset_loop, plan.expected_speed_up) == (1, 64, 64.0)


def test_locate_positions_around_empty_datasets_names_dataset_and_row():
    plan = plan_validation([0, 2, 0, 3, 0], world_size=1, batch_size=2)
    dataset, row = plan.locate(plan.indices(0))
    np.testing.assert_array_equal(dataset, [1, 1, 3, 3, 3])
    np.testing.assert_array_equal(row, [0, 1, 0, 1, 2])
    empty, _ = plan.locate([])
    assert empty.shape == (0,)


def test_locate_outside_positions_is_data_error():
    plan = plan_validation([2], world_size=1, batch_size=2)
    with pytest.raises(DataError, match="0 to 1"):
        plan.locate([2])


def test_plan_validation_no_samples_has_no_rounds():
    plan = plan_validation([], world_size=3, batch_size=4)
    assert plan.rounds == plan.rounds_per_dataset_loop == 0
    assert list(plan.batches(2)) == []
    assert plan.indices(2).shape == (0,)
    assert plan.expected_speed_up == 1.0


def test_plan_validation_numpy_lengths_equal_python_ones():
    plain = plan_validation([5, 7], world_size=2, batch_size=4)
    assert plan_validation(np.array([5, 7]), world_size=np.int64(2), batch_size=4) == plain
    assert json.loads(json.dumps(plain.as_json())) == plain.as_json()
    assert plain.as_json()["ranks"][1]["range"] == [6, 12]
    assert plain.as_json()["offsets"] == [0, 5]


@pytest.mark.parametrize(
    ("lengths", "world_size", "batch_size", "named"),
    [
        ([1, -1], 1, 1, r"lengths\[1\]"),
        ([1.5], 1, 1, r"lengths\[0\]"),
        ([1], 0, 1, "world_size"),
        ([1], True, 1, "world_size"),
        ([1], 1, "4", "batch_size"),
    ],
)
def test_plan_validation_bad_argument_is_config_error(lengths, world_size, batch_size, named):
    with pytest.raises(ConfigError, match=named):
        plan_validation(lengths, world_size=world_size, batch_size=batch_size)


@pytest.mark.parametrize("rank", [2, -1])
def test_indices_unknown_rank_is_config_error(rank):
    with pytest.raises(ConfigError, match="rank"):
        plan_validation([4], world_size=2, batch_size=1).indices(rank)
    with pytest.raises(ConfigError, match="rank"):
        plan_validation([4], world_size=2, batch_size=1).batches(rank)
