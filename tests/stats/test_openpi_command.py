"""`stats --format openpi`, and its configurations."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import copy_real, tiny_dataset
from cli_runner import run_cli

from opentau_prep import ConfigError, RunningStats
from opentau_prep.config.norm_stats import load_norm_stats_config

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "tests/golden/kai0.json").read_text())["cases"]


def _folder(tmp_path, dtypes=(np.float32,) * 3, rows=50):
    """Parquet files of a folder without meta/, and all their frames in sorted path order."""
    rng = np.random.default_rng(0)
    frames = []
    for k, dtype in enumerate(dtypes):
        path = tmp_path / "raw" / f"part-{k % 2}" / f"ep_{k}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        state, action = rng.standard_normal((2, rows, 4)).astype(dtype)
        columns = {"observation.state": state.tolist(), "action": action.tolist()}
        kind = pa.list_(pa.from_numpy_dtype(dtype))
        arrays = [pa.array(c, kind) for c in columns.values()]
        pq.write_table(pa.table(arrays, list(columns)), path)
        frames.append((path, state, action))
    frames.sort(key=lambda f: f[0])
    return tmp_path / "raw", frames


def _reference(frames, key, limit=None):
    """openpi's estimator fed with batches of 32 over all frames."""
    rows = np.concatenate([f[1 + key] for f in frames])[:limit]
    run = RunningStats()
    for start in range(0, len(rows), 32):
        run.update(rows[start : start + 32])
    return {name: values.tolist() for name, values in run.get_statistics().items()}


