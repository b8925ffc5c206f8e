from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import ConfigError
from opentau_prep.tokenizer.evaluate import (
    LengthStats,
    length_stats,
    length_stats_by_group,
    lengths_that_keep,
    round_trip_error,
    truncated_share,
    vocabulary_use,
)

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60).map(np.array)


def test_length_stats_known_lengths_known_percentiles():
    stats = length_stats(np.arange(1, 102))
    assert stats == LengthStats(n_chunks=101, mean=51.0, p50=51.0, p95=96.0, p99=100.0, max=101)


def test_length_stats_no_chunks_raises():
    with pytest.raises(ConfigError, match="no chunks"):
        length_stats(np.array([], dtype=np.int64))


def test_length_stats_by_group_interleaved_groups():
    lengths, groups = np.array([10, 1, 20, 3, 30]), np.array([2, 0, 2, 0, 2])
    stats = length_stats_by_group(lengths, groups, ["a", "empty", "c"])
    assert list(stats) == ["a", "c"]
    assert (stats["a"].mean, stats["a"].max) == (2.0, 3)
    assert (stats["c"].mean, stats["c"].n_chunks) == (20.0, 3)


def test_truncated_share_counts_only_longer_chunks():
    assert truncated_share(np.array([1, 2, 3, 4]), 3) == 0.25
    assert truncated_share(np.array([1, 2, 3, 4]), 4) == 0.0


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS)
def test_lengths_that_keep_is_the_smallest_that_does(lengths):
    for share, keep in lengths_that_keep(lengths, (0.5, 0.99, 0.999, 1.0)).items():
        assert np.mean(lengths <= keep) >= share
        assert np.mean(lengths <= keep - 1) < share


def test_round_trip_error_known_difference():
    chunks = np.zeros((1, 2, 2), dtype=np.float32)
    decoded = np.array([[[1.0, 0.0], [0.0, -2.0]]])
    error = round_trip_error(chunks, decoded)
    assert error.mse == 1.25
    assert error.max_abs == 2.0
    assert error.per_dim_mse == (0.5, 2.0)


def test_vocabulary_use_known_ids():
    use = vocabulary_use(np.array([0, 1, 1, 0]), 4)
    assert (use.size, use.used, use.share, use.entropy_bits) == (4, 2, 0.5, 1.0)


def test_vocabulary_use_one_token_has_no_entropy():
    assert vocabulary_use(np.array([3, 3]), 4).entropy_bits == 0.0
