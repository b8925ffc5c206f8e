"""`diff`: every change is there, sorted by what it does to normalized values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders import tiny_dataset
from typer.testing import CliRunner

from opentau_prep.cli.app import app
from opentau_prep.context import RunContext
from opentau_prep.diff import diff
from opentau_prep.errors import ConfigError
from opentau_prep.normalization import normalize


def write(path, document):
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def stats(low, high, *, moments=True):
    """Return a `stats.json` whose actions span low to high."""
    low, high = np.array(low, float), np.array(high, float)
    vector = {"min": low, "max": high}
    if moments:
        vector.update(mean=(low + high) / 2, std=(high - low) / 4)
    entry = {name: values.tolist() for name, values in vector.items()}
    return {"action": entry, "observation.state": entry}


def compare(a, b, **options):
    return diff(a, b, RunContext(), **options)


def test_effect_is_how_far_a_value_moves(tmp_path):
    a = write(tmp_path / "a.json", stats([0, 0, 0], [1, 1, 1], moments=False))
    b = write(tmp_path / "b.json", stats([0, 0, -1], [1, 2, 1], moments=False))
    found = compare(a, b, formula="opentau")
    assert found.kind == "stats"
    effects = {each.what: each.effect for each in found.moved}
    # By the policy's own arithmetic, over every value that A maps into [-1, 1].
    grid = np.linspace([0, 0, 0], [1, 1, 1], 101)
    one = normalize(grid, [0, 0, 0], [1, 1, 1])
    other = normalize(grid, [0, 0, -1], [1, 2, 1])
    largest = np.abs(one - other).max(axis=0)
    assert effects == {
        f"{feature} {dim} under min_max": pytest.approx(largest[dim], rel=1e-4)
        for feature in ("state", "actions")
        for dim in (1, 2)
    }
    assert [m.effect for m in found.moved] == sorted((m.effect for m in found.moved), reverse=True)


def test_same_stats_in_two_formats_are_the_same_under_one_formula(tmp_path):
    a = write(tmp_path / "a.json", stats([0, 0], [1, 3]))
    entry = stats([0, 0], [1, 3])["action"]
    kept = {name: entry[name] for name in ("mean", "std")}
    b = write(tmp_path / "norm_stats.json", {"norm_stats": {"state": kept, "actions": kept}})
    found = compare(a, b, formula="lerobot")
    assert {m.what for m in found.moved} == {"state: stats", "actions: stats"}
    other = compare(a, b)
    assert "lerobot's formula" in other.notes[0]


def test_mixtures_tell_entries_options_shares_and_heads(tmp_path):
    for seed, name in enumerate("abc"):
        tags = {"robot_type": "arm", "control_mode": "joint"}
        tiny_dataset(tmp_path, name=name, seed=seed, lengths=[9, 9 + 9 * seed], **tags)
    entries = [{"repo_id": f"o/{n}", "root": str(tmp_path / n)} for n in "abc"]
    a = write(tmp_path / "one.json", {"datasets": entries[:2], "weights": None})
    changed = {**entries[0], "excluded_episodes": [1]}
    b = write(
        tmp_path / "two.json",
        {"datasets": [changed, entries[2]], "weights": None, "action_freq": 10.0},
    )
    found = compare(a, b)
    rows = {(m.where, m.what): (m.before, m.after) for m in found.moved}
    assert rows["", "action_freq"] == ("null", "10.0")
    assert rows["o/a", "excluded_episodes"] == ("null", "[1]")
    assert rows["o/b", "dataset"] == ("there", "")
    assert rows["o/c", "dataset"] == ("", "there")
    assert rows["o/a", "sampled share"] == ("40.0%", "20.0%")
    assert rows["arm::joint", "members"] == ("o/a, o/b", "o/a, o/c")
    assert found.moved[0].effect > 0
    assert compare(a, a).moved == []


def test_mixtures_whose_datasets_are_not_here_are_compared_as_written(tmp_path):
    def mixture(name, weights):
        entries = [{"repo_id": "o/a", "root": "nowhere"}, {"repo_id": "o/b", "root": "nowhere"}]
        return write(tmp_path / name, {"datasets": entries, "weights": weights})

    found = compare(mixture("a.json", [1.0, 1.0]), mixture("b.json", [3.0, 1.0]))
    assert {m.what for m in found.moved} == {"sampled share"}
    assert found.notes


def tokenizer(folder, tokens, *, high=1.0, mean=10.0):
    folder.mkdir()
    vocab = {token: i for i, token in enumerate(tokens)}
    write(folder / "tokenizer.json", {"model": {"vocab": vocab, "merges": []}})
    write(folder / "processor_config.json", {"scale": 10, "vocab_size": len(tokens)})
    heads = {"arm::joint": {"min": [0.0], "max": [high]}}
    lengths = {"total": {"mean": mean, "p99": mean}, "heads": {}}
    report = {"chunk_size": 50, "per_head_action_stats": heads, "token_lengths": lengths}
    write(folder / "fit_report.json", report)
    return folder


def test_tokenizers_tell_vocabulary_ranges_and_lengths(tmp_path):
    a = tokenizer(tmp_path / "a", "abcd")
    b = tokenizer(tmp_path / "b", "abxyz", high=2.0, mean=12.0)
    found = compare(a, b)
    rows = {(m.where, m.what): (m.before, m.after) for m in found.moved}
    assert rows["vocabulary", "tokens, same merges"] == ("4", "5, 2 of them shared")
    assert rows["processor", "vocab_size"] == ("4", "5")
    assert rows["all chunks", "tokens per chunk"] == ("mean 10.0, 99 % 10", "mean 12.0, 99 % 12")
    assert found.moved[0].what == "actions 0 under min_max"
    assert found.moved[0].effect == pytest.approx(1.0, rel=1e-4)


def test_two_of_different_kinds_are_refused(tmp_path):
    a = write(tmp_path / "a.json", stats([0], [1]))
    b = write(tmp_path / "b.json", {"datasets": []})
    with pytest.raises(ConfigError, match="different kinds: stats and mixtures"):
        compare(a, b)
    with pytest.raises(ConfigError, match="does not exist"):
        compare(a, tmp_path / "nothing")


def test_exit_code_says_whether_something_moved(tmp_path):
    a = write(tmp_path / "a.json", stats([0], [1]))
    b = write(tmp_path / "b.json", stats([0], [2]))
    assert CliRunner().invoke(app, ["diff", str(a), str(a)]).exit_code == 0
    result = CliRunner().invoke(app, ["diff", str(a), str(b), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["same"] is False