@pytest.mark.parametrize("edges", ["", "--numpy1-edges", "--numpy2-edges"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['action_dim']}-{c['max_frames']}")
def test_openpi_real_dataset_gives_recorded_bits(tmp_path, case, edges):
    root = copy_real(case["dataset"], tmp_path)
    args = ["stats", root, "--format", "kai0", "--action-dim", case["action_dim"], "--json"]
    args += ["--max-frames", case["max_frames"]] if case["max_frames"] else []
    expected = case["expected"]
    if edges:
        args.append(edges)
    if edges != "--numpy2-edges":
        expected = expected if case["expected_numpy1"] == "same" else case["expected_numpy1"]
    ran = run_cli(*args)
    lost = [c for c in ran.json["datasets"][0]["changed_values"].values() if _share(c) > 0.01]
    assert ran.code == bool(lost), ran.err
    found = json.loads((root / "meta/norm_stats.json").read_text())
    assert found == expected["norm_stats_json"]
    (result,) = ran.json["datasets"]
    counts = {k: expected[v] for k, v in (("frames", "frames"), ("files_processed",) * 2)}
    assert {k: result[k] for k in counts} == counts
    again = run_cli(*args)
    assert again.code == ran.code
    assert again.json["datasets"][0]["status"] == "up to date"
    assert again.json["datasets"][0]["files_processed"] == 0
    assert again.json["datasets"][0]["changed_values"] == result["changed_values"]


def _share(changed):
    return (changed["zeroed"] + changed["cut"]) / changed["values"]


@pytest.mark.parametrize("kind", ["openpi", "kai0"])
def test_openpi_values_outside_pi_are_zeroed_by_kai0_alone_and_counted(tmp_path, kind):
    folder, frames = _folder(tmp_path)
    out = tmp_path / "out.json"
    rows = np.concatenate([state for _, state, _ in frames]) * 3
    for path, state, action in frames:
        kinds = pa.list_(pa.float32())
        arrays = [pa.array((3 * x).tolist(), kinds) for x in (state, action)]
        pq.write_table(pa.table(arrays, ["observation.state", "action"]), path)
    ran = run_cli("stats", "--format", kind, "--base-dir", folder, "--out", out, "--json")
    (result,) = ran.json["datasets"]
    changed = result["changed_values"]["state"]
    outside = int((np.abs(rows) > np.pi).sum())
    assert outside > 0.01 * rows.size
    if kind == "openpi":
        assert (ran.code, changed["zeroed"], changed["padded"]) == (0, 0, 0)
        assert result["norm_stats"]["state"]["mean"] == pytest.approx(rows.mean(axis=0), rel=1e-5)
        return
    assert (ran.code, changed["zeroed"], changed["padded"]) == (1, outside, 28 * len(rows))
    clipped = np.where(np.abs(rows) > np.pi, 0, rows)
    mean = [*clipped.mean(axis=0), *[0.0] * 28]
    assert result["norm_stats"]["state"]["mean"] == pytest.approx(mean, rel=1e-5)
    text = run_cli("stats", "--format", kind, "--base-dir", folder, "--out", out)
    assert text.code == 1
    assert f"{outside / rows.size:.1%} of the values of state" in text.out


def test_openpi_kai0_skips_what_it_cannot_use_and_counts_it(tmp_path):
    folder, _ = _folder(tmp_path)
    (folder / "part-0/ep_9.parquet").write_bytes(b"PAR1 but not really")
    ran = run_cli("stats", "--format", "kai0", "--base-dir", folder, "--json")
    assert ran.code == 1
    (result,) = ran.json["datasets"]
    assert (result["files_found"], result["files_processed"]) == (4, 3)
    assert [Path(f["where"]).name for f in result["findings"]] == ["ep_9.parquet"]


CONFIG = """
import pathlib
from types import SimpleNamespace
def get_config(name):
    if name != "fold":
        raise ValueError(f"Config '{name}' not found. Did you mean 'fold'?")
    data = SimpleNamespace(repo_id=REPO)
    data.create = lambda assets_dirs, model: data
    return SimpleNamespace(
        assets_dirs=pathlib.Path(ASSETS), data=data, model=SimpleNamespace(action_dim=6)
    )
"""


@pytest.mark.parametrize("absolute", [True, False])
def test_openpi_config_name_is_a_training_config_where_openpi_is(tmp_path, absolute):
    folder, frames = _folder(tmp_path)
    repo = str(folder) if absolute else "raw"
    package = tmp_path / "site/openpi/training"
    package.mkdir(parents=True)
    for init in (package.parent, package):
        (init / "__init__.py").touch()
    values = f"REPO = {repo!r}\nASSETS = {str(tmp_path / 'assets')!r}\n"
    (package / "config.py").write_text(values + CONFIG)
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'site'}"}
    ran = run_cli("stats", "--config-name", "fold", cwd=tmp_path, env=env)
    out = (folder if absolute else tmp_path / "assets/raw") / "norm_stats.json"
    found = json.loads(out.read_text())["norm_stats"]
    states = np.concatenate([np.pad(s.astype(float), ((0, 0), (0, 2))) for _, s, _ in frames])
    clipped = [(None, np.where(np.abs(states) > np.pi, 0, states))]
    assert found["state"] == _reference(clipped, 0)
    assert len(found["actions"]["q99"]) == 6
    assert ran.code in (0, 1), ran.err
    wrong = run_cli("stats", "--config-name", "flod", cwd=tmp_path, env=env)
    assert wrong.code == 2
    assert "Did you mean 'fold'?" in wrong.err


@pytest.mark.parametrize("limit", [None, 70])
def test_openpi_bare_folder_is_read_in_sorted_order(tmp_path, limit):
    folder, frames = _folder(tmp_path)
    extra = ["--max-frames", limit] if limit else []
    out = tmp_path / "out.json"
    ran = run_cli("stats", "--format", "openpi", "--base-dir", folder, "--out", out, *extra)
    assert ran.code == 0, ran.err
    found = json.loads(out.read_text())["norm_stats"]
    assert found["state"] == _reference(frames, 0, limit)
    assert found["actions"] == _reference(frames, 1, limit)


def test_openpi_folders_of_one_name_have_places_of_their_own(tmp_path):
    folders = [_folder(tmp_path / parent)[0] for parent in "ab"]
    args = ("--format", "openpi", *folders, "--artifact-root", tmp_path / "out", "--json")
    for status in ("written", "up to date"):
        ran = run_cli("stats", *args)
        assert [d["status"] for d in ran.json["datasets"]] == [status] * 2
    assert len({d["path"] for d in ran.json["datasets"]}) == 2


