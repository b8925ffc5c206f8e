"""`stats --format lerobot-relative` and `--format groot`, next to a plain loop over chunks."""

import json
import os

import numpy as np
import pytest
from builders import tiny_dataset
from cli_runner import run_cli
from stats_runs import QUANTILES, bytes_below, frames_of

from opentau_prep import load_dataset_metadata
from opentau_prep.artifacts.tempfiles import create_temp, forget
from opentau_prep.stats.relative import RelativeActions, joint_mask, relative_stats

JOINTS = ["shoulder.pos", "elbow.pos", "Gripper.pos"]


def _dataset(tmp_path, version="v3.0"):
    root = tiny_dataset(tmp_path, version, lengths=[30, 4, 21], state_dim=4, action_dim=3)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["action"]["names"] = JOINTS
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def _chunks(root, steps, dims, minus):
    """Every whole chunk, one after the other: (N, T, D) float32."""
    columns, episode = frames_of(root)
    actions, states = columns["action"], columns["observation.state"]
    found = []
    for start in range(len(actions) - steps + 1):
        if episode[start] == episode[start + steps - 1]:
            chunk = actions[start : start + steps, dims].astype(np.float32)
            for k, state in enumerate(minus):
                if state >= 0:
                    chunk[:, k] = chunk[:, k] - np.float32(states[start, state])
            found.append(chunk)
    return np.stack(found)


