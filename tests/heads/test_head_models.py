"""Constants that tie the audit's widths and the quantiles' ranks to what they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from opentau_prep.heads.audit_model import DimStats, fit_model
from opentau_prep.heads.sketches import quantile_ranks
from opentau_prep.stats.sketch import QuantileSketch


def test_fit_model_widths_are_standard_deviations_of_normal_members():
    rng = np.random.default_rng(0)
    n, true = 1500, np.array([3.0, 0.7])
    means = rng.normal(size=(n, 2)) * true
    stds = np.exp(rng.normal(size=(n, 2)) * 0.4)
    members = [
        DimStats(mean, std, mean - 3 * std, mean + 3 * std)
        for mean, std in zip(means, stds, strict=True)
    ]
    model = fit_model(members)
    np.testing.assert_allclose(model.mean_width, true, rtol=0.1)
    np.testing.assert_allclose(model.spread_width, [0.4, 0.4], rtol=0.1)


@pytest.mark.parametrize("factor", [1.0, 1 + 1e-7, 1 - 1e-7])
def test_quantile_ranks_dim_that_never_moves_has_every_quantile(factor):
    moving = np.linspace(0.0, 1.0, 1001)
    frames = np.stack([np.full(1001, 0.3), moving], axis=1)
    # Pooling and float32 leave the value itself a little off.
    stats = {"state": {"q01": np.array([0.3 * factor, 0.01]), "q99": np.array([0.3, 0.99])}}
    ranks = quantile_ranks(stats, {"state": QuantileSketch.of(frames)})
    assert [each.dims_off for each in ranks] == [(), ()]
    assert [each.ranks[0] for each in ranks] == [0.01, 0.99]


@pytest.mark.parametrize("n", [2, 21, 60, 101, 150])
def test_quantile_ranks_exact_quantiles_of_few_frames_are_quantiles(n):
    frames = np.random.default_rng(n).normal(size=(n, 3))
    sketches = {"state": QuantileSketch.of(frames)}
    exact = {name: np.quantile(frames, q, axis=0) for name, q in (("q01", 0.01), ("q99", 0.99))}
    assert [r.dims_off for r in quantile_ranks({"state": exact}, sketches)] == [(), ()]
    tenth = {"q01": np.quantile(frames, 0.2, axis=0), "q99": exact["q99"]}
    assert quantile_ranks({"state": tenth}, sketches)[0].dims_off == ((0, 1, 2) if n > 20 else ())