def test_openpi_files_of_mixed_dtype_are_run_in_float64(tmp_path):
    folder, frames = _folder(tmp_path, (np.float32, np.float64, np.float32))
    ran = run_cli("stats", "--format", "openpi", "--base-dir", folder, "--json")
    assert ran.code == 0, ran.err
    wide = [(path, s.astype(float), a.astype(float)) for path, s, a in frames]
    assert ran.json["datasets"][0]["norm_stats"]["state"] == _reference(wide, 0)


def test_openpi_unusable_files_are_named_each_time_and_read_once(tmp_path):
    folder, frames = _folder(tmp_path)
    (folder / "part-0/ep_9.parquet").write_bytes(b"PAR1 but not really")
    pq.write_table(pa.table({"other": [1]}), folder / "part-1/ep_9.parquet")
    ran = run_cli("stats", "--format", "openpi", "--base-dir", folder)
    assert ran.code == 3
    assert "ep_9.parquet" in ran.err
    for processed in (3, 0):
        ran = run_cli("stats", "--format", "openpi", "--base-dir", folder, "--keep-going", "--json")
        assert ran.code == 1
        (result,) = ran.json["datasets"]
        assert result["files_processed"] == processed
        assert [Path(f["where"]).name for f in result["findings"]] == ["ep_9.parquet"] * 2
        assert result["norm_stats"]["state"] == _reference(frames, 0)
    assert run_cli("stats", "--format", "openpi", "--base-dir", folder).code == 3


def test_openpi_a_foreign_file_that_differs_is_left_alone(tmp_path):
    folder, frames = _folder(tmp_path)
    path = folder / "meta/norm_stats.json"
    path.parent.mkdir()
    theirs = {"norm_stats": {k: _reference(frames, i) for i, k in enumerate(("state", "actions"))}}
    path.write_text(json.dumps(theirs))
    assert run_cli("stats", "--format", "openpi", "--base-dir", folder).code == 0
    theirs["norm_stats"]["actions"]["q01"][2] += 1
    path.write_text(json.dumps(theirs))
    before = path.read_bytes()
    ran = run_cli("stats", "--format", "openpi", "--base-dir", folder)
    assert ran.code == 1
    assert "actions/q01" in ran.out
    assert path.read_bytes() == before
    assert run_cli("stats", "--format", "openpi", "--base-dir", folder, "--force").code == 0
    assert json.loads(path.read_text()) != theirs


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--max-frames", "0"], 2, "max-frames"),
        (["--action-dim", "0"], 2, "action-dim"),
        (["--config-name", "x"], 2, "x.json"),
        (["--mixture-json", "x"], 2, "one way"),
    ],
)
def test_openpi_wrong_use_is_one_message(tmp_path, args, code, said):
    folder, _ = _folder(tmp_path)
    ran = run_cli("stats", "--format", "openpi", "--base-dir", folder, *args)
    assert ran.code == code
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_openpi_options_without_the_format_are_refused(tmp_path):
    ran = run_cli("stats", tiny_dataset(tmp_path), "--action-dim", 8)
    assert ran.code == 2
    assert "--format openpi" in ran.err


@pytest.mark.parametrize(
    "option",
    [
        ["--quantile", 0.5],
        ["--no-episode-stats"],
        ["--episode-stats"],
        ["--episode-quantiles", "episode"],
        ["--memory-budget", 128],
        ["--chunk-size", 50],
    ],
)
def test_openpi_options_of_the_lerobot_format_are_refused(tmp_path, option):
    root = tiny_dataset(tmp_path)
    for openpi in (["--format", "openpi", root], ["--base-dir", root]):
        ran = run_cli("stats", *openpi, *option)
        assert ran.code == 2
        assert "no effect" in ran.err
    assert not (root / "meta/norm_stats.json").exists()


