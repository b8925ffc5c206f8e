"""Reports: rows, CSV, JSON round trip, and the comparison of two runs."""

import csv
import io
import json
import math

import pytest

from opentau_prep import ConfigError, DataError
from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.val_loss import report
from opentau_prep.val_loss.files import write_losses as write_losses_file
from opentau_prep.val_loss.report import worse_than


def write_losses(path, losses, name="MSE"):
    """Write (dataset, mode, sum) samples of count 4."""
    rows = [
        {"dataset_index": i, "dataset": d, "control_mode": m, f"{name}_sum": s, f"{name}_count": 4}
        for i, (d, m, s) in enumerate(losses)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def now(tmp_path):
    rows = [("a", "joint", 4.0), ("b", "ee", 1.0), ("new", "ee", 2.0), ("same", "m", 0.4)]
    return write_losses(tmp_path / "now.jsonl", rows)


@pytest.fixture
def before(tmp_path):
    rows = [("a", "joint", 2.0), ("b", "ee", 8.0), ("gone", "ee", 2.0), ("same", "m", 0.4)]
    return write_losses(tmp_path / "before.jsonl", rows)


def test_build_report_rows_hold_groups_heads_and_aggregate(now):
    built = report.build_report([now], loss_weights={"MSE": 2})
    rows = built.rows()
    assert {r.scope for r in rows} == {"group", "norm_head", "aggregate"}
    first = rows[0]
    assert (first.dataset, first.control_mode, first.norm_head, first.loss) == (
        "a",
        "joint",
        "0",
        "MSE",
    )
    assert (first.value, first.count, first.samples, first.non_finite) == (1.0, 4, 1, 0)
    assert [r.value for r in rows if r.dataset == "a" and r.loss == "total"] == [2.0]
    assert rows[-1].value == 2 * (4 + 1 + 2 + 0.4) / 16


def test_as_csv_values_read_back_to_the_same_bits(tmp_path):
    path = write_losses(tmp_path / "r.jsonl", [('we"ird, name\n', "m", 0.1), ("b", "m", 1e-300)])
    built = report.build_report([path])
    read = list(csv.DictReader(io.StringIO(built.as_csv())))
    assert [r["dataset"] for r in read] == [r.dataset for r in built.rows()]
    assert [float(r["value"]) for r in read] == [r.value for r in built.rows()]


def test_build_report_comparison_shows_what_got_worse(tmp_path, now, before):
    earlier_path = tmp_path / "earlier.json"
    earlier_path.write_text(json.dumps(report.build_report([before]).as_json()))
    built = report.build_report([now], earlier=report.read_report(earlier_path).result)
    groups = [c for c in built.changes if c.scope == "group"]
    assert [(c.dataset, c.status) for c in groups] == [
        ("a", "worse"), ("new", "new"), ("gone", "gone"), ("b", "better"), ("same", "same"),
    ]  # fmt: skip
    worst = groups[0]
    assert (worst.before, worst.now, worst.change, worst.relative) == (0.5, 1.0, 0.5, 1.0)
    assert (groups[3].change, groups[3].relative) == (-1.75, -0.875)
    assert (groups[1].before, groups[1].change, groups[2].now) == (None, None, None)
    lines = list(csv.DictReader(io.StringIO(built.as_csv())))
    of_a = next(line for line in lines if line["dataset"] == "a")
    assert (of_a["value"], of_a["before"], of_a["status"]) == ("1.0", "0.5", "worse")
    gone = [line["dataset"] for line in lines if line["status"] == "gone" and line["dataset"]]
    assert gone == ["gone"]
    json.dumps(built.as_json(), allow_nan=False)


def test_compare_results_rise_from_zero_is_the_worst(tmp_path, now):
    zero = write_losses(tmp_path / "zero.jsonl", [("a", "joint", 2.0), ("b", "ee", 0.0)])
    changes = report.build_report([now], earlier=report.build_report([zero]).result).changes
    first = next(c for c in changes if c.scope == "group")
    assert (first.dataset, first.relative, first.change) == ("b", None, 0.25)


def test_compare_results_group_that_became_nan_is_broken(tmp_path, now):
    broken = write_losses(tmp_path / "nan.jsonl", [("a", "joint", math.nan), ("b", "ee", 1.0)])
    built = report.build_report([broken], earlier=report.build_report([now]).result)
    change = next(c for c in built.changes if c.dataset == "a")
    assert (change.status, change.before, change.now) == ("broken", 1.0, None)
    assert built.changes[0].status == "broken"
    assert change in worse_than(built.changes, 1e9)


def test_worse_than_counts_only_rises_beyond_the_limit(now, before):
    built = report.build_report([now], earlier=report.build_report([before]).result)
    doubled = [c.dataset for c in worse_than(built.changes, 99.9) if c.scope == "group"]
    assert doubled == ["a"]
    assert not [c for c in worse_than(built.changes, 100) if c.scope == "group"]


def test_infinite_loss_reads_back_and_a_dataset_called_like_it_stays(tmp_path):
    path = tmp_path / "r.jsonl"
    rows = [("Infinity", 1e308, 1e-300), ("b", 1.0, 1.0)]
    write_losses_file(
        path,
        dataset_index=[0, 1],
        dataset=[name for name, *_ in rows],
        control_mode=["NaN", None],
        losses={"MSE": ([s for _, s, _ in rows], [c for *_, c in rows])},
    )
    built = report.build_report([path])
    document = load_own(dump_own(built.as_json()), where="x")
    again = report.ValidationReport.from_json(document, "x")
    group = again.result["groups"][0]
    assert (group["dataset"], group["control_mode"]) == ("Infinity", "NaN")
    assert group["losses"]["MSE"]["loss"] == math.inf
    assert {c.status for c in report.compare_results(again.result, built.result)} == {"same"}


def test_build_report_without_earlier_run_has_no_changes(now):
    built = report.build_report([now])
    assert built.changes is None
    assert "changes" not in built.as_json()
    assert "status" not in built.as_csv().splitlines()[0]


def test_build_report_loss_weight_of_unknown_loss_is_config_error(now):
    with pytest.raises(ConfigError, match=r"CE.*MSE"):
        report.build_report([now], loss_weights={"MSE": 1, "CE": 1})


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"result": {"groups": [{}]}}', '{"result": 3}', "\xff", None]
)
def test_read_report_not_a_report_is_data_error(tmp_path, content):
    path = tmp_path / "earlier.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"earlier\.json"):
        report.read_report(path)


def test_parse_loss_weights_arguments_become_a_mapping():
    assert report.parse_loss_weights(["MSE=1", " CE =0.5"]) == {"MSE": 1.0, "CE": 0.5}
    assert report.parse_loss_weights([]) is None


@pytest.mark.parametrize(
    "texts", [["MSE"], ["=1"], ["MSE=x"], ["MSE=nan"], ["MSE=inf"], ["A=1", "A=2"]]
)
def test_parse_loss_weights_malformed_argument_is_config_error(texts):
    with pytest.raises(ConfigError, match="--loss-weight"):
        report.parse_loss_weights(texts)
