from __future__ import annotations

import pytest

from opentau_prep.errors import ConfigError
from opentau_prep.tokenizer.compare import SweepGrid, parse_sweep


def test_parse_sweep_reads_both_names():
    grid = parse_sweep(["scale=5,10,20", "vocab_size=1024,2048"])
    assert grid == SweepGrid((5.0, 10.0, 20.0), (1024, 2048))


@pytest.mark.parametrize(
    "texts",
    [["scale"], ["scale="], ["scale=a"], ["depth=1"], ["scale=1", "scale=2"], ["vocab-size=1.5"]],
)
def test_parse_sweep_anything_else_raises(texts):
    with pytest.raises(ConfigError, match="sweep"):
        parse_sweep(texts)
