"""What people asked of normalization in public: each symptom's numbers on a made-up dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders import tiny_dataset
from cli_runner import run_cli
from stats_files import (
    lerobot_checkpoint,
    lerobot_stats,
    openpi_stats,
    rlds_statistics,
    stats_of,
    write_json,
)

from opentau_prep.config.load import mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.demo.spec import EpisodeData
from opentau_prep.diff import diff
from opentau_prep.forecast import ForecastOptions, make_forecast
from opentau_prep.metadata.resolve import resolve_mixture


def forecast(root: Path, stats: Path, **options):
    resolved = resolve_mixture(mixture_from_roots([str(root)]))
    (member,) = make_forecast(
        resolved, RunContext(workers=1), ForecastOptions(stats, **options)
    ).members
    return member


def dims_of(member, feature="actions"):
    (mode,) = [mode for mode in member.modes if mode.feature == feature]
    return mode.dims


def episodes_of(values, n=4):
    """Return the rows of (N, D) actions as episodes, with a state of the same numbers."""
    parts = np.array_split(values.astype(np.float32), n)
    return [EpisodeData(part, part.copy(), 0) for part in parts]


def dataset(folder, episodes, name="arm"):
    """Write a dataset whose published stats have quantiles."""
    root = tiny_dataset(folder, "v3.0", name=name, episodes=episodes)
    values = np.concatenate([e.actions for e in episodes])
    lerobot_stats(root / "meta/stats.json", {"state": values, "actions": values})
    return root


def deltas(n=2000, width=7, seed=3):
    """Return end-effector deltas: small, even about zero, the last of them a gripper."""
    rng = np.random.Generator(np.random.PCG64(seed))
    values = np.clip(rng.normal(0, 0.25, (n, width)), -0.9375, 0.9375)
    values[:, -1] = np.where(np.sin(np.arange(n) / 40) > 0.3, 1, -1)
    return values


def test_openpi_1025_what_a_compatibility_report_should_hold(tmp_path):
    # openpi issue 1025, pull request 1026: shapes, non-finite values, near-constant dims, the share
    # outside q01 to q99, and the dim with the largest mismatch, of data against configured stats.
    values = deltas(width=8)
    values[:, 2] = 0.5
    root = dataset(tmp_path, episodes_of(values))
    other = values * np.array([1, 1, 1, 0.4, 1, 1, 0.7, 1])
    stats = openpi_stats(tmp_path / "norm_stats.json", {"state": other, "actions": other})
    member = forecast(root, stats, normalization="quantile", deep=True)
    low, high = np.quantile(other, 0.01, axis=0), np.quantile(other, 0.99, axis=0)
    normalized = (values.astype(np.float32) - low) / (high - low + 1e-6) * 2 - 1
    outside = np.abs(normalized) > 1.001
    shares = [dim.beyond[0] for dim in dims_of(member)]
    assert shares == pytest.approx(outside.mean(axis=0), abs=2e-3)
    assert int(np.argmax(shares)) == 3
    assert len(shares) == 8
    (found,) = [f for f in member.findings if f.feature == "actions"]
    assert (found.code, found.dims) == ("P003", (3, 6))
    assert member.verdict == "recompute"
    narrow = {"state": values[:, :7], "actions": values[:, :7]}
    member = forecast(root, lerobot_stats(tmp_path / "stats.json", narrow))
    assert {f.code for f in member.findings} == {"P001"}
    assert "8 dims in the dataset, 7 in the stats" in member.findings[0].message


def test_openpi_773_reuse_or_recompute_depends_on_the_data(tmp_path):
    # openpi issue 773: a checkpoint's stats (of DROID) for data of a simulator. Whether they can be
    # reused is what the numbers say: the same motion in the same units, or not.
    rng = np.random.Generator(np.random.PCG64(5))
    home = np.array([0.1, -0.5, 0.2, -2.1, 0.1, 1.8, 0.8, 0.4])
    droid = home + rng.normal(0, 0.4, (3000, 8))
    stats = openpi_stats(tmp_path / "norm_stats.json", {"state": droid, "actions": droid})
    alike = home + rng.normal(0, 0.35, (800, 8))
    assert forecast(dataset(tmp_path, episodes_of(alike), "alike"), stats).verdict == "reuse"
    degrees = alike * np.array([*[180 / np.pi] * 7, 1])
    member = forecast(dataset(tmp_path, episodes_of(degrees), "degrees"), stats)
    assert {f.kind for f in member.findings} == {"degrees"}
    assert member.verdict == "recompute"


def test_openpi_814_absolute_stats_for_actions_that_are_deltas(tmp_path):
    # openpi issue 814: delta actions of zero under absolute stats become "around 5.42, 5.03, 4.57,
    # 8.42, -3200.49, 8.29, -1.081", and the loss explodes.
    q01 = [-1.1451605429965186, -2.242609221335103, -2.2571858448691624, -1.153324126746803,
           1.568642928333805, -1.660688690313425, 0.036514735546843445]  # fmt: skip
    q99 = [-0.7886300352340484, -1.4988367923820078, -1.4468297973848614, -0.9084148509828917,
           1.5696224851423788, -1.3030340120492672, 0.9370960097121583]  # fmt: skip
    root = dataset(tmp_path, episodes_of(np.zeros((27, 7)), 3))
    entry = {"q01": q01, "q99": q99, "mean": [0.0] * 7, "std": [1.0] * 7}
    stats = write_json(
        tmp_path / "norm_stats.json", {"norm_stats": {"actions": entry, "state": entry}}
    )
    member = forecast(root, stats, normalization="quantile")
    largest = [dim.largest for dim in dims_of(member)]
    assert largest == pytest.approx([5.42, 5.03, 4.57, 8.42, -3200.49, 8.29, -1.081], abs=0.01)
    assert member.verdict != "reuse"


def sparse(values, episode=2):
    """Return episodes whose dim 4 moves in two frames, as rotations do in some simulators."""
    values = values.copy()
    values[:, 4] = 0
    episodes = episodes_of(values)
    for part in (episodes[episode].actions, episodes[episode].state):
        part[7, 4], part[5, 4] = 1.0, -1.0
    return episodes


def test_vla_arena_29_rare_values_become_millions(tmp_path):
    # PKU-Alignment/VLA-Arena pull request 29: pitch and yaw are rarely not zero, their q01 and q99
    # both are, and (x - q01) / (q99 - q01 + 1e-6) * 2 - 1 spreads -1 to 1 over four million.
    episodes = sparse(deltas())
    root = dataset(tmp_path, episodes)
    values = np.concatenate([e.actions for e in episodes])
    stats = openpi_stats(tmp_path / "norm_stats.json", {"state": values, "actions": values})
    member = forecast(root, stats, normalization="quantile", deep=True)
    dim = dims_of(member)[4]
    assert dim.largest == pytest.approx(-2_000_001)
    assert (dim.episode, dim.frame) == (2, 5)
    found = [f for f in member.findings if f.feature == "actions"]
    assert [(f.code, f.dims) for f in found] == [("P002", (4,))]
    assert "-2,000,001" in found[0].message
    assert "episode 2, frame 5" in found[0].message
    # OpenTau's rule takes a range of zero as one.
    guarded = forecast(root, stats, normalization="quantile", formula="opentau")
    assert abs(dims_of(guarded)[4].largest) == pytest.approx(2.0, abs=1e-4)
    # What the pull request proposes: another range for such dims.
    fine = forecast(root, lerobot_stats(tmp_path / "s.json", {"state": values, "actions": values}),
                    normalization="min_max")  # fmt: skip
    assert fine.verdict == "reuse"


def test_vla_arena_30_nearly_constant_dims_are_amplified(tmp_path):
    # PKU-Alignment/VLA-Arena pull request 30: q99 - q01 <= 1e-6. A range of 1e-7 with values that
    # differ by 0.002 beyond it: 2 * 0.002 / (1e-7 + 1e-6) is about 3,600.
    values = deltas()
    values[:, 4] = 0.5 + 1e-7 * np.linspace(0, 1, len(values))
    values[11, 4] = 0.502
    root = dataset(tmp_path, episodes_of(values))
    stats = openpi_stats(tmp_path / "norm_stats.json", {"state": values, "actions": values})
    member = forecast(root, stats, normalization="quantile")
    q = stats_of(values)
    (low,), (high,) = q["q01"][4:5], q["q99"][4:5]
    assert high - low <= 1e-6
    expected = (np.float32(0.502) - low) / (high - low + 1e-6) * 2 - 1
    assert 3000 < expected < 4000
    assert dims_of(member)[4].largest == pytest.approx(expected, rel=1e-3)
    assert {(f.code, f.dims) for f in member.findings} == {("P002", (4,))}


def test_lerobot_4415_stats_by_dataset_are_never_applied(tmp_path):
    # huggingface/lerobot issue 4415, pull request 4446: `so100.buffer.action.mean` and others are
    # not looked up; values pass through in degrees.
    rng = np.random.Generator(np.random.PCG64(4))
    values = rng.normal(10, 14.3, (900, 6))
    root = dataset(tmp_path, episodes_of(values))
    columns = {"state": values, "actions": values}
    folder = lerobot_checkpoint(tmp_path / "base", columns, prefix="so100.buffer.")
    member = forecast(root, folder)
    assert {(f.code, f.feature) for f in member.findings} == {
        ("P012", "state"),
        ("P012", "actions"),
    }
    assert all("there are some for so100: LeRobot passes" in f.message for f in member.findings)
    assert member.verdict == "recompute"
    assert forecast(root, lerobot_checkpoint(tmp_path / "mended", columns)).verdict == "reuse"


def test_openvla_oft_156_one_checkpoint_with_stats_per_suite(tmp_path):
    # moojink/openvla-oft issue 156: one checkpoint, an entry per task suite in
    # dataset_statistics.json. The same normalized output means another motion under each.
    spatial, wide = deltas(seed=1), deltas(seed=2)
    wide[:, :6] *= 2
    root = dataset(tmp_path, episodes_of(spatial), "libero_spatial")
    suites = {
        "libero_spatial": {"state": spatial, "actions": spatial},
        "libero_wide": {"state": wide, "actions": wide},
    }
    stats = rlds_statistics(tmp_path / "dataset_statistics.json", suites)
    own = forecast(root, stats)
    assert (own.stats, own.verdict) == ("libero_spatial", "reuse")
    other = forecast(root, stats, stats_key="libero_wide", normalization="quantile")
    ratio = [
        a.used / b.used
        for a, b in zip(
            dims_of(forecast(root, stats, normalization="quantile")), dims_of(other), strict=True
        )
    ]
    spans = [np.subtract(*np.quantile(v, (0.99, 0.01), axis=0)) for v in (wide, spatial)]
    assert ratio == pytest.approx(spans[0] / spans[1], rel=1e-4)
    # And `diff` says by how much one and the same action moves.
    paths = [
        rlds_statistics(tmp_path / f"{name}/dataset_statistics.json", {name: suites[name]})
        for name in suites
    ]
    moved = diff(*paths, RunContext()).moved
    assert moved[0].effect == pytest.approx(0.5, abs=0.15)


def test_starvla_208_stats_without_last_frames_are_as_good(tmp_path):
    # starVLA/starVLA issue 208: 272,104 transitions in dataset_statistics.json, 273,465 frames in
    # the dataset: the last frame of an episode is not trained on. The stats are right nevertheless.
    values = deltas(n=4000)
    episodes = episodes_of(values, 20)
    root = dataset(tmp_path, episodes)
    kept = np.concatenate([e.actions[:-1] for e in episodes])
    stats = rlds_statistics(
        tmp_path / "dataset_statistics.json", {"arm": {"state": kept, "actions": kept}}
    )
    document = json.loads(stats.read_text())
    assert len(kept) == len(values) - 20
    assert document["arm"]["action"]["q99"] != stats_of(values)["q99"]
    member = forecast(root, stats)
    assert [f.message for f in member.findings] == []
    assert member.verdict == "reuse"


def test_openpi_832_stats_of_lerobot_and_openpi_of_the_same_data_are_as_good(tmp_path):
    # openpi issue 832: the norm stats of LeRobot and of openpi differ for the same dataset. openpi
    # counts into 5,000 bins of the range so far, and moves the counts when the range grows.
    values = deltas(n=4000)
    root = dataset(tmp_path, episodes_of(values, 20))
    theirs = tmp_path / "norm_stats.json"
    ran = run_cli("stats", root, "--format", "openpi", "--out", theirs)
    assert ran.code == 0, ran.err
    found = json.loads(theirs.read_text())["norm_stats"]["actions"]
    for name, q in (("q01", 0.01), ("q99", 0.99)):
        off = np.abs(np.array(found[name]) - np.quantile(values, q, axis=0))
        assert 0 < (off / np.ptp(values, axis=0)).max() < 0.005
    for stats in (root / "meta/stats.json", theirs):
        assert forecast(root, stats, deep=True).verdict == "reuse"
    moved = diff(root / "meta/stats.json", theirs, RunContext()).moved
    assert 0 < max(each.effect for each in moved if each.effect is not None) < 0.01
