"""A feature's stats as one matrix: a mapping like any other, pooled to the same bits."""

import numpy as np
import pytest

from opentau_prep.errors import MetadataError
from opentau_prep.pooling import aggregate_stats
from opentau_prep.pooling.matrix import StatLayout, StatMatrix

NAMES = ("max", "q99", "mean", "count", "min", "std", "q01")


def matrix(rng, width, n=1, names=NAMES):
    layout = StatLayout.of(names)
    values = np.abs(rng.normal(size=(len(layout.order), n))) * 10.0 ** rng.integers(-6, 6)
    return StatMatrix(layout, values, 3, width)


def plain(found):
    return {stat: np.array(found[stat]) for stat in found}


def assert_same_entry(found, expected):
    assert list(found) == list(expected)
    for stat, values in expected.items():
        assert (found[stat].dtype, found[stat].shape) == (values.dtype, values.shape)
        assert found[stat].tobytes() == values.tobytes()


@pytest.mark.parametrize("width", [2, 4, 6])
def test_stat_matrix_resized_is_cut_or_padded_with_zeros(width):
    own = matrix(np.random.default_rng(1), 4, n=4)
    found = own.resized(width)
    for stat in set(NAMES) - {"count"}:
        expected = np.pad(own[stat], (0, 2))[:width]
        assert found[stat].tolist() == expected.tolist()
    assert found["count"].tolist() == [3]


def test_stat_matrix_select_takes_columns_in_the_order_asked_for():
    own = matrix(np.random.default_rng(2), 4, n=4)
    found = own.select([2, 0])
    assert found["q99"].tolist() == own["q99"][[2, 0]].tolist()
    assert dict(found).keys() == set(NAMES)


@pytest.mark.parametrize("names", [("mean", "std", "min"), (*NAMES, "median"), ()])
def test_stat_layout_of_unknown_or_missing_stats_is_none(names):
    assert StatLayout.of(names) is None


@pytest.mark.parametrize("n", [2, 7, 8, 9, 130])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_aggregate_stats_of_matrices_has_the_bits_of_plain_arrays(n, broken, whole):
    rng = np.random.default_rng(n)
    own_widths = rng.choice([1, 3, 5, 9], n)
    contributors = [{"x": matrix(rng, 6, n=int(width))} for width in own_widths]
    if broken:
        for each in contributors:
            values = each["x"].matrix
            at = rng.random(values.shape) < 0.3
            values[at] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 1e200], at.sum())
    weights = rng.integers(1, 10**6, n) if whole else rng.random(n) * 10.0 ** rng.integers(-9, 9, n)
    found = aggregate_stats(contributors, weights=weights)
    expected = aggregate_stats([{"x": plain(each["x"])} for each in contributors], weights=weights)
    assert_same_entry(found["x"], expected["x"])


@pytest.mark.parametrize("case", ["width", "layout", "plain", "one column"])
def test_aggregate_stats_of_unlike_entries_says_or_pools_what_plain_arrays_do(case):
    rng = np.random.default_rng(3)
    contributors = [{"x": matrix(rng, 4, n=4)} for _ in range(3)]
    if case == "width":
        contributors[1]["x"] = contributors[1]["x"].resized(5)
    elif case == "layout":
        contributors[1]["x"] = matrix(rng, 4, n=4, names=tuple(n for n in NAMES if n != "q01"))
    elif case == "plain":
        contributors[1]["x"] = plain(contributors[1]["x"])
    else:
        contributors = [{"x": each["x"].resized(1)} for each in contributors]
    outcomes = []
    for entries in (contributors, [{"x": plain(each["x"])} for each in contributors]):
        try:
            outcomes.append(aggregate_stats(entries, weights=[1, 2, 3])["x"])
        except MetadataError as error:
            outcomes.append(str(error))
    if case == "width":
        assert outcomes[0] == outcomes[1]
        assert "shape" in outcomes[0]
    else:
        assert_same_entry(*outcomes)
