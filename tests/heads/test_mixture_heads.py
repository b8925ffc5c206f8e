"""Heads of a mixture, end to end: against an independent reading of the same files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import tiny_dataset
from golden_io import assert_same_bits

from opentau_prep import load_mixture, load_norm_heads, mixture_norm_heads
from opentau_prep.context import RunContext
from opentau_prep.demo.mixture import write_demo
from opentau_prep.errors import ConfigError, MetadataError, PrepError
from opentau_prep.heads.compute import prepare_heads
from opentau_prep.heads.files import decode_heads, encode_heads
from opentau_prep.heads.options import HeadOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices

DIMS = {"max_state_dim": 32, "max_action_dim": 32}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("heads") / "demo")


def build(path, **options):
    with collect_notices() as notices:
        heads = mixture_norm_heads(load_mixture(path), **{**DIMS, **options})
    return heads, notices


def write_mixture(folder: Path, entries, **fields) -> Path:
    path = folder / "mixture.json"
    path.write_text(json.dumps({"datasets": entries, **fields}))
    return path


def pool(parts, weights):
    """Pool in plain NumPy, contributor by contributor, as the training code's rule reads."""
    w = [np.float64(x) for x in weights]
    mean = sum(x * p["mean"] for x, p in zip(w, parts, strict=True)) / sum(w)
    spread = sum(
        x * (p["std"] ** 2 + (p["mean"] - mean) ** 2) for x, p in zip(w, parts, strict=True)
    )
    out = {
        "min": np.min([p["min"] for p in parts], axis=0),
        "max": np.max([p["max"] for p in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(spread / sum(w)),
        "count": np.asarray(sum(w)),
    }
    shared = set.intersection(*({s for s in p if s[0] == "q"} for p in parts))
    for quantile in sorted(shared):
        out[quantile] = sum(x * p[quantile] for x, p in zip(w, parts, strict=True)) / sum(w)
    return out


def training_stats(root: Path, episodes):
    """Read a demo dataset's stats as training does, with json and pyarrow alone."""
    lines = root / "meta/episodes_stats.jsonl"
    if lines.exists() or episodes is not None:
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        rows = [r["stats"] for r in rows if episodes is None or r["episode_index"] in episodes]
        parts = {f: [{s: np.array(v) for s, v in r[f].items()} for r in rows] for f in rows[0]}
        pooled = {}
        for feature, entries in parts.items():
            counts = [int(entry["count"][0]) for entry in entries]
            pooled[feature] = pool(entries, counts)
            pooled[feature]["count"] = np.array([sum(counts)])
        return pooled
    raw = json.loads((root / "meta/stats.json").read_text())
    return {f: {s: np.array(v) for s, v in entry.items()} for f, entry in raw.items()}


def training_heads(path: Path):
    """The heads of the demo mixture, written out by hand."""
    root = path.parent / "datasets/demo"
    arm = list(range(3, 11))
    everyone = ("observation.state", "action")
    stack = [e for e in range(14) if e != 3]
    plan = [
        ("demo_arm6::joint", [("arm6_pick", None, None), ("arm6_stack", stack, None)]),
        ("demo_arm6::ee", [("arm6_pose", None, None)]),
        (
            "demo_bimanual::joint",
            [("bimanual_fold", range(12), None), ("bimanual_fold", range(12, 20), None)],
        ),
        ("demo_humanoid::joint", [("humanoid_carry", None, None)]),
        ("demo/old_push", [("old_push", None, None)]),
        ("demo_mobile::joint", [("mobile_wipe", None, arm)]),
    ]
    heads = {}
    for key, datasets in plan:
        members, weights = [], []
        for name, episodes, index in datasets:
            columns = ("state", "actions") if name == "old_push" else everyone
            stats = training_stats(root / name, episodes)
            padded = {}
            for standard, column in zip(("state", "actions"), columns, strict=True):
                entry = stats[column]
                padded[standard] = {"count": entry["count"]} if "count" in entry else {}
                for stat in set(entry) - {"count"}:
                    values = entry[stat] if index is None else entry[stat][index]
                    padded[standard][stat] = np.zeros(32, values.dtype)
                    padded[standard][stat][: len(values)] = values
            members.append(padded)
            info = json.loads((root / name / "meta/info.json").read_text())
            weights.append(info["total_frames"])
        if len(members) == 1:
            heads[key] = members[0]
        else:
            heads[key] = {f: pool([m[f] for m in members], weights) for f in ("state", "actions")}
    return heads


def test_mixture_norm_heads_demo_equals_training_through_memory_and_files(demo, tmp_path):
    expected = training_heads(demo)
    in_memory, _ = build(demo)
    assert in_memory.norm_keys == list(expected)
    assert_same_bits(in_memory.per_norm_key_stats, list(expected.values()), "memory")
    out = tmp_path / "heads.json"
    with collect_notices():
        resolved = resolve_mixture(load_mixture(demo))
        report = prepare_heads(resolved, RunContext(), HeadOptions(), out=out)
    from_file = load_norm_heads(out)
    assert_same_bits(from_file.per_norm_key_stats, list(expected.values()), "file")
    assert from_file._replace(per_norm_key_stats=[]) == in_memory._replace(per_norm_key_stats=[])
    for file in report.files:
        head = json.loads(file.path.read_text())
        row = in_memory.dataset_to_norm_index[file.datasets[0]]
        assert (head["row"], head["key"]) == (row, in_memory.norm_keys[row])
        assert head["members"] == in_memory.norm_key_to_dataset_names[head["key"]]
        mean = np.array(head["stats"]["state"]["mean"])
        assert mean.tobytes() == expected[head["key"]]["state"]["mean"].tobytes()


def test_mixture_norm_heads_reads_metadata_only(demo):
    resolved = resolve_mixture(load_mixture(demo))
    with collect_notices():
        mixture_norm_heads(resolved, **DIMS)
    for entry in resolved.entries:
        assert entry.meta.storage.opened["data"] == 0


def test_mixture_norm_heads_unreadable_stats_are_named_at_once(tmp_path):
    names = ["good", "bad0", "bad1"]
    for name in names:
        tiny_dataset(tmp_path, "v2.1", name=name, data=False)
    (tmp_path / "bad0/meta/episodes_stats.jsonl").write_text("{broken\n")
    (tmp_path / "bad1/meta/episodes_stats.jsonl").unlink()
    path = write_mixture(tmp_path, [{"repo_id": f"o/{n}", "root": n} for n in names])
    before = sorted(tmp_path.rglob("*"))
    resolved = resolve_mixture(load_mixture(path))
    with pytest.raises(MetadataError) as error, collect_notices():
        prepare_heads(resolved, RunContext(), HeadOptions(), out=tmp_path / "out.json")
    assert "o/bad0" in str(error.value)
    assert "o/bad1" in str(error.value)
    assert "o/good" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_mixture_norm_heads_required_tag_missing_stops_before_stats(tmp_path):
    for name in ("a", "b", "c"):
        root = tiny_dataset(tmp_path, "v2.1", name=name, robot_type="arm", data=False)
        (root / "meta/episodes_stats.jsonl").write_text("{broken\n")
    entries = [{"repo_id": n, "root": n} for n in "abc"]
    entries[0]["robot_type"] = ""
    entries[2]["robot_type"] = " "
    path = write_mixture(tmp_path, entries, require_non_empty_robot_type=True)
    with pytest.raises(ConfigError, match="a \\(robot_type\\); c \\(robot_type\\)"):
        build(path)


def test_mixture_norm_heads_vqa_entry_takes_a_row(tmp_path):
    tiny_dataset(tmp_path, "v2.1", name="a", data=False)
    vqa = [{"vqa": "clevr", "num_samples": 70}, {"vqa": "pixmo"}]
    path = write_mixture(tmp_path, [vqa[0], {"repo_id": "a", "root": "a"}, vqa[1]])
    heads, notices = build(path, num_cams=2)
    assert heads.dataset_to_norm_index == {"clevr": 0, "a": 1, "pixmo": 2}
    (notice,) = (n for n in notices if n.kind.startswith("vqa"))
    assert (notice.kind, notice.details["datasets"]) == ("vqa_num_samples", ["pixmo"])
    zeros = {stat: np.zeros(32) for stat in ("min", "max", "mean", "std")}
    imagenet = {"min": [0, 0, 0], "max": [1, 1, 1], "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225]}  # fmt: skip
    camera = {s: np.array(v, dtype=np.float64).reshape(3, 1, 1) for s, v in imagenet.items()}
    placeholder = {"min": 0, "max": 1, "mean": 0, "std": 0}
    missing = {s: np.full((3, 1, 1), v, np.float32) for s, v in placeholder.items()}
    for row, count in ((0, 70), (2, 1)):
        features = {"state": zeros, "actions": zeros, "camera0": camera, "camera1": missing}
        expected = {f: {**entry, "count": np.array([count])} for f, entry in features.items()}
        assert_same_bits(heads.per_norm_key_stats[row], expected)
    alone, _ = build(write_mixture(tmp_path, [{"repo_id": "a", "root": "a"}]), num_cams=2)
    assert_same_bits(heads.per_norm_key_stats[1], alone.per_norm_key_stats[0])


def test_mixture_norm_heads_vqa_entry_with_tags_shares_their_head(tmp_path):
    tags = {"robot_type": "arm", "control_mode": "joint"}
    tiny_dataset(tmp_path, "v2.1", name="a", data=False, state_dim=1, action_dim=1, **tags)
    entries = [{"repo_id": "a", "root": "a"}, {"vqa": "clevr", **tags}]
    heads, _ = build(write_mixture(tmp_path, entries))
    assert heads.norm_key_to_dataset_names == {"arm::joint": ["a", "clevr"]}
    info = json.loads((tmp_path / "a/meta/info.json").read_text())
    # The entry weighs 1, whatever its number of samples.
    assert float(heads.per_norm_key_stats[0]["state"]["count"]) == info["total_frames"] + 1
    del entries[1]["robot_type"]
    with pytest.raises(ConfigError, match="clevr \\(robot_type\\)"):
        build(write_mixture(tmp_path, entries, require_non_empty_robot_type=True))
    alone, _ = build(write_mixture(tmp_path, entries[1:]))
    assert alone.norm_keys == ["clevr"]


def test_heads_command_with_vqa_entry_writes_its_row_and_stays_fresh(tmp_path):
    tiny_dataset(tmp_path, "v2.1", name="a")
    path = write_mixture(tmp_path, [{"vqa": "clevr"}, {"repo_id": "a", "root": "a"}])
    resolved = resolve_mixture(load_mixture(path))
    statuses = []
    for _ in range(2):
        with collect_notices():
            report = prepare_heads(
                resolved, RunContext(), HeadOptions(), out=tmp_path / "h.json",
                explain_target="clevr:state:0",
            )  # fmt: skip
        statuses.append([report.out.status, *(file.status for file in report.files)])
    assert statuses == [["written"] * 2, ["up to date"] * 2]
    assert load_norm_heads(tmp_path / "h.json").dataset_to_norm_index == {"clevr": 0, "a": 1}
    first = report.summaries[0]
    assert (first.key, first.row, first.frames) == ("clevr", 0, 0)
    assert report.explanations[0].contributions[0].source is None


@pytest.mark.parametrize(("repo_id", "flag", "replaced"), [
    ("lab/a", None, True), ("lab/a", False, False), ("lab/dummy_a", True, False)])  # fmt: skip
def test_mixture_norm_heads_imagenet_stats_as_in_training(tmp_path, repo_id, flag, replaced):
    tiny_dataset(tmp_path, "v2.1", name="a", data=False, cameras=("observation.images.top",))
    entry = {"repo_id": repo_id, "root": "a"} | (
        {} if flag is None else {"use_imagenet_stats": flag}
    )
    heads, _ = build(write_mixture(tmp_path, [entry]), num_cams=1)
    camera = heads.per_norm_key_stats[0]["camera0"]
    own = training_stats(tmp_path / "a", None)["observation.images.top"]
    imagenet = {"min": [0, 0, 0], "max": [1, 1, 1], "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225]}  # fmt: skip
    four = {s: np.array(v, dtype=np.float32).reshape(3, 1, 1) for s, v in imagenet.items()}
    assert_same_bits(camera, {**own, **four} if replaced else own)


def test_mixture_norm_heads_too_wide_is_refused_or_cut_on_request(tmp_path):
    tiny_dataset(tmp_path, "v2.1", name="a", state_dim=6, action_dim=4, data=False)
    path = write_mixture(tmp_path, [{"repo_id": "a", "root": "a"}])
    with pytest.raises(ConfigError, match="--truncate-dims"):
        build(path, max_state_dim=4)
    whole, _ = build(path)
    cut, notices = build(path, max_state_dim=4, truncate_dims=True)
    assert [n.message for n in notices if n.kind == "truncated_dims"] == [
        "dims beyond the maximum are cut off: a (state 6 -> 4)"
    ]
    expected = {s: v[:4] for s, v in whole.per_norm_key_stats[0]["state"].items() if s != "count"}
    got = {s: v for s, v in cut.per_norm_key_stats[0]["state"].items() if s != "count"}
    assert_same_bits(got, expected)


def test_mixture_norm_heads_delta_actions_without_stats_says_the_command(tmp_path):
    tiny_dataset(tmp_path, "v2.1", name="a", data=False)
    entry = {"repo_id": "a", "root": "a", "use_delta_joint_actions": True}
    path = write_mixture(tmp_path, [{**entry, "delta_action_state_map": {"0": 0}}])
    with pytest.raises(PrepError, match="delta") as error:
        build(path)
    assert f"opentau-prep stats --mixture-json {path}" in str(error.value)


@pytest.mark.parametrize("num_cams", [1, 3])
def test_mixture_norm_heads_cameras_come_back_from_the_file(demo, num_cams):
    heads, _ = build(demo, num_cams=num_cams)
    last = heads.per_norm_key_stats[-1][f"camera{num_cams - 1}"]
    assert last["mean"].shape == (3, 1, 1)
    again = decode_heads(encode_heads(heads), where="memory")
    assert_same_bits(again.per_norm_key_stats, heads.per_norm_key_stats)


def test_decode_heads_keeps_odd_numbers_names_and_dtypes():
    from opentau_prep.heads import NormHeads

    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1 / 3])
    stats = {
        "state": {"mean": values, "std": values.astype(np.float32), "count": np.array([2**53 + 1])},
        "actions": {"mean": values[::-1].copy(), "count": np.asarray(7.0)},
    }
    heads = NormHeads(
        ["NaN"], [stats], {"NaN": 0}, {"NaN": 0, "\\NaN": 0}, {"NaN": ["NaN", "\\NaN"]}
    )
    again = decode_heads(encode_heads(heads), where="memory")
    assert_same_bits(again.per_norm_key_stats, heads.per_norm_key_stats)
    assert again._replace(per_norm_key_stats=[]) == heads._replace(per_norm_key_stats=[])


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b'{"format": "else"}',
        b'{"format": "opentau-prep/norm-heads", "heads": 3}',
        b'{"format": "opentau-prep/norm-heads", "heads": [], "dataset_to_norm_index": {"a": 0}}',
        b'{"format": "opentau-prep/norm-heads", "dataset_to_norm_index": {"a": 0}, "heads": '
        b'[{"key": "a", "row": 0, "members": ["a"], "stats": {"s": {"mean": [1]}},'
        b' "dtypes": {"s": {"mean": "object"}}}]}',
    ],
)
def test_load_norm_heads_damaged_file_is_an_error(tmp_path, damage):
    path = tmp_path / "heads.json"
    path.write_bytes(damage)
    with pytest.raises(MetadataError, match=str(path)):
        load_norm_heads(path)
    with pytest.raises(MetadataError, match="cannot be read"):
        load_norm_heads(tmp_path / "missing.json")


def test_demo_parquet_agrees_with_heads(demo):
    """The v3.0 head's extremes are those of the frames themselves."""
    heads, _ = build(demo)
    files = sorted((demo.parent / "datasets/demo/arm6_pose/data").rglob("*.parquet"))
    frames = np.concatenate(
        [np.stack(pq.read_table(f)["action"].to_pylist()).astype(np.float64) for f in files]
    )
    head = heads.per_norm_key_stats[1]["actions"]
    np.testing.assert_array_equal(head["min"][:7], frames.min(axis=0))
    np.testing.assert_array_equal(head["max"][:7], frames.max(axis=0))
    np.testing.assert_allclose(head["mean"][:7], frames.mean(axis=0), rtol=1e-6, atol=1e-7)
