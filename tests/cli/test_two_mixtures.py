"""Two mixtures never replace each other's outputs, and no fitted tokenizer is lost."""

from __future__ import annotations

import json

import pytest
from builders import tiny_dataset, tiny_episodes
from cli_runner import run_cli

from opentau_prep.demo.append import append_episode

FIT = ("--chunk-size", 4, "--total-chunks", 20, "--vocab-size", 300, "--max-token-length", 8)


@pytest.fixture
def mixtures(tmp_path):
    tags = {"robot_type": "arm", "control_mode": "joint"}
    tiny_dataset(tmp_path, "v2.1", name="data", lengths=[20, 30, 25, 28], **tags)
    paths = [tmp_path / f"{name}.json" for name in ("one", "two")]
    for number, path in enumerate(paths):
        entry = {"repo_id": "o/data", "root": "data", "excluded_episodes": [number]}
        path.write_text(json.dumps({"datasets": [entry]}))
    return paths


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_runs_of_two_mixtures_in_one_folder_replace_nothing(mixtures, tmp_path):
    for mixture in mixtures:
        assert run_cli("run", "--mixture-json", mixture, *FIT, "-q").code == 0
    before = contents(tmp_path)
    for mixture in mixtures:
        ran = run_cli("run", "--mixture-json", mixture)
        assert ran.code == 0
        assert "Nothing to do: everything is up to date." in ran.out
    assert contents(tmp_path) == before


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_output_of_another_mixture_is_never_replaced(mixtures, tmp_path, force):
    out = tmp_path / "heads.json"
    one, two = mixtures
    assert run_cli("heads", "--mixture-json", one, "--out", out, "-q").code == 0
    before = out.read_bytes()
    ran = run_cli("heads", "--mixture-json", two, "--out", out, *force)
    assert ran.code == 4
    assert "one-" in ran.err
    assert "two-" in ran.err
    assert out.read_bytes() == before


def test_replaced_tokenizer_stays_under_its_hash(mixtures, tmp_path):
    where = ("--mixture-json", mixtures[0])
    assert run_cli("fit-tokenizer", *where, *FIT, "-q").code == 0
    folder = tmp_path / "one.prep"
    before = contents(folder / "tokenizer")
    (episode,) = tiny_episodes(lengths=[33], seed=7)
    append_episode(tmp_path / "data", episode)
    ran = run_cli("run", *where, "-q")
    assert ran.code == 0, ran.err
    (old,) = folder.glob("tokenizer-????????")
    assert contents(old) == before
    assert contents(folder / "tokenizer") != before
