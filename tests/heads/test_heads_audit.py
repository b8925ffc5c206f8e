"""The audit on demo variants: what is broken is found, what is not is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from opentau_prep import load_mixture
from opentau_prep.demo.audit import FAULT_DIMS, write_audit_demo
from opentau_prep.demo.mixture import write_demo
from opentau_prep.heads.audit import audit_heads
from opentau_prep.heads.audit_model import DimStats, fit_model
from opentau_prep.heads.members import read_members
from opentau_prep.heads.options import HeadOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices

KIND_OF = {
    "degrees": "degrees",
    "ticks": "ticks",
    "swapped_dims": "dim_order",
    "inverted_gripper": "inverted",
    "pose_as_joint": "pose",
}


def audit(mixture: Path):
    with collect_notices():
        return audit_heads(read_members(resolve_mixture(load_mixture(mixture)), HeadOptions()))


def found(report):
    return {(int(f.dataset[-2:]), f.kind) for f in report.findings}


def test_audit_degrees_and_swap_are_flagged_and_no_others(tmp_path):
    report = audit(write_audit_demo(tmp_path / "demo"))
    assert found(report) == {(3, "degrees"), (7, "dim_order")}
    for finding in report.findings:
        dims = dict(FAULT_DIMS)["degrees" if finding.kind == "degrees" else "swapped_dims"]
        assert finding.dims == {"state": dims, "actions": dims}
        assert finding.confidence > 0.95
        assert finding.dataset in finding.message


@pytest.mark.parametrize("n_datasets", [5, 12, 20])
def test_audit_clean_members_are_left_alone(tmp_path, n_datasets):
    report = audit(write_audit_demo(tmp_path / "demo", faults={}, n_datasets=n_datasets))
    assert report.findings == []
    assert [head.tests for head in report.heads] == ["all"]


@pytest.mark.parametrize("number", [0, 6])
@pytest.mark.parametrize("fault", list(KIND_OF))
def test_audit_one_fault_is_found_alone(tmp_path, fault, number):
    report = audit(write_audit_demo(tmp_path / "demo", faults={number: fault}))
    assert found(report) == {(number, KIND_OF[fault])}
    assert set(report.findings[0].dims) == {"state", "actions"}


def test_audit_several_faults_do_not_hide_each_other(tmp_path):
    faults = {1: "ticks", 3: "degrees", 4: "pose_as_joint", 9: "inverted_gripper"}
    report = audit(write_audit_demo(tmp_path / "demo", faults=faults))
    assert found(report) == {(number, KIND_OF[fault]) for number, fault in faults.items()}


def test_audit_standard_demo_has_no_findings_and_says_what_it_cannot_judge(tmp_path):
    report = audit(write_demo(tmp_path / "demo"))
    assert report.findings == []
    assert {head.norm_key: head.tests for head in report.heads} == {
        "demo_arm6::joint": "units",
        "demo_arm6::ee": "none",
        "demo_bimanual::joint": "units",
        "demo_humanoid::joint": "none",
        "demo/old_push": "none",
        "demo_mobile::joint": "none",
    }


@pytest.mark.parametrize("n_datasets", [2, 3, 4])
@pytest.mark.parametrize("fault", [None, "degrees", "ticks", "swapped_dims"])
def test_audit_few_members_are_judged_by_units_alone(tmp_path, n_datasets, fault):
    faults = {} if fault is None else {1: fault}
    report = audit(write_audit_demo(tmp_path / "demo", faults=faults, n_datasets=n_datasets))
    expected = {(1, fault)} if fault in ("degrees", "ticks") else set()
    assert found(report) == expected
    assert report.heads[0].tests == "units"


def random_stats(rng, n, dims):
    center, scale = rng.normal(size=dims), rng.uniform(0.1, 1, dims)
    made = []
    for _ in range(n):
        mean = center + scale * rng.normal(size=dims) * 0.4
        std = scale * np.exp(rng.normal(size=dims) * 0.3)
        made.append(DimStats(mean, std, mean - 2 * std, mean + 2 * std))
    return made


def test_fit_model_does_not_depend_on_units_or_offsets():
    """Scores are the same in radians and ticks: the space is scale-aware."""
    rng = np.random.default_rng(5)
    members = random_stats(rng, 9, 4)
    other = [m.scaled(4096 / (2 * np.pi), 3.0) for m in members]
    z = fit_model(members[1:]).z(members[0])
    np.testing.assert_allclose(fit_model(other[1:]).z(other[0]), z, rtol=1e-9)


def test_fit_model_ignores_broken_and_still_dims():
    rng = np.random.default_rng(6)
    members = random_stats(rng, 8, 3)
    for member in members:
        member.std[1] = 0.0
    members[2].mean[0] = np.nan
    model = fit_model(members)
    assert model.judged.tolist() == [True, False, True]
    assert np.isfinite(model.logpdf(members[0])).all()
    assert (model.z(members[2])[:, 0] == 0).all()