def _assert_equal(found, values):
    for stat in ("min", "max", "mean", "std"):
        expected = getattr(values.astype(np.float64), stat)(axis=0)
        np.testing.assert_allclose(found[stat], expected, rtol=1e-12, atol=1e-14)
    for stat in set(QUANTILES) & set(found):
        expected = np.quantile(values.astype(np.float64), QUANTILES[stat], axis=0)
        np.testing.assert_allclose(found[stat], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_relative_stats_equal_a_loop_over_whole_chunks(tmp_path, version):
    root = _dataset(tmp_path, version)
    run = ("stats", root, "--format", "lerobot-relative", "--chunk-size", 8, "--json")
    ran = run_cli(*run, "--workers", 1)
    assert ran.code == 0, ran.err
    chunks = _chunks(root, 8, [0, 1, 2], [0, 1, -1])
    assert ran.json["datasets"][0]["chunks"] == len(chunks) == 23 + 14
    assert ran.json["datasets"][0]["relative"] == {"action": [0, 1]}
    stats = json.loads((root / "meta/stats.json").read_text())
    _assert_equal(stats["action"], chunks.reshape(-1, 3))
    assert stats["action"]["count"] == [len(chunks) * 8]
    states = frames_of(root)[0]["observation.state"].astype(float)
    np.testing.assert_allclose(stats["observation.state"]["mean"], states.mean(axis=0), rtol=1e-12)
    before = bytes_below(root)
    assert run_cli(*run).json["datasets"][0]["status"] == "up to date"
    assert bytes_below(root) == before


def test_lerobot_relative_stats_other_joints_can_stay_absolute(tmp_path):
    root = _dataset(tmp_path)
    run = ("stats", root, "--format", "lerobot-relative", "--chunk-size", 8, "--workers", 1)
    assert run_cli(*run, "--exclude-joint", "ELBOW").code == 0
    stats = json.loads((root / "meta/stats.json").read_text())
    _assert_equal(stats["action"], _chunks(root, 8, [0, 1, 2], [0, -1, 2]).reshape(-1, 3))
    too_long = run_cli(*run, "--chunk-size", 40)
    assert too_long.code == 3
    assert "--chunk-size" in too_long.err


MODALITY = {
    "state": {
        "arm": {"start": 1, "end": 3},
        "hand": {"start": 0, "end": 1},
        "base": {"start": 3, "end": 4},
    },
    "action": {
        "arm": {"start": 0, "end": 2, "absolute": True},
        "hand": {"start": 2, "end": 3, "rotation_type": None},
        "wrist": {"start": 0, "end": 3, "rotation_type": "rotation_6d"},
        "lift": {"start": 0, "end": 1},
    },
}


def test_groot_stats_keep_a_row_per_step(tmp_path):
    root = _dataset(tmp_path, "v2.1")
    (root / "meta/modality.json").write_text(json.dumps(MODALITY))
    run = ("stats", root, "--format", "groot", "--chunk-size", 6, "--json", "--workers", 1)
    ran = run_cli(*run)
    assert ran.code == 0, ran.err
    found = json.loads((root / "meta/relative_stats.json").read_text())
    assert set(found) == {"arm", "hand"}
    for key, dims, minus in (("arm", [0, 1], [1, 2]), ("hand", [2], [0])):
        assert set(found[key]) == {"min", "max", "mean", "std", "q01", "q99"}
        assert np.shape(found[key]["q01"]) == (6, len(dims))
        _assert_equal(found[key], _chunks(root, 6, dims, minus))
    assert set(ran.json["datasets"][0]["left_out"]) == {"wrist", "lift"}
    assert {"q01", "q99"} <= set(json.loads((root / "meta/stats.json").read_text())["action"])
    before = bytes_below(root)
    assert run_cli(*run).json["datasets"][0]["status"] == "up to date"
    assert bytes_below(root) == before


@pytest.mark.parametrize("text", ["{}", '{"action": {"a": {"start": 2, "end": 1}}, "state": {}}'])
def test_groot_a_faulty_modality_file_is_named(tmp_path, text):
    root = _dataset(tmp_path, "v2.1")
    (root / "meta/modality.json").write_text(text)
    ran = run_cli("stats", root, "--format", "groot")
    assert ran.code == 3
    assert "modality.json" in ran.err
    assert "Traceback" not in ran.err


def test_relative_stats_beyond_the_budget_are_within_the_rank_bound(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[900, 700], state_dim=2, action_dim=2)
    what = RelativeActions("action", "observation.state", (0, 1), (0, 1), 10)
    q = [0.01, 0.5, 0.99]
    found = relative_stats(load_dataset_metadata(root), what, q=q, memory_budget=0)
    assert found.quantiles == "sketch"
    values = _chunks(root, 10, [0, 1], [0, 1]).reshape(-1, 2)
    for stat, fraction in zip(("q01", "q50", "q99"), q, strict=True):
        rank = (values <= found.pooled[stat]).mean(axis=0)
        assert np.abs(rank - fraction).max() <= 0.00125
    np.testing.assert_allclose(found.pooled["std"], values.astype(float).std(axis=0), rtol=1e-12)


def test_joint_mask_is_by_name_in_any_casing():
    assert joint_mask(JOINTS, ["gripper"], 4).tolist() == [True, True, False, True]
    assert joint_mask(JOINTS, ["POS"], 3).tolist() == [False] * 3
    assert joint_mask([], ["gripper"], 2).tolist() == [True, True]


def test_relative_stats_killed_before_their_provenance_are_finished_by_the_next_run(tmp_path):
    root = _dataset(tmp_path, "v3.0")
    run = ("stats", root, "--format", "lerobot-relative", "--chunk-size", 8, "--workers", 1)
    assert run_cli(*run).code == 0
    made = bytes_below(root)
    provenance = root / "meta/prep/stats.json"
    fd, temp = create_temp(provenance)
    os.close(fd)
    forget(temp)
    provenance.rename(temp)  # as a process leaves it that is killed between the two renames
    assert run_cli(*run).code == 0
    assert bytes_below(root) == made


def test_stats_after_relative_ones_bring_back_the_action_and_keep_published_quantiles(tmp_path):
    root = _dataset(tmp_path)
    whole = root / "meta/stats.json"
    assert run_cli("stats", root, "--workers", 1).code == 0
    (root / "meta/prep/stats.json").unlink()
    published = json.loads(whole.read_text())
    published["observation.state"]["q01"][2] += 0.1
    whole.write_text(json.dumps(published))
    assert run_cli("stats", root, "--format", "lerobot-relative", "--chunk-size", 8).code == 0
    assert json.loads(whole.read_text())["action"] != published["action"]
    assert run_cli("stats", root, "--workers", 1).code == 0
    after = json.loads(whole.read_text())
    _assert_equal(after.pop("action"), frames_of(root)[0]["action"])
    assert list(published) == list(json.loads(whole.read_text()))
    del published["action"]
    assert after == published
    before = bytes_below(root)
    assert run_cli("stats", root, "--workers", 1).code == 0
    assert bytes_below(root) == before
