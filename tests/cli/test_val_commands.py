"""`val-plan` and `val-report` as users run them, against the library and against plain sums."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import tiny_dataset
from cli_runner import command, environment, run_cli

from opentau_prep import DataError, load_mixture, load_validation_plan, train_val_split
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.context import RunContext
from opentau_prep.demo.mixture import write_demo
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.val_loss.prepare_plan import prepare_plan
from opentau_prep.val_loss.prepare_report import ReportOptions, prepare_report

ROOT = Path(__file__).resolve().parents[2]
FRAMES = {"o/a#0": 61, "o/b": 49, "o/a#1": 31}
PLAN = ("--world-size", 2, "--batch-size", 4)


@pytest.fixture
def mixture(tmp_path):
    tiny_dataset(tmp_path, "v2.1", name="a", lengths=[10, 20, 31], data=False)
    tiny_dataset(tmp_path, "v3.0", name="b", lengths=[40, 9], data=False)
    return write_mixture(tmp_path)


def write_mixture(folder, excluded=(0,), **fields):
    arm = {"robot_type": "arm", "control_mode": "joint"}
    entries = [
        {"repo_id": "o/a", "root": "a", **arm},
        {"vqa": "clevr"},
        {"repo_id": "o/b", "root": "b", **arm},
        {"repo_id": "o/a", "root": "a", "episodes": [0, 2], "excluded_episodes": list(excluded),
         "robot_type": "hand", "control_mode": "ee", "val_split_ratio": 0.5},
    ]  # fmt: skip
    path = folder / "mixture.json"
    path.write_text(json.dumps({"datasets": entries, "val_split_ratio": 0.1, **fields}))
    return path


def rows(*samples):
    """Return rows of (dataset, head row, mode, sum, count)."""
    names = ("dataset", "dataset_index", "control_mode", "MSE_sum", "MSE_count")
    return [dict(zip(names, sample, strict=True)) for sample in samples]


def write_rows(path, samples):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(samples), path)
    else:
        path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


@pytest.fixture
def losses(tmp_path):
    folder = tmp_path / "losses"
    folder.mkdir()
    first = rows(("o/a#0", 0, "joint", 3.0, 2), ("o/b", 0, None, 0.1, 1), ("o/b", 0, " ", 0.2, 1))
    second = rows(("o/a#1", 2, "Unknown", 8.0, 4), ("clevr", 1, None, 5.0, 1))
    write_rows(folder / "rank-0.jsonl", first)
    write_rows(folder / "rank-1.parquet", second)
    return folder


def document(ran):
    """Return a command's document without the shell's own keys."""
    return {k: v for k, v in ran.json.items() if k not in ("command", "warnings")}


def test_val_plan_json_is_the_library_result_and_the_frames_add_up(mixture):
    ran = run_cli("val-plan", "--mixture-json", mixture, *PLAN, "--seed", 7, "--json")
    assert ran.code == 0, ran.err
    resolved = resolve_mixture(load_mixture(mixture))
    out = mixture.with_name("mixture.prep") / "val_plan.json"
    assert load_validation_plan(out).seed == 7
    report = prepare_plan(resolved, RunContext(), world_size=2, batch_size=4, seed=7, out=out)
    assert document(ran) == {**json.loads(dump_own(report.as_json())), "status": "written"}
    assert [(d["name"], d["selected_frames"], d["samples"]) for d in ran.json["datasets"]] == [
        ("o/a#0", 61, 6), ("o/b", 49, 4), ("o/a#1", 31, 15),
    ]  # fmt: skip
    # 25 samples: rank 0 has 13 in 4 batches; one by one the datasets take 1 + 1 + 2 rounds.
    assert [r["range"] for r in ran.json["ranks"]] == [[0, 13], [13, 25]]
    assert (ran.json["rounds"], ran.json["rounds_per_dataset_loop"]) == (4, 4)
    assert [w["kind"] for w in ran.json["warnings"]] == ["vqa_left_out"]


def test_val_plan_rows_are_those_that_training_holds_out(mixture, tmp_path):
    out = tmp_path / "plan.json"
    chosen = ("--seed", 3, "--val-split-ratio", 0.2, "--out", out)
    assert run_cli("val-plan", "--mixture-json", mixture, *PLAN, *chosen).code == 0
    plan = load_validation_plan(out)
    found = {}
    for rank in range(2):
        for name, rows_of_rank in plan.rows(rank):
            found[name] = [*found.get(name, []), *rows_of_rank.tolist()]
    ratios = {"o/a#0": 0.2, "o/b": 0.2, "o/a#1": 0.5}  # an entry's own ratio comes first
    assert found == {
        name: train_val_split(frames, ratios[name], 3)[1].tolist()
        for name, frames in FRAMES.items()
    }


@pytest.mark.parametrize(
    ("config", "seed"), [({"seed": 42}, 42), ({"seed": None}, 8675309), ({}, 1000)]
)
def test_val_plan_seed_is_that_of_the_training_config(mixture, tmp_path, config, seed):
    train = tmp_path / "train.json"
    train.write_text(json.dumps({**config, "dataset_mixture": json.loads(mixture.read_text())}))
    arguments = ("val-plan", "--mixture-json", train, *PLAN, "--json", "--dry-run")
    assert run_cli(*arguments).json["seed"] == seed
    assert run_cli(*arguments, "--seed", 5).json["seed"] == 5


def test_val_plan_vqa_entry_of_known_size_has_its_place(mixture, tmp_path):
    document = json.loads(mixture.read_text())
    document["datasets"][1]["num_samples"] = 1000
    mixture.write_text(json.dumps(document))
    ran = run_cli("val-plan", "--mixture-json", mixture, *PLAN, "--json")
    assert [(d["name"], d["offset"]) for d in ran.json["datasets"]] == [
        ("o/a#0", 0), ("clevr", 6), ("o/b", 106), ("o/a#1", 110)
    ]  # fmt: skip
    assert ran.json["warnings"] == []


def test_val_plan_split_by_episodes_holds_out_the_last_of_each_task(mixture, tmp_path):
    out = tmp_path / "plan.json"
    arguments = ("val-plan", "--mixture-json", mixture, *PLAN, "--split", "episodes", "--out", out)
    made = run_cli(*arguments, "--json")
    assert made.code == 0, made.err
    assert (made.json["split"], made.json["status"]) == ("episodes", "written")
    assert run_cli(*arguments, "--json").json["status"] == "up to date"
    plan = load_validation_plan(out)
    # Lengths 10, 20, 31 and 40, 9 of one task: ceil(3 * 0.1) = 1 and ceil(2 * 0.1) = 1 episode.
    assert [part.rows(plan.seed).tolist() for part in plan.sets] == [
        list(range(30, 61)), list(range(40, 49)), list(range(31))
    ]  # fmt: skip
    edited = json.loads(out.read_text())
    edited["datasets"][0]["rows"] = [[30, 62]]
    out.write_text(json.dumps(edited))
    with pytest.raises(DataError, match="not a validation plan"):
        load_validation_plan(out)


def test_val_plan_table_names_datasets_rounds_and_speed_up(mixture):
    ran = run_cli("val-plan", "--mixture-json", mixture, *PLAN)
    for part in (*FRAMES, "25 samples in 4 rounds of 2 x 4", "takes 4", "Expected speed-up: 1.00"):
        assert part in ran.out
    assert len(ran.warnings) == 1


def test_val_plan_plain_roots_hold_out_the_default_share(mixture, tmp_path):
    ran = run_cli("val-plan", tmp_path / "a", tmp_path / "b", *PLAN, "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert [d["samples"] for d in ran.json["datasets"]] == [3, 2]
    assert run_cli("val-plan", *PLAN).code == 2


def test_val_plan_no_validation_frame_at_all_exits_3_and_says_why(tmp_path):
    tiny_dataset(tmp_path, name="a", lengths=[19], data=False)
    ran = run_cli("val-plan", tmp_path / "a", *PLAN)
    assert ran.code == 3
    assert "val_split_ratio" in ran.err


def test_val_plan_out_is_fresh_then_stale_then_read_back(mixture, tmp_path):
    out = tmp_path / "plan.json"
    arguments = ("val-plan", "--mixture-json", mixture, *PLAN, "--out", out)
    assert run_cli(*arguments, "--dry-run", "--json").json["status"] == "would write"
    assert not out.exists()
    assert run_cli(*arguments, "--json").json["status"] == "written"
    before = out.read_bytes()
    assert run_cli(*arguments, "--json").json["status"] == "up to date"
    resolved = resolve_mixture(load_mixture(mixture))
    made = prepare_plan(resolved, RunContext(), world_size=2, batch_size=4).plan
    assert load_validation_plan(out) == made
    write_mixture(tmp_path, excluded=())
    again = run_cli(*arguments, "--json")
    assert again.json["status"] == "written"
    assert "episodes of o/a#1 1 -> 2" in again.err
    assert out.read_bytes() != before


def test_val_plan_out_that_is_somebody_elses_is_left_alone(mixture, tmp_path):
    out = tmp_path / "plan.json"
    out.write_text("mine")
    arguments = ("val-plan", "--mixture-json", mixture, *PLAN, "--out", out)
    ran = run_cli(*arguments)
    assert ran.code == 4
    assert "--force" in ran.err
    assert out.read_text() == "mine"
    assert run_cli(*arguments, "--force").code == 0
    assert [p.read_text() for p in tmp_path.glob("plan.json.bak-*")] == ["mine"]


def test_val_plan_of_another_mixture_is_never_replaced(mixture, tmp_path):
    out = tmp_path / "plan.json"
    arguments = ("val-plan", *PLAN, "--out", out, "--mixture-json")
    assert run_cli(*arguments, mixture).code == 0
    before = out.read_bytes()
    other = tmp_path / "other.json"
    other.write_text(mixture.read_text())
    ran = run_cli(*arguments, other, "--force")
    assert ran.code == 4, ran.err
    assert "mixture" in ran.err
    assert "other" in ran.err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.update(total_samples=24),
        lambda d: d.update(schema_version=1),
        lambda d: d.update(split="other"),
        lambda d: d.update(seed="x"),
        lambda d: d["ranks"][0].update(range=[0, 12]),
        lambda d: d["datasets"][0].update(val_split_ratio=2.0),
        lambda d: d.pop("datasets"),
    ],
)
def test_load_validation_plan_edited_file_is_data_error(mixture, tmp_path, edit):
    out = tmp_path / "plan.json"
    resolved = resolve_mixture(load_mixture(mixture))
    prepare_plan(resolved, RunContext(), world_size=2, batch_size=4, out=out)
    content = json.loads(out.read_bytes())
    edit(content)
    out.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"plan\.json.*val-plan"):
        load_validation_plan(out)


@pytest.mark.parametrize("content", [None, "", "[1]", '{"datasets": 3}'])
def test_load_validation_plan_other_file_is_data_error(tmp_path, content):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"plan\.json"):
        load_validation_plan(path)


def test_val_plan_ranks_of_a_launch_share_one_file(mixture, tmp_path):
    out = tmp_path / "plan.json"
    arguments = command("val-plan", "--mixture-json", mixture, *PLAN, "--out", out, "--json")
    ranks = [
        subprocess.Popen(
            arguments,
            env=environment({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 0)
    ]
    documents = [json.loads(rank.communicate(timeout=60)[0]) for rank in ranks]
    assert documents[0]["ranks"] == documents[1]["ranks"]
    assert sorted(len(d["warnings"]) for d in documents) == [0, 1]
    assert sorted(p.name for p in tmp_path.glob("plan*")) == ["plan.json", "plan.prep.json"]


def test_val_report_json_is_the_library_result_and_plain_sums(mixture, losses):
    ran = run_cli(
        "val-report", losses, "--mixture-json", mixture, "--loss-weight", "MSE=2", "--json"
    )
    assert ran.code == 0, ran.err
    resolved = resolve_mixture(load_mixture(mixture))
    options = ReportOptions(loss_weights=["MSE=2"])
    report = prepare_report([losses], RunContext(), resolved=resolved, options=options)
    out = mixture.with_name("mixture.prep") / "val_report.json"
    written = [{"path": str(out), "status": "written"}]
    assert document(ran) == {**json.loads(dump_own(report.as_json())), "written": written}
    metrics = ran.json["result"]["metrics"]
    of_b = (Fraction(0.1) + Fraction(0.2)) / 2
    # Masked modes are back; with null weights a dataset weighs the frames that it holds out.
    assert metrics["Validation/by_dataset/o/a#0/MSE Loss"] == 1.5
    assert metrics["Validation/by_dataset/o/b/MSE Loss"] == float(of_b)
    assert metrics["Validation/by_dataset/o/a#1/MSE Loss"] == 2.0
    arm = (3 + of_b * 2) / 4
    assert metrics["Validation/arm::joint/MSE Loss"] == float(arm)
    assert metrics["Validation/clevr/MSE Loss"] == 5.0
    assert metrics["Validation/MSE Loss"] == float((10 * arm + 15 * Fraction(2)) / 25)
    assert metrics["Validation/Loss"] == float(2 * (10 * arm + 15 * Fraction(2)) / 25)
    assert ran.json["weights_from"] == "held_out_frames"
    recovered = {g["dataset"]: g["recovered"] for g in ran.json["result"]["groups"]}
    assert recovered == {"o/a#0": 0, "o/b": 2, "o/a#1": 1, "clevr": 0}


def test_val_report_written_weights_count_those_of_vqa_too(tmp_path, mixture, losses):
    write_mixture(tmp_path, weights=[1, 100, 2, 5])
    ran = run_cli("val-report", losses, "--mixture-json", mixture, "--json")
    arm = (3 + Fraction(0.1) + Fraction(0.2)) / 4
    expected = float((3 * arm + 100 * 5 + 5 * Fraction(2)) / 108)
    assert ran.json["result"]["metrics"]["Validation/MSE Loss"] == expected
    assert ran.json["weights_from"] == "mixture"


def test_val_report_without_a_mixture_has_groups_and_numbered_heads(losses):
    ran = run_cli("val-report", losses / "*", "--json")
    assert ran.code == 0, ran.err
    assert [h["norm_key"] for h in ran.json["result"]["norm_heads"]] == ["0", "1", "2"]
    assert ran.json["weights_from"] == "samples"
    modes = {g["dataset"]: g["control_mode"] for g in ran.json["result"]["groups"]}
    assert modes["o/a#1"] == "unknown"
    assert [Path(p).name for p in ran.json["files"]] == ["rank-0.jsonl", "rank-1.parquet"]


def test_val_report_table_has_the_highest_loss_first_and_counts_broken_samples(losses):
    write_rows(losses / "rank-2.jsonl", rows(("o/b", 0, "joint", float("nan"), 1)))
    ran = run_cli("val-report", losses)
    body = [line.split() for line in ran.out.splitlines() if line.lstrip().startswith("o/")]
    assert [cells[0] for cells in body] == ["o/a#1", "o/a#0", "o/b"]
    assert body[-1][-3:] == ["3", "1", "2"]  # samples, of them not finite, modes recovered
    assert len(ran.warnings) == 1
    assert "1 of MSE" in ran.err


BAD = {
    "not JSON": ("bad.jsonl", '{"dataset": "o/b"\n', "bad.jsonl, line 1"),
    "no loss": ("bad.jsonl", '{"dataset": "x", "dataset_index": 0, "control_mode": null}\n', "no"),
    "not parquet": ("bad.parquet", "PAR1", "bad.parquet"),
    "suffix": ("bad.csv", "a,b\n", ".csv suffix"),
    "empty": ("bad.jsonl", "", "no samples"),
}


@pytest.mark.parametrize(("name", "content", "says"), BAD.values(), ids=BAD)
def test_val_report_malformed_file_exits_3_naming_it(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    ran = run_cli("val-report", tmp_path / name)
    assert ran.code == 3
    assert name in ran.err
    assert says in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("sample", "says"),
    [
        (("o/other", 0, None, 1.0, 1), "'o/other' is not in the mixture"),
        (("o/b", 1, None, 1.0, 1), "samples of o/b have norm-head row 1, the heads have row 0"),
        (("clevr", 0, None, 1.0, 1), "norm-head row 0"),
    ],
)
def test_val_report_sample_of_another_mixture_names_file_and_row(
    tmp_path, mixture, suffix, sample, says
):
    good = ("o/b", 0, None, 1.0, 1)
    path = write_rows(tmp_path / f"r.{suffix}", rows(good, good, sample, sample))
    ran = run_cli("val-report", path, "--mixture-json", mixture)
    assert ran.code == 3
    assert says in ran.err
    place = "line 3" if suffix == "jsonl" else "row 2"
    assert f"r.{suffix}, {place}: " in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--loss-weight", "MSE"], 2, "--loss-weight"),
        (["--loss-weight", "CE=1"], 2, "CE"),
        (["--fail-if-worse", "5"], 2, "--earlier"),
        (["--earlier", "{losses}", "--fail-if-worse", "-1"], 2, "--fail-if-worse"),
        (["--earlier", "{losses}/none.json"], 3, "none.json"),
        (["--earlier", "{losses}/none-*.jsonl"], 3, "none-*.jsonl"),
        (["{losses}/rank-0.jsonl"], 3, "twice"),
        (["--mixture-json", "none.json"], 2, "none.json"),
    ],
)
def test_val_report_wrong_argument_one_message(losses, arguments, code, says):
    ran = run_cli("val-report", losses, *(a.format(losses=losses) for a in arguments))
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert says in ran.err


@pytest.fixture
def earlier(losses, tmp_path):
    folder = tmp_path / "earlier"
    shutil.copytree(losses, folder)
    write_rows(folder / "rank-0.jsonl", rows(("o/a#0", 0, "joint", 2.0, 2), ("o/b", 0, None, 9, 1)))
    return folder


def test_val_report_earlier_report_and_earlier_files_compare_alike(losses, earlier, tmp_path):
    written = tmp_path / "earlier.json"
    assert run_cli("val-report", earlier, "--out", written).code == 0
    by_file = run_cli("val-report", losses, "--earlier", written, "--json")
    by_losses = run_cli("val-report", losses, "--earlier", earlier, "--json")
    assert by_file.code == by_losses.code == 0
    assert by_file.json["changes"] == by_losses.json["changes"]
    groups = [c for c in by_file.json["changes"] if c["scope"] == "group"]
    told = [(c["dataset"], c["status"], c["relative"]) for c in groups]
    assert told[0] == ("o/a#0", "worse", 0.5)
    assert [status for _, status, _ in told] == ["worse", "better", "same", "same"]


def test_val_report_never_overwrites_the_earlier_report(mixture, losses, tmp_path):
    arguments = ("val-report", losses, "--mixture-json", mixture)
    assert run_cli(*arguments).code == 0
    report = tmp_path / "mixture.prep/val_report.json"
    before = report.read_bytes()
    ran = run_cli(*arguments, "--earlier", report)
    assert ran.code == 2, ran.err
    assert "--out" in ran.err
    assert report.read_bytes() == before


@pytest.mark.parametrize(("percent", "code"), [("49.9", 1), ("50", 0)])
def test_val_report_fail_if_worse_decides_the_exit_code(losses, earlier, percent, code):
    ran = run_cli("val-report", losses, "--earlier", earlier, "--fail-if-worse", percent)
    assert ran.code == code, ran.err
    assert "worse" in ran.out
    assert "+50.0%" in ran.out


def test_val_report_group_that_became_nan_fails_any_limit(losses, earlier):
    write_rows(losses / "rank-1.parquet", rows(("o/a#1", 1, "ee", float("nan"), 4)))
    write_rows(earlier / "rank-1.parquet", rows(("o/a#1", 1, "ee", 1.0, 4)))
    ran = run_cli("val-report", losses, "--earlier", earlier, "--fail-if-worse", "1000")
    assert ran.code == 1
    assert "broken" in ran.out


def test_val_report_out_and_csv_are_fresh_the_second_time(mixture, losses, tmp_path):
    out, table = tmp_path / "report.json", tmp_path / "report.csv"
    arguments = ("val-report", losses, "--mixture-json", mixture, "--out", out, "--csv", table)
    first = run_cli(*arguments, "--json")
    assert [w["status"] for w in first.json["written"]] == ["written", "written"]
    second = run_cli(*arguments, "--json")
    assert [w["status"] for w in second.json["written"]] == ["up to date", "up to date"]
    assert second.json["result"] == first.json["result"]
    assert json.loads(out.read_bytes())["result"] == first.json["result"]
    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    of_b = next(line for line in lines if line["dataset"] == "o/b")
    metrics = first.json["result"]["metrics"]
    assert float(of_b["value"]) == metrics["Validation/by_dataset/o/b/MSE Loss"]
    write_rows(losses / "rank-0.jsonl", rows(("o/b", 0, None, 1.0, 1)))
    third = run_cli(*arguments, "--json")
    assert [w["status"] for w in third.json["written"]] == ["written", "written"]
    assert "stale" in third.err


@pytest.mark.slow
def test_val_report_reads_what_two_ranks_of_the_accelerate_loop_wrote(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    script = [sys.executable, ROOT / "scripts/validation_loop_accelerate.py", "--batch-size", "3"]
    ranks = [
        subprocess.Popen(
            [*script, "--files", tmp_path / "losses", "--out", tmp_path / "result.json"],
            env={**environment(), "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path)),
                 "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank),
                 "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for rank in ranks:
        said, _ = rank.communicate(timeout=120)
        assert rank.returncode == 0, said
    ran = run_cli("val-report", tmp_path / "losses", "--json")
    assert ran.json["result"] == json.loads((tmp_path / "result.json").read_text())["result"]
    assert len(ran.json["files"]) == 2 * 6  # ranks x batches


def test_plan_to_frames_to_report_on_the_demo_mixture(tmp_path):
    mixture = write_demo(tmp_path / "demo")
    plan, files = tmp_path / "plan.json", tmp_path / "losses"
    made = run_cli("val-plan", "--mixture-json", mixture, *PLAN, "--out", plan, "--json")
    assert made.code == 0, made.err
    spec = importlib.util.spec_from_file_location(
        "baseline", ROOT / "scripts/validation_baseline.py"
    )
    baseline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(baseline)
    sys.argv, kept = ["x", "--mixture-json", str(mixture), "--plan", str(plan)], sys.argv
    try:
        sys.argv += ["--files", str(files)]
        baseline.main()
    finally:
        sys.argv = kept
    ran = run_cli("val-report", files, "--mixture-json", mixture, "--json")
    assert ran.code == 0, ran.err
    groups = {g["dataset"]: g for g in ran.json["result"]["groups"]}
    assert {n: g["samples"] for n, g in groups.items()} == {
        d["name"]: d["samples"] for d in made.json["datasets"]
    }
    # One dataset again from its files alone: v2.1, episode 3 left out, one file an episode.
    paths = sorted((mixture.parent / "datasets/demo/arm6_stack/data").rglob("*.parquet"))
    changes = []
    for path in paths:
        if path.stem != "episode_000003":
            actions = np.array(pq.read_table(path)["action"].to_pylist(), np.float64)
            changes.append(np.diff(actions, axis=0, prepend=actions[:1]) ** 2)
    squared = np.concatenate(changes)
    kept_rows = train_val_split(len(squared), 0.1, 1000)[1]
    loss = groups["demo/arm6_stack"]["losses"]["MSE"]["loss"]
    assert loss == pytest.approx(squared[kept_rows].mean(), rel=1e-12)
    assert groups["demo/arm6_stack"]["control_mode"] == "joint"
    assert groups["demo/arm6_stack"]["recovered"] > 0
