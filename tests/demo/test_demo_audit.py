"""The audit demo: datasets alike, and faults where they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opentau_prep.demo.audit import FAULT_DIMS, write_audit_demo
from opentau_prep.errors import ConfigError


def frames(mixture: Path, number: int) -> np.ndarray[Any, Any]:
    """(N, 12): state and actions of one dataset."""
    entry = json.loads(mixture.read_text())["datasets"][number]
    files = sorted((mixture.parent / entry["root"] / "data").rglob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files])
    names = ("observation.state", "action")
    return np.hstack([np.stack(table[name].to_pylist()) for name in names])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_audit_demo(tmp_path_factory.mktemp("audit") / "clean", faults={})


def test_write_audit_demo_clean_members_resemble_each_other(clean: Path) -> None:
    """No mean lies as far from the others' as a unit or a swapped dim would put it."""
    entries = json.loads(clean.read_text())["datasets"]
    assert len(entries) >= 10
    means = np.array([frames(clean, number).mean(axis=0) for number in range(len(entries))])
    spreads = np.array([frames(clean, number).std(axis=0) for number in range(len(entries))])
    middle = np.median(means, axis=0)
    assert (np.abs(means - middle) < 3 * np.median(spreads, axis=0)).all()
    assert (means.std(axis=0) > 0.005).all()
    lift, elbow = middle[1], middle[2]
    assert abs(lift - elbow) > 5 * np.abs(means[:, 1:3] - middle[1:3]).max()
    heads = set()
    for entry in entries:
        info = json.loads((clean.parent / entry["root"] / "meta/info.json").read_text())
        heads.add((info["robot_type"], info["control_mode"]))
    assert heads == {("demo_arm6", "joint")}


@pytest.mark.parametrize("fault", [name for name, _ in FAULT_DIMS])
def test_write_audit_demo_fault_changes_its_dims_only(
    clean: Path, tmp_path: Path, fault: Any
) -> None:
    broken = write_audit_demo(tmp_path / "broken", faults={4: fault})
    dims = dict(FAULT_DIMS)[fault]
    right, wrong = frames(clean, 4), frames(broken, 4)
    changed = (right != wrong).any(axis=0).reshape(2, 6)
    assert changed.tolist() == [[dim in dims for dim in range(6)]] * 2
    np.testing.assert_array_equal(frames(clean, 5), frames(broken, 5))
    if fault == "degrees":
        np.testing.assert_allclose(np.deg2rad(wrong[:, :5]), right[:, :5], rtol=1e-6)
    if fault == "swapped_dims":
        np.testing.assert_array_equal(wrong[:, [2, 1]], right[:, [1, 2]])


def test_write_audit_demo_default_has_degrees_and_a_swap(clean: Path, tmp_path: Path) -> None:
    broken = write_audit_demo(tmp_path / "broken")
    differ = [
        number
        for number in range(12)
        if not np.array_equal(frames(clean, number), frames(broken, number))
    ]
    assert differ == [3, 7]


def test_write_audit_demo_unknown_fault_is_named(tmp_path: Path) -> None:
    faults: Any
    for faults in ({2: "rust"}, {12: "degrees"}):
        with pytest.raises(ConfigError, match="not known"):
            write_audit_demo(tmp_path / "out", faults=faults)
    assert list(tmp_path.iterdir()) == []
