"""`heads`: its files, its explanations, and quantiles from sketches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import tiny_dataset, tiny_episodes

from opentau_prep import load_mixture, load_norm_heads
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.context import RunContext
from opentau_prep.errors import ArtifactError, ConfigError, DataError, MetadataError
from opentau_prep.heads.compute import prepare_heads
from opentau_prep.heads.options import HeadOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices
from opentau_prep.stats.sketch import QuantileSketch, encode_sketches

TAGS = {"robot_type": "arm", "control_mode": "joint"}


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    """Two members of one head, the first listed twice, and a fallback."""
    tiny_dataset(tmp_path, "v2.1", name="a", seed=1, **TAGS)
    tiny_dataset(tmp_path, "v3.0", 4, name="b", seed=2, **TAGS)
    tiny_dataset(tmp_path, "v2.1", name="c", seed=3)
    entries = [{"repo_id": f"o/{n}", "root": n} for n in "abac"]
    entries[2]["control_mode"] = "other"
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"datasets": entries}))
    return path


def prepare(path: Path, context=None, options=None, **more):
    with collect_notices() as notices:
        resolved = resolve_mixture(load_mixture(path))
        more.setdefault("out", path.parent / "norm_heads.json")
        report = prepare_heads(resolved, context or RunContext(), options or HeadOptions(), **more)
    return report, notices


def statuses(report):
    return [report.out.status, *(file.status for file in report.files)]


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def cli(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [sys.executable, "-m", "opentau_prep", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root, **env},
    )


def test_prepare_heads_second_run_is_up_to_date(mixture):
    report, _ = prepare(mixture)
    assert statuses(report) == ["written"] * 4
    before = files_below(mixture.parent)
    again, _ = prepare(mixture)
    assert statuses(again) == ["up to date"] * 4
    assert files_below(mixture.parent) == before


def test_prepare_heads_entries_of_one_dataset_share_its_file(mixture):
    report, _ = prepare(mixture)
    assert [file.datasets for file in report.files] == [("o/a#0", "o/a#1"), ("o/b",), ("o/c",)]
    head = json.loads(report.files[0].path.read_text())
    assert (head["key"], head["row"]) == ("arm::joint", 0)
    assert head["members"] == ["o/a#0", "o/b"]
    assert [(h["key"], h["members"]) for h in head["other_heads"]] == [("arm::other", ["o/a#1"])]


def test_prepare_heads_changed_member_makes_all_of_its_head_stale(mixture):
    prepare(mixture)
    tiny_dataset(mixture.parent, "v2.1", 5, name="new", seed=9, **TAGS)
    shutil.rmtree(mixture.parent / "a/meta/episodes", ignore_errors=True)
    for name in ("info.json", "episodes.jsonl", "episodes_stats.jsonl"):
        shutil.copy(mixture.parent / "new/meta" / name, mixture.parent / "a/meta" / name)
    shutil.copytree(mixture.parent / "new/data", mixture.parent / "a/data", dirs_exist_ok=True)
    report, notices = prepare(mixture)
    assert statuses(report) == ["written", "written", "written", "up to date"]
    (said,) = [n for n in notices if "stale" in n.kind]
    assert said.message.startswith("3 files are stale")
    assert "o/a (episodes 3 -> 5" in said.message
    assert set(said.details["artifacts"]) == {"norm_heads", "o/a", "o/b"}


def test_prepare_heads_of_a_part_of_a_dataset_need_a_person_to_accept_that(mixture):
    before = files_below(mixture.parent)
    episode = next((mixture.parent / "a/data").rglob("*.parquet"))
    content = episode.read_bytes()
    episode.unlink()
    with pytest.raises(DataError, match=r"only a part of 1 dataset is here: o/a#0 \(2 of 3 epi"):
        prepare(mixture)
    assert {**files_below(mixture.parent), str(episode): content} == before
    report, _ = prepare(mixture, allow_partial=True)
    assert statuses(report) == ["written"] * 4


def test_prepare_heads_accepted_part_is_remembered_from_its_stats(mixture):
    next((mixture.parent / "a/data").rglob("*.parquet")).unlink()
    assert cli("stats", mixture.parent / "a", "--allow-partial").returncode == 0
    report, _ = prepare(mixture)
    assert statuses(report) == ["written"] * 4


def test_prepare_heads_of_a_dataset_without_episodes_are_refused(mixture):
    (mixture.parent / "c/meta/episodes.jsonl").write_text("")
    with pytest.raises(MetadataError, match=r"c/meta/episodes.jsonl: the episodes table is empty"):
        prepare(mixture, allow_partial=True)


def test_prepare_heads_dry_run_writes_nothing(mixture):
    before = files_below(mixture.parent)
    report, _ = prepare(mixture, RunContext(dry_run=True))
    assert statuses(report) == ["would write"] * 4
    assert files_below(mixture.parent) == before


def test_prepare_heads_artifact_root_leaves_datasets_alone(mixture, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("artifacts")
    before = files_below(mixture.parent)
    context = RunContext(artifact_root=elsewhere)
    resolved = resolve_mixture(load_mixture(mixture))
    report, _ = prepare(mixture, context, out=context.prep_path(resolved.mixture, "norm_heads"))
    made = set(files_below(mixture.parent)) - set(before)
    assert {Path(name).relative_to(mixture.parent).parts[0] for name in made} == {
        f"{mixture.stem}.prep"
    }
    assert all(elsewhere in file.path.parents for file in report.files)


def test_prepare_heads_foreign_file_is_kept_unless_forced(mixture):
    out = mixture.parent / "norm_heads.json"
    out.write_text("mine")
    with pytest.raises(ArtifactError, match="--force"):
        prepare(mixture)
    assert out.read_text() == "mine"
    report, _ = prepare(mixture, RunContext(force=True))
    assert report.out.backup.read_text() == "mine"
    assert load_norm_heads(out).norm_keys == ["arm::joint", "arm::other", "o/c"]


def test_prepare_heads_four_ranks_one_writes_one_speaks(mixture):
    command = ("heads", "--mixture-json", mixture, "--out", mixture.parent / "h.json", "--json")
    root = str(Path(__file__).resolve().parents[2])
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "opentau_prep", *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": root,
                "RANK": str(rank),
                "WORLD_SIZE": "4",
                "LOCAL_RANK": str(rank),
                "OPENTAU_PREP_WAIT_TIMEOUT_S": "60",
            },
        )
        for rank in range(4)
    ]
    done = [process.communicate(timeout=90) for process in running]
    assert [process.returncode for process in running] == [0] * 4
    documents = [json.loads(out) for out, _ in done]
    assert [d["out"]["status"] for d in documents].count("written") == 1
    assert all(d["heads"] == documents[0]["heads"] for d in documents)
    assert [err.count("norm head of its own") for _, err in done] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("target", "n"), [("o/b", 5), ("o/b:state", 3), ("o/a#0:actions:1", 1), ("o/c:state:7", 1)]
)
def test_explain_adds_up_to_the_head(mixture, target, n):
    report, _ = prepare(mixture, explain_target=target)
    assert len(report.explanations) == n
    for each in report.explanations:
        row = report.heads.norm_key_to_index[each.norm_key]
        stats = report.heads.per_norm_key_stats[row][each.feature]
        assert each.values["mean"] == stats["mean"][each.dim]
        weights = np.array([part.weight for part in each.contributions])
        means = np.array([part.values["mean"] for part in each.contributions])
        np.testing.assert_allclose((weights * means).sum() / weights.sum(), each.values["mean"])
        padded = each.dim >= (3 if each.feature == "state" else 2)
        assert [part.source is None for part in each.contributions] == [padded] * len(weights)


def test_explain_names_masked_contributors_and_column_selection(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        tiny_dataset(tmp_path, "v3.0", name=name, seed=seed, **TAGS)
    stats = json.loads((tmp_path / "b/meta/stats.json").read_text())
    stats["observation.state"]["mean"][2] = float("nan")
    (tmp_path / "b/meta/stats.json").write_text(json.dumps(stats))
    entries = [{"repo_id": n, "root": n, "state_index": [2, 0]} for n in "ab"]
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"datasets": entries}))
    report, notices = prepare(path, explain_target="a:state:0")
    (each,) = report.explanations
    assert [part.source for part in each.contributions] == ["observation.state[2]"] * 2
    assert each.contributions[0].masked == ()
    assert set(each.contributions[1].masked) == {"mean", "std"}
    assert each.values["mean"] == each.contributions[0].values["mean"]
    assert any(n.kind == "non_finite" for n in notices)


@pytest.mark.parametrize("target", ["nobody", "o/b:speed", "o/b:state:99", "o/b:state:-1"])
def test_explain_unknown_target_says_what_there_is(mixture, target):
    with pytest.raises(ConfigError, match="--explain"):
        prepare(mixture, explain_target=target)
    assert not (mixture.parent / "norm_heads.json").exists()


def test_heads_command_json_equals_the_library(mixture):
    out = mixture.parent / "norm_heads.json"
    done = cli("heads", "--mixture-json", mixture, "--out", out, "--json", "--audit")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    report, _ = prepare(mixture, audit=True)
    assert document["heads"] == json.loads(dump_own(report.as_json()["heads"]))
    assert document["audit"] == report.audit.as_json()
    table = cli("heads", "--mixture-json", mixture, "--out", out, "--explain", "o/b:state:0")
    assert "arm::joint" in table.stdout
    assert "own name: no tags" in table.stdout
    assert "observation.state[0]" in table.stdout


def test_heads_command_wrong_widths_are_exit_2_without_traceback(mixture):
    done = cli("heads", "--mixture-json", mixture, "--max-state-dim", "2")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "o/a#0" in done.stderr
    assert "o/c" in done.stderr
    assert "--truncate-dims" in done.stderr


def sketched(folder: Path, name: str, *, shift: float, seed: int) -> np.ndarray:
    """Write a dataset of skewed values with its sketch; return its states."""
    rng = np.random.default_rng(seed)
    episodes = tiny_episodes(lengths=[400, 300], seed=seed)
    for episode in episodes:
        episode.state[:] = rng.gamma(1.5, size=episode.state.shape) + shift
    root = tiny_dataset(folder, "v2.1", name=name, episodes=episodes, quantiles=True, **TAGS)
    frames = np.concatenate([e.state for e in episodes]).astype(np.float64)
    actions = np.concatenate([e.actions for e in episodes]).astype(np.float64)
    sketches = {
        "observation.state": QuantileSketch.of(frames),
        "action": QuantileSketch.of(actions),
    }
    (root / "meta/quantile_sketch.json").write_bytes(dump_own(encode_sketches(sketches)))
    return frames


def test_sketch_quantiles_are_those_of_all_frames(tmp_path):
    frames = [
        sketched(tmp_path, n, shift=s, seed=i) for i, (n, s) in enumerate([("a", 0), ("b", 4)])
    ]
    path = tmp_path / "mixture.json"
    entries = [{"repo_id": n, "root": n, "state_index": [2, 0]} for n in "ab"]
    path.write_text(json.dumps({"datasets": entries}))
    pooled, said = prepare(path)
    real, _ = prepare(path, options=HeadOptions(quantiles="sketch"))
    both = np.concatenate(frames)[:, [2, 0]]
    for name, q in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        value = real.heads.per_norm_key_stats[0]["state"][name]
        assert value[2:].tolist() == [0.0] * 30
        np.testing.assert_allclose((both <= value[:2]).mean(axis=0), q, atol=0.01)
    # The mean of two q01 four apart lies far inside the lower dataset.
    wrong = pooled.heads.per_norm_key_stats[0]["state"]["q01"][:2]
    true_rank = (both <= wrong).mean(axis=0)
    assert (true_rank > 0.3).all()
    for report in (pooled, real):
        rank = next(
            r for r in report.summaries[0].ranks if (r.feature, r.quantile) == ("state", "q01")
        )
        np.testing.assert_allclose(rank.ranks, true_rank, atol=0.02)
        assert rank.dims_off == (0, 1)
    (warned,) = [n for n in said if n.kind == "pooled_quantile_rank"]
    assert list(warned.details["ranks"]) == ["arm::joint"]
    assert "--quantiles sketch" in warned.message
    for report in (pooled, real):
        mean = report.heads.per_norm_key_stats[0]["state"]["mean"]
        assert mean.tobytes() == pooled.heads.per_norm_key_stats[0]["state"]["mean"].tobytes()


def test_sketch_mode_without_sketches_names_all_that_lack_one(mixture):
    with pytest.raises(MetadataError) as error:
        prepare(mixture, options=HeadOptions(quantiles="sketch"))
    for name in ("o/a#0", "o/b", "o/a#1", "o/c"):
        assert name in str(error.value)
    assert "opentau-prep stats" in str(error.value)
    assert not (mixture.parent / "norm_heads.json").exists()


def test_damaged_sketch_is_an_error_of_its_file(tmp_path):
    sketched(tmp_path, "a", shift=0, seed=1)
    (tmp_path / "a/meta/quantile_sketch.json").write_text("[1]")
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"datasets": [{"repo_id": "a", "root": "a"}]}))
    with pytest.raises(MetadataError, match="quantile_sketch"):
        prepare(path)


def test_prepare_heads_takes_delta_actions_from_the_stats_artifact(tmp_path):
    from opentau_prep.stats.delta import DeltaStats, delta_place, delta_recipe

    frames = sketched(tmp_path, "a", shift=0, seed=1)
    entry = {"repo_id": "a", "root": "a", "action_index": [1, 0]}
    entry |= {"use_delta_joint_actions": True, "delta_action_state_map": {"0": 0}}
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"datasets": [entry, {"vqa": "clevr"}]}))
    (first,) = resolve_mixture(load_mixture(path)).entries
    recipe = delta_recipe(first, load_mixture(path))
    values = frames[:, [1, 0]] * 3 - 1  # of selected columns already
    names = {"min": values.min, "max": values.max, "mean": values.mean, "std": values.std}
    stats = {name: reduce(axis=0).astype(np.float32) for name, reduce in names.items()}
    stats["count"] = np.array([len(values)])
    sketch = QuantileSketch.of(values)
    state = {**stats, "mean": stats["mean"] + 1}
    made = DeltaStats({"actions": stats, "state": state}, sketch, 10, 7)
    place = delta_place(first, recipe, 10, None)
    place.path.parent.mkdir()
    place.path.write_bytes(made.to_bytes(recipe))
    report, _ = prepare(path, options=HeadOptions(quantiles="sketch"), explain_target="a:actions:0")
    actions = report.heads.per_norm_key_stats[0]["actions"]
    assert actions["max"][1] == stats["max"][1]
    assert report.heads.per_norm_key_stats[0]["state"]["mean"][0] == state["mean"][0]
    assert report.explanations[0].contributions[0].source == "action[1] (delta)"
    assert report.explanations[0].contributions[0].values["mean"] == stats["mean"][0]
    assert actions["q99"][1] > 1
    with pytest.raises(MetadataError, match="--chunk-size 20"):
        prepare(path, options=HeadOptions(chunk_size=20))
