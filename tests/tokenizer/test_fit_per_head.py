"""The reference fit's per-head ranges and normalization, where its semantics and ours agree."""

from __future__ import annotations

import numpy as np
import pytest
from golden_io import decode, golden_cases, load_golden

from opentau_prep.normalization import normalize
from opentau_prep.pooling import aggregate_stats


def _stats(low, high):
    # The reference pools ranges only; the rest stands in for what pooling also wants.
    return {
        "actions": {
            "min": low,
            "max": high,
            "mean": np.zeros_like(low),
            "std": np.ones_like(low),
            "count": np.array([1]),
        }
    }


@pytest.mark.parametrize("case", golden_cases("fit_per_head", "pool_per_head_stats"))
def test_aggregate_stats_reference_fit_ranges_agree(case):
    case = decode(case)
    expected = case["expected"]
    assert list(dict.fromkeys(case["keys"])) == expected["head_order"]
    # Dims without any finite stat: the reference makes up a range of [-1, 1] there, we do not.
    made_up = {w["head"]: w["dims"] for w in case["warnings"]}
    for key in expected["head_order"]:
        members = [i for i, k in enumerate(case["keys"]) if k == key]
        pooled = aggregate_stats(
            [_stats(case["raw_min"][i], case["raw_max"][i]) for i in members],
            weights=[1.0] * len(members),
        )["actions"]
        known = np.setdiff1d(np.arange(case["action_dim"]), made_up.get(key, []))
        for side in ("min", "max"):
            assert pooled[side][known].tolist() == expected["per_head"][key][side][known].tolist()
            for i in members:
                of_member = expected[f"per_dataset_{side}"][i]
                assert pooled[side][known].astype(np.float32).tolist() == of_member[known].tolist()
        for dim in made_up.get(key, []):
            assert np.isnan([pooled["min"][dim], pooled["max"][dim]]).any()


@pytest.mark.parametrize("version", [0, 1])
def test_normalize_one_dataset_at_a_time_agrees_with_reference_fit(version):
    case = decode(load_golden("fit_per_head")["normalize_chunks_per_head"][0])
    recorded = case["expected"][f"config_version_{version}"]["out"]
    ends = np.cumsum(case["per_dataset_chunks"])
    parts = zip(ends, case["per_dataset_chunks"], strict=True)
    for i, (end, count) in enumerate(parts):
        low, high = case["per_dataset_min"][i], case["per_dataset_max"][i]
        ours = normalize(case["stacked"][end - count : end], low, high, config_version=version)
        # Version 0 of the reference fit has no rule for dims without range; the policy has.
        same = np.full(low.shape, True) if version else high > low
        expected = recorded[end - count : end]
        np.testing.assert_allclose(ours[..., same], expected[..., same], rtol=2e-6, atol=5e-7)
