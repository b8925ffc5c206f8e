from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.errors import ConfigError
from opentau_prep.tokenizer.evaluate import (
    LengthStats,
    SquaredErrors,
    length_stats,
    lengths_that_keep,
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


def test_truncated_share_counts_only_longer_chunks():
    assert truncated_share(np.array([1, 2, 3, 4]), 3) == 0.25
    assert truncated_share(np.array([1, 2, 3, 4]), 4) == 0.0


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS)
def test_lengths_that_keep_is_the_smallest_that_does(lengths):
    for share, keep in lengths_that_keep(lengths, (0.5, 0.99, 0.999, 1.0)).items():
        assert np.mean(lengths <= keep) >= share
        assert np.mean(lengths <= keep - 1) < share


def test_squared_errors_of_parts_of_other_widths_add_up():
    decoded = np.array([[[1.0, 0.0], [0.0, -2.0]]])
    error = SquaredErrors.of(np.zeros((1, 2, 2), dtype=np.float32), decoded)
    assert (error.mse, error.max_abs) == (1.25, 2.0)
    one = error.in_units(np.array([3.0]))
    assert (one.mse, one.max_abs) == (4.5, 3.0)
    both = one + error
    assert both.counts.tolist() == [4, 2]
    assert both.squared.tolist() == [10.0, 4.0]
    assert both.largest.tolist() == [3.0, 2.0]


def test_vocabulary_use_known_ids():
    use = vocabulary_use(np.array([0, 1, 1, 0]), 4)
    assert (use.size, use.used, use.share, use.entropy_bits) == (4, 2, 0.5, 1.0)


def test_vocabulary_use_one_token_has_no_entropy():
    assert vocabulary_use(np.array([3, 3]), 4).entropy_bits == 0.0
