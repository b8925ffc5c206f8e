"""The commands in a report bring back the options that things were made with."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from builders import tiny_dataset
from report_mixtures import run, working_in

from opentau_prep.config.load import load_mixture
from opentau_prep.context import RunContext
from opentau_prep.errors import ConfigError
from opentau_prep.heads import compute
from opentau_prep.heads.options import HeadOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.tokenizer import prepare
from opentau_prep.tokenizer.options import FitOptions
from opentau_prep.verdict.commands import Commands

HEADS = HeadOptions(40, 41, 2, "sketch", True, 7)
FIT = FitOptions(
    12,
    action_dim=8,
    total_chunks=300,
    vocab_size=512,
    scale=2.5,
    max_token_length=64,
    seed=3,
    config_version=0,
    per_head_norm=False,
    holdout=0.25,
    memory_bytes=3_333_333_333,
)


@pytest.fixture
def mixture(tmp_path):
    tiny_dataset(tmp_path, name="a")
    (tmp_path / "m 1.json").write_text(json.dumps({"datasets": [{"repo_id": "o/a", "root": "a"}]}))
    with working_in(tmp_path):
        yield resolve_mixture(load_mixture(Path("m 1.json")))


def taken(monkeypatch, module, name, text):
    """Return the options, other arguments and context that a command calls its verb with."""
    calls = []

    def take(resolved, context, options, *places, **named):
        calls.append((options, [*places, *named.values()], context))
        raise ConfigError("enough")

    monkeypatch.setattr(module, name, take)
    assert run(*shlex.split(text)[1:]).exit_code == 2
    (call,) = calls
    return call


@pytest.mark.parametrize(
    ("heads", "fit"), [(HEADS, FIT), (HeadOptions(), FitOptions(50))], ids=["others", "defaults"]
)
def test_commands_bring_back_every_option(mixture, monkeypatch, heads, fit):
    commands = Commands(mixture, RunContext(artifact_root=Path("else where")), heads, fit)
    options, places, context = taken(
        monkeypatch, compute, "prepare_heads", commands.heads(Path("h'1.json"), "--force")
    )
    assert options == heads
    assert Path("h'1.json").absolute() in places
    assert context.force
    assert context.artifact_root == Path("else where").absolute()
    options, places, _ = taken(
        monkeypatch, prepare, "prepare_tokenizer", commands.tokenizer(Path("t o"))
    )
    assert options == fit
    assert Path("t o").absolute() in places


def test_recorded_options_of_a_folder_is_wrong_usage(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        compute.recorded_options(tmp_path)
    assert compute.recorded_options(tmp_path / "nowhere.json") is None
