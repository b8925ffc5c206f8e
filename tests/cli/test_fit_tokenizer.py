"""`fit-tokenizer` end to end, in processes of its own."""

from __future__ import annotations

import json
import subprocess

import pytest
from builders import tiny_dataset
from cli_runner import command, environment, run_cli
from tokenizer_mixtures import mixture

OPTIONS = ("--chunk-size", 8, "--action-dim", 4, "--vocab-size", 400, "--workers", 1)


@pytest.fixture
def folder(tmp_path):
    tags = {"robot_type": "x", "control_mode": "joint"}
    roots = [
        tiny_dataset(tmp_path, "v2.1", name="a", lengths=[12] * 10, seed=1, **tags),
        tiny_dataset(tmp_path, "v3.0", name="b", lengths=[15] * 8, seed=2, **tags),
    ]
    mixture(tmp_path, *roots)
    return tmp_path


def _run(folder, *args, code=0, **kwargs):
    ran = run_cli("fit-tokenizer", "--mixture-json", "mixture.json", *OPTIONS, *args, cwd=folder)
    assert ran.code == code, ran.err
    return ran


def test_command_writes_the_folder_beside_the_mixture_and_skips_it_when_fresh(folder):
    ran = _run(folder, "--json")
    assert ran.json["status"] == "written"
    names = {path.name for path in (folder / "mixture.prep/tokenizer").iterdir()}
    assert {"tokenizer.json", "processor_config.json", "fit_report.json"} <= names
    stored = json.loads((folder / "mixture.prep/tokenizer/fit_report.json").read_text())
    assert stored["token_lengths"] == ran.json["token_lengths"]
    again = _run(folder, "--json", "--discrete-action-max-length", 30)
    assert again.json["status"] == "up to date"
    share = again.json["token_lengths"]["total"]["truncated_share"]
    counts = stored["token_lengths"]["total"]["counts"]
    over = sum(n for length, n in counts.items() if int(length) > 30)
    assert share == over / sum(counts.values())


def test_command_shows_lengths_forecast_and_histogram(folder):
    out = _run(folder, "--discrete-action-max-length", 30).out
    assert "over 30" in out
    assert "keep 99.9%" in out
    assert "scale 5, half of this one" in out
    assert "tokens per chunk, measured on held-out episodes" in out
    assert "head x::joint" in out
    assert "█" in out


def test_command_says_what_became_of_old_flags(folder):
    old = ("--num-workers", 1, "--max-state-dim", 32, "--dataloader-batch-size", 8)
    old += ("--log-level", "INFO")
    ran = _run(folder, *old, "--use-mixture-dataloader", "--total-chunks", 50, "--skip-fit")
    shown = "\n".join(ran.warnings)
    for option in ("--max-state-dim", "--dataloader-batch-size", "--use-mixture-dataloader"):
        assert f"{option}: " in shown
    assert "--log-level: use --quiet or --verbose" in shown
    assert "--num-workers" in shown


@pytest.mark.parametrize("more", [(), ("--sweep", "scale=2,10", "vocab-size=300")])
def test_command_json_is_the_same_for_the_same_fit(folder, more):
    runs = [_run(folder, "--dry-run", "--json", *more) for _ in range(2)]
    assert [run.code for run in runs] == [0, 0], runs[0].err
    assert runs[0].out == runs[1].out


def test_command_sweep_compares_and_writes_nothing(folder):
    before = sorted(folder.rglob("*"))
    args = ("--sweep", "scale=2,10", "vocab-size=300,400", "--total-chunks", 100, "--json")
    rows = _run(folder, *args).json["sweep"]
    assert [(row["scale"], row["vocab_size"]) for row in rows] == [
        (2.0, 300), (2.0, 400), (10.0, 300), (10.0, 400),
    ]  # fmt: skip
    assert rows[0]["mse"] == rows[1]["mse"] > rows[2]["mse"]
    assert rows[0]["mean"] > rows[1]["mean"]
    assert rows[0]["mean"] < rows[2]["mean"]
    assert sorted(folder.rglob("*")) == before


def test_command_pilot_goes_beside_the_folder(folder):
    assert _run(folder, "--pilot", "--json").json["pilot"] is True
    assert (folder / "mixture.prep/tokenizer-pilot/tokenizer.json").exists()
    assert not (folder / "mixture.prep/tokenizer").exists()
    assert not (folder / "a/meta/action_tokens").exists()


def test_command_foreign_folder_is_refused(folder):
    (folder / "mixture.prep/tokenizer").mkdir(parents=True)
    (folder / "mixture.prep/tokenizer/mine.txt").write_text("mine")
    assert "--force" in _run(folder, code=4).err
    report = _run(folder, "--force", "--json").json
    assert report["status"] == "written"
    assert [p.name for p in folder.glob("mixture.prep/tokenizer.bak-*/mine.txt")] == ["mine.txt"]


def test_command_dry_run_writes_nothing(folder):
    before = sorted(folder.rglob("*"))
    assert _run(folder, "--dry-run", "--json").json["status"] == "would write"
    assert sorted(folder.rglob("*")) == before


def test_command_keep_going_names_the_failed_dataset(folder):
    next((folder / "b").glob("data/*/*.parquet")).write_bytes(b"broken")
    assert "t/b" in _run(folder, code=3).err
    report = _run(folder, "--keep-going", "--json", code=1).json
    assert list(report["sample_errors"]) == ["t/b"]
    assert report["per_dataset_chunks"][1] == 0
    assert _run(folder, "--keep-going", "--json", code=1).json["status"] == "up to date"


@pytest.mark.parametrize(
    "wrong",
    [
        ("--total-chunks", "many"),
        ("--sweep", "colour=1"),
        ("stray",),
        ("--holdout", "1"),
    ],
)
def test_command_wrong_arguments_are_told_in_one_message(wrong, folder):
    ran = _run(folder, *wrong, code=2)
    assert "Traceback" not in ran.err
    assert ran.err.count("Error: ") == 1


def test_one_of_two_ranks_writes_and_both_return_the_same(folder):
    args = command("fit-tokenizer", "--mixture-json", "mixture.json", *OPTIONS, "--json")
    runs = [
        subprocess.Popen(
            args,
            cwd=folder,
            env=environment({"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    first, second = (json.loads(out) for out, _ in outputs)
    assert first["status"] == "written"
    assert first["token_lengths"] == second["token_lengths"]
    assert first["fit"] == second["fit"]
    assert outputs[1][1] == ""


def test_run_leaves_a_tokenizer_of_other_parameters_alone(tmp_path):
    from opentau_prep.demo.mixture import write_demo

    mixture = write_demo(tmp_path / "demo")
    fit = ("--chunk-size", 20, "--total-chunks", 200, "--max-token-length", 64)
    assert run_cli("fit-tokenizer", "--mixture-json", mixture, *fit).code == 0
    folder = mixture.parent / "mixture.prep/tokenizer"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    ran = run_cli("run", "--mixture-json", mixture, "--json")
    assert ran.code == 0, ran.err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert ran.json["steps"]


def test_command_refuses_wider_actions_as_heads_does_and_names_its_own_option(folder):
    refused = [
        run_cli(name, "--mixture-json", folder / "mixture.json", "--max-action-dim", 1, "-q")
        for name in ("fit-tokenizer", "heads")
    ]
    assert refused[0].code == refused[1].code != 0
    assert refused[0].err == refused[1].err
    assert "Raise --max-action-dim" in refused[0].err
    assert "--truncate-dims" in refused[0].err
