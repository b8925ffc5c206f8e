"""Which rank a claimed quantile may have in the data before it is reported."""

from __future__ import annotations

import numpy as np
import pytest

from opentau_prep.validate.quantiles import rank_faults

FRAMES = 100_000


def faults(name: str, rank: float) -> bool:
    below = np.array([[round(rank * FRAMES)]])
    return bool(rank_faults([name], below, np.zeros_like(below), np.array([FRAMES])))


@pytest.mark.parametrize(
    ("name", "slack"), [("q01", 0.005), ("q99", 0.005), ("q10", 0.02), ("q50", 0.02), ("q90", 0.02)]
)
@pytest.mark.parametrize("side", [-1, 1])
def test_rank_faults_allow_what_the_rules_page_states(name: str, slack: float, side: int) -> None:
    wanted = int(name[1:]) / 100

    assert not faults(name, wanted + side * 0.9 * slack)
    assert faults(name, wanted + side * 1.1 * slack)