def test_openpi_source_with_the_lerobot_format_is_refused(tmp_path):
    ran = run_cli("stats", "--format", "lerobot", "--base-dir", tiny_dataset(tmp_path))
    assert ran.code == 2
    assert "--base-dir" in ran.err


def test_openpi_keep_going_does_the_roots_that_can_be_opened(tmp_path):
    good, bad = tiny_dataset(tmp_path, name="good"), tiny_dataset(tmp_path, name="bad")
    (bad / "meta/info.json").write_text("{")
    folder, _ = _folder(tmp_path)
    roots = [bad, good, folder, tmp_path / "nowhere"]
    assert run_cli("stats", "--format", "openpi", *roots).code == 3
    ran = run_cli("stats", "--format", "openpi", "--keep-going", "--json", *roots)
    assert ran.code == 1, ran.err
    assert {d["dataset"] for d in ran.json["datasets"]} == {"good", "raw"}
    assert [f["dataset"] for f in ran.json["failures"]] == ["bad", "nowhere"]
    alone = run_cli("stats", "--format", "openpi", "--keep-going", "--json", *roots[2:])
    assert alone.code == 1
    assert [f["dataset"] for f in alone.json["failures"]] == [str(tmp_path / "nowhere")]


def _config(tmp_path, **fields):
    (tmp_path / "configs").mkdir(exist_ok=True)
    (tmp_path / "configs/mine.json").write_text(json.dumps(fields))
    return tmp_path / "configs"


def test_openpi_config_says_folder_columns_and_output(tmp_path):
    folder, frames = _folder(tmp_path)
    _config(
        tmp_path,
        base_dir="raw",
        columns={"state": "action", "actions": "observation.state"},
        output="made/norm_stats.json",
    )
    env = {"PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))}
    ran = run_cli("stats", "--config-name", "mine", cwd=tmp_path, env=env)
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "made/norm_stats.json").read_text())["norm_stats"]
    assert found["actions"] == _reference(frames, 0)
    assert not (folder / "meta").exists()
    other, frames = _folder(tmp_path / "other")
    ran = run_cli("stats", "--config-name", "mine", "--base-dir", other, cwd=tmp_path, env=env)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"base_dir": "x", "actoin_dim": 3}, '"action_dim"'),
        ({"base_dir": "x", "columns": {"state": "a", "action": "b"}}, '"actions"'),
        ({"base_dir": "x", "action_dim": "32"}, "whole number"),
        ({"base_dir": "x", "repo_id": "y"}, "exactly one"),
        ({}, "exactly one"),
    ],
)
def test_load_norm_stats_config_fault_names_file_and_field(tmp_path, fields, said):
    folder = _config(tmp_path, **fields)
    with pytest.raises(ConfigError, match=r"mine\.json") as caught:
        load_norm_stats_config("mine", folder)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["nothing", "../mine", "/etc/passwd", ""])
def test_load_norm_stats_config_unknown_name_lists_what_there_is(tmp_path, name):
    folder = _config(tmp_path, base_dir="x")
    with pytest.raises(ConfigError, match=r"mine|plain name"):
        load_norm_stats_config(name, folder)


def test_shipped_norm_stats_configs_are_valid():
    names = sorted(p.stem for p in (ROOT / "configs").glob("openpi_*.json"))
    assert len(names) >= 2
    for name in names:
        load_norm_stats_config(name, ROOT / "configs")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_norm_stats_count_as_stale_for_validate_only_after_the_data_changed(tmp_path, version):
    root = tiny_dataset(tmp_path, version, lengths=[6, 5])
    assert run_cli("stats", root, "--format", "kai0", "--action-dim", 3).code == 0
    lint = ("validate", root, "--deep", "--json")
    assert "A002" not in run_cli(*lint).out
    path = sorted((root / "data").rglob("*.parquet"))[0]
    table = pq.read_table(path)
    pq.write_table(table, path, compression="none")
    (stale,) = [f for f in run_cli(*lint).json["findings"] if f["code"] == "A002"]
    assert stale["command"].endswith("--format kai0 --force --action-dim 3")
