"""`opentau-prep` alone suggests what fits the working directory."""

from __future__ import annotations

import json

import pytest
from cli_runner import run_cli

from opentau_prep.cli.suggest import suggested_commands


def _dataset(folder):
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text("{}")


def test_an_empty_folder_is_offered_the_demo(tmp_path):
    assert suggested_commands(tmp_path) == [
        "opentau-prep demo --out demo",
        "opentau-prep run --mixture-json demo/mixture.json",
    ]


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"seed": 1, "dataset_mixture": m}])
def test_mixtures_are_named_and_other_json_is_not(tmp_path, wrap):
    (tmp_path / "package.json").write_text('{"datasets": "none"}')
    (tmp_path / "torn.json").write_text('{"datasets": [')
    (tmp_path / "my mix.json").write_text(json.dumps(wrap({"datasets": []})))
    _dataset(tmp_path / "data")
    assert suggested_commands(tmp_path) == [
        "opentau-prep run --mixture-json 'my mix.json'",
        "opentau-prep report --mixture-json 'my mix.json'",
    ]


def test_a_dataset_is_checked_and_prepared_where_it_is(tmp_path):
    _dataset(tmp_path)
    assert suggested_commands(tmp_path)[0] == "opentau-prep stats ."


def test_datasets_below_are_found_as_downloads_lay_them_out(tmp_path):
    for name in ("lab/pick", "lab/fold", "alone"):
        _dataset(tmp_path / name)
    (tmp_path / ".cache/meta").mkdir(parents=True)
    assert suggested_commands(tmp_path) == [
        "opentau-prep stats alone",
        "opentau-prep validate alone lab/fold lab/pick",
        "opentau-prep run alone lab/fold lab/pick",
    ]


def test_the_bare_command_shows_help_and_what_fits(tmp_path):
    (tmp_path / "mix\x1b]52;c;x.json").write_text('{"datasets": []}')
    ran = run_cli(cwd=tmp_path)
    assert ran.code == 2
    assert "Commands:" in ran.out
    assert "What fits here:\n  opentau-prep run --mixture-json 'mix" in ran.out
    assert "\x1b" not in ran.out
