"""What is wrong with the frames is named, and costs nothing but what it touches."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import tiny_dataset
from cli_runner import run_cli
from stats_runs import assert_plain, bytes_below, frames_of, read_lines, run_one

FILE = "data/chunk-000/episode_000001.parquet"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def _dataset(tmp_path, **options):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[30, 20, 40], **options)
    (root / "meta/episodes_stats.jsonl").unlink()
    return root


def _with_column(root, name, array):
    table = pq.read_table(root / FILE)
    position = table.column_names.index(name)
    pq.write_table(table.set_column(position, name, array), root / FILE)


def _truncate(root):
    data = (root / FILE).read_bytes()
    (root / FILE).write_bytes(data[: len(data) // 2])


def _ragged(root):
    _with_column(root, "action", pa.array([[0.5] * (2 + (i == 7)) for i in range(20)]))


def _drop_column(root):
    pq.write_table(pq.read_table(root / FILE).drop_columns(["action"]), root / FILE)


BREAKS = {
    "truncated": _truncate,
    "lfs": lambda root: (root / FILE).write_bytes(LFS),
    "column": _drop_column,
}


COLUMN_BREAKS = {
    "ragged": _ragged,
    "width": lambda root: _with_column(root, "action", pa.array([[0.5] * 5] * 20)),
    "text": lambda root: _with_column(root, "action", pa.array(["x"] * 20)),
}


@pytest.mark.parametrize("keep_going", [False, True])
@pytest.mark.parametrize("kind", COLUMN_BREAKS)
def test_stats_an_unusable_column_costs_that_column_only(tmp_path, kind, keep_going):
    root = _dataset(tmp_path)
    columns, episode = frames_of(root)
    COLUMN_BREAKS[kind](root)
    for read in (3, 0):
        result = run_one(root, keep_going=keep_going)
        (finding,) = result.findings
        assert (finding.code, finding.feature) == ("unusable_column", "action")
        assert "episode_000001.parquet" in finding.message
        assert (result.files_read > 0) == (read > 0)
        assert (result.episodes, result.frames) == (3, 90)
    assert "action" not in json.loads((root / "meta/stats.json").read_text())
    rows = {r["episode_index"]: r["stats"] for r in read_lines(root / "meta/episodes_stats.jsonl")}
    state = columns["observation.state"]
    for e, stats in rows.items():
        assert stats["observation.state"]["max"] == state[episode == e].max(axis=0).tolist()
    ran = run_cli("stats", root, "--workers", 1)
    assert (ran.code, "unusable_column" in ran.out) == (1, True)


@pytest.mark.parametrize("kind", BREAKS)
def test_stats_an_unusable_file_is_an_error_that_names_it(tmp_path, kind):
    root = _dataset(tmp_path)
    BREAKS[kind](root)
    ran = run_cli("stats", root, "--workers", 1)
    assert ran.code == 3
    assert "episode_000001.parquet" in ran.err
    assert "Traceback" not in ran.err
    assert not (root / "meta/stats.json").exists()


@pytest.mark.parametrize("kind", BREAKS)
def test_stats_keep_going_leaves_out_an_unusable_file_and_says_so(tmp_path, kind):
    root = _dataset(tmp_path)
    columns, episode = frames_of(root)
    BREAKS[kind](root)
    args = ("--json", "--keep-going", "--workers", 1, "--episode-quantiles", "episode")
    ran = run_cli("stats", root, *args)
    assert ran.code == 1
    (finding,) = ran.json["datasets"][0]["findings"]
    assert finding["code"] == "unreadable_file"
    assert finding["where"].endswith(FILE)
    assert finding["episodes"] == [1]
    rows = {r["episode_index"]: r["stats"] for r in read_lines(root / "meta/episodes_stats.jsonl")}
    assert sorted(rows) == [0, 2]
    for e, stats in rows.items():
        assert_plain(stats["action"], columns["action"][episode == e])


@pytest.mark.parametrize("kind", ["truncated", "column"])
def test_stats_keep_going_again_reads_nothing_and_says_what_is_still_unusable(tmp_path, kind):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[30, 20, 40])
    whole = (root / FILE).read_bytes()
    BREAKS[kind](root)
    first = run_one(root, keep_going=True)
    before = bytes_below(root)
    again = run_cli("stats", root, "--json", "--keep-going", "--workers", 1)
    assert again.code == 1
    (result,) = again.json["datasets"]
    assert (result["files_read"], result["status"]) == (0, "up to date")
    assert [f["message"] for f in result["findings"]] == [f.message for f in first.findings]
    assert bytes_below(root) == before
    # Where nothing may be left out it is no result.
    assert run_cli("stats", root, "--workers", 1).code == 3
    (root / FILE).write_bytes(whole)
    mended = run_one(root, keep_going=True)
    assert (mended.files_read, mended.findings, mended.episodes) == (3, (), 3)


def test_stats_keep_going_does_the_other_datasets(tmp_path):
    good = _dataset(tmp_path, name="good")
    bad = _dataset(tmp_path, name="bad")
    (bad / "meta/episodes.jsonl").write_text("")
    ran = run_cli("stats", bad, good, "--json", "--keep-going", "--workers", 1)
    assert ran.code == 1
    assert [d["dataset"] for d in ran.json["datasets"]] == ["good"]
    assert [f["dataset"] for f in ran.json["failures"]] == ["bad"]


def _broken_values(root):
    rows = frames_of(root)[0]["action"][30:50].copy()
    rows[3, 0], rows[4, 0], rows[5, 1] = math.nan, math.inf, -math.inf
    _with_column(root, "action", pa.array(rows.tolist(), pa.list_(pa.float32(), 2)))


def test_stats_non_finite_values_are_counted_and_left_out(tmp_path):
    root = _dataset(tmp_path)
    _broken_values(root)
    ran = run_cli("stats", root, "--json", "--workers", 1)
    assert ran.code == 1
    (finding,) = ran.json["datasets"][0]["findings"]
    assert (finding["code"], finding["dims"]) == ("non_finite", [0, 1])
    assert "1 NaN, 1 +Inf, 1 -Inf" in finding["message"]
    rows = frames_of(root)[0]["action"].astype(float)
    rows[~np.isfinite(rows)] = math.nan
    written = json.loads((root / "meta/stats.json").read_text())["action"]
    np.testing.assert_allclose(written["mean"], np.nanmean(rows, axis=0), rtol=1e-12)
    np.testing.assert_allclose(written["std"], np.nanstd(rows, axis=0), rtol=1e-12)
    assert written["max"] == np.nanmax(rows, axis=0).tolist()
    assert written["q50"] == np.nanquantile(rows, 0.5, axis=0).tolist()
    again = run_cli("stats", root, "--json")
    assert again.code == 1
    assert again.json["datasets"][0]["files_read"] == 0


def test_stats_a_dim_without_a_finite_value_stops_the_write_unless_forced(tmp_path):
    root = _dataset(tmp_path)
    rows = [[math.nan, 0.5]] * 20
    _with_column(root, "action", pa.array(rows, pa.list_(pa.float32(), 2)))
    result = run_one(root)
    status = {f.name: f.status for f in result.files}
    assert status["meta/episodes_stats.jsonl"] == "no finite value"
    assert not (root / "meta/episodes_stats.jsonl").exists()
    before = bytes_below(root)
    again = run_one(root)
    assert (again.files_read, again.status) == (0, "no finite value")
    assert bytes_below(root) == before
    run_one(root, force=True)
    stats = read_lines(root / "meta/episodes_stats.jsonl")[1]["stats"]["action"]
    assert math.isnan(stats["mean"][0])
    assert stats["mean"][1] == 0.5


def test_stats_an_empty_episode_is_named(tmp_path):
    root = _dataset(tmp_path)
    pq.write_table(pq.read_table(root / FILE).slice(0, 0), root / FILE)
    ran = run_cli("stats", root, "--json", "--workers", 1)
    assert ran.code == 1
    codes = {f["code"]: f["episodes"] for f in ran.json["datasets"][0]["findings"]}
    assert codes == {"empty_episode": [1]}
    assert [r["episode_index"] for r in read_lines(root / "meta/episodes_stats.jsonl")] == [0, 2]


def test_stats_a_declared_column_that_no_file_has_is_named(tmp_path):
    root = _dataset(tmp_path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["effort"] = {"dtype": "float32", "shape": [2], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    ran = run_cli("stats", root, "--json", "--workers", 1)
    assert ran.code == 1
    (finding,) = ran.json["datasets"][0]["findings"]
    assert (finding["code"], finding["feature"]) == ("missing_column", "effort")
    assert "action" in ran.json["datasets"][0]["stats"]


def test_stats_list_columns_of_unknown_width_and_booleans_are_read(tmp_path):
    root = _dataset(tmp_path)
    for file in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(file)
        n = len(table)
        table = table.append_column("odd", pa.array([[1.0, float(i)] for i in range(n)]))
        table = table.append_column("next.done", pa.array([i == n - 1 for i in range(n)]))
        pq.write_table(table, file)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["odd"] = {"dtype": "float64"}
    info["features"]["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    stats = run_one(root).stats
    assert stats["odd"]["max"].tolist() == [1.0, 39.0]
    assert stats["next.done"]["max"].tolist() == [1]
    assert stats["next.done"]["mean"] == pytest.approx([3 / 90])


def test_stats_a_ragged_row_deep_in_a_shared_file_costs_the_column(tmp_path, monkeypatch):
    monkeypatch.setattr("opentau_prep.stats.scan.BLOCK_BYTES", 2048)
    root = tiny_dataset(tmp_path, "v3.0", lengths=[30, 20, 40, 35], episodes_per_file=2)
    first = sorted((root / "data").rglob("*.parquet"))[0]
    table = pq.read_table(first)
    rows = table["action"].to_pylist()
    rows[-1] = [*rows[-1], 0.5]
    position = table.column_names.index("action")
    broken = table.set_column(position, "action", pa.array(rows))
    pq.write_table(broken, first, row_group_size=10)
    result = run_one(root, keep_going=True)
    (finding,) = result.findings
    assert (finding.code, finding.feature) == ("unusable_column", "action")
    assert (result.episodes, result.frames) == (4, 125)


@pytest.mark.parametrize("rel", ["meta/stats.json", "meta/episodes_stats.jsonl"])
@pytest.mark.parametrize("damage", [b'{"action": {"mean": [0.1', b"[]\n", b"\xff\xfe"])
def test_stats_a_damaged_file_is_replaced_with_force_only_and_kept(tmp_path, rel, damage):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[30, 20, 40])
    run_one(root)
    (root / rel).write_bytes(damage)
    ran = run_cli("stats", root, "--workers", 1)
    assert ran.code == 3
    assert rel in ran.err
    assert "--force" in ran.err
    before = bytes_below(root)
    assert run_cli("stats", root, "--workers", 1, "--force", "--dry-run").code == 0
    assert bytes_below(root) == before
    forced = run_cli("stats", root, "--workers", 1, "--force", "--json")
    assert forced.code == 0, forced.err
    (backup,) = (f["backup"] for f in forced.json["datasets"][0]["files"] if f["file"] == rel)
    assert Path(backup).read_bytes() == damage
    rows = frames_of(root)[0]["action"]
    assert_plain(json.loads((root / "meta/stats.json").read_text())["action"], rows)
    assert [r["episode_index"] for r in read_lines(root / "meta/episodes_stats.jsonl")] == [0, 1, 2]
    assert run_one(root).files_read == 0
