"""Findings on published datasets: read one by one, each is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from breaking import check
from builders import copy_real

from opentau_prep.config.load import mixture_from_roots
from opentau_prep.config.salvage import Salvage
from opentau_prep.context import RunContext
from opentau_prep.validate import CheckOptions
from opentau_prep.validate.check import dataset_views
from opentau_prep.validate.deep import plan_slices, scan_slice
from opentau_prep.validate.frames import joined
from opentau_prep.validate.lag import find_lag


def test_validate_g1_says_what_is_true(tmp_path: Path) -> None:
    report = check(copy_real("g1_pick_bottle", tmp_path))

    # Its info.json nests the names of both vectors; its videos were not copied. That it has no
    # control_mode separates it from nobody.
    assert [(f.code, f.count) for f in report.findings] == [("V001", 1), ("C010", 2)]
    assert [p.column for p in report.findings[1].places] == ["observation.state", "action"]


def test_validate_so101_names_quantiles_that_are_none(tmp_path: Path) -> None:
    root = copy_real("so101_record_test", tmp_path)

    report = check(root)

    assert [(f.code, f.count) for f in report.findings] == [("V001", 1), ("S019", 2)]
    assert "q99 lies at rank 0.655 in dim 2" in report.findings[1].message
    assert _rank_of_q99(root, "action", 2) == 0.655


def _rank_of_q99(root: Path, column: str, dim: int) -> float:
    """Count it independently: the share of frames that are not above the claimed q99."""
    import json

    table = pq.read_table(root / "data/chunk-000/file-000.parquet", columns=[column])
    values = np.array(table.column(column).to_pylist(), dtype=np.float32)[:, dim]
    claimed = np.float32(json.loads((root / "meta/stats.json").read_text())[column]["q99"][dim])
    return round(float((values <= claimed).mean()), 3)


@pytest.mark.parametrize("name", ["g1_pick_bottle", "so101_record_test"])
def test_bounds_are_those_that_the_rules_page_states(tmp_path: Path, name: str) -> None:
    """What the page says of "the published datasets at hand" is measured here."""
    root = copy_real(name, tmp_path)
    subject = Salvage.of(mixture_from_roots([root]))
    _, (view,) = dataset_views(subject, RunContext(), CheckOptions(deep=True))
    frames = joined([scan_slice(piece) for piece in plan_slices(view)])

    assert view.episodes is not None
    lengths = view.episodes.length
    usual = np.median(lengths)
    assert max(lengths.max() / usual, usual / lengths.min()) < 1.7
    for column in view.vectors.values():
        scan = frames.columns[column]
        ranges = scan.moments.max.max(axis=0) - scan.moments.min.min(axis=0)
        assert (scan.max_step.max(axis=0) / ranges).max() < 0.37
    lag = find_lag(frames.lags)
    assert lag is not None
    assert 0.10 <= round(lag.frames / 30, 2) <= 0.13
