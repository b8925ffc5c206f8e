import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import VERSIONS, copy_real, tiny_dataset
from cli_runner import run_cli
from stats_runs import (
    QUANTILES,
    assert_plain,
    bytes_below,
    frames_of,
    read_lines,
    run_one,
    run_stats,
    statuses,
)

from opentau_prep import load_dataset_metadata
from opentau_prep.errors import ConfigError
from opentau_prep.stats import load_sketches

INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def _bare(tmp_path, version, **options):
    """A dataset whose published stats are gone."""
    root = tiny_dataset(tmp_path, version, lengths=[40, 31, 7], **options)
    for name in ("stats.json", "episodes_stats.jsonl"):
        (root / "meta" / name).unlink(missing_ok=True)
    return root


@pytest.mark.parametrize("version", VERSIONS)
def test_stats_without_published_ones_equal_numpy(tmp_path, version):
    root = _bare(tmp_path, version)
    result = run_one(root, episode_quantiles="episode")
    assert result.quantiles == "exact"
    columns, episode = frames_of(root)
    written = json.loads((root / "meta/stats.json").read_text())
    assert set(written) >= {"observation.state", "action", *INDEX}
    for name, rows in columns.items():
        if version == "v2.0":
            assert "count" not in written[name]
            written[name]["count"] = [len(rows)]
        assert_plain(written[name], rows)
    assert isinstance(written["frame_index"]["max"][0], int)
    for e, stats in load_dataset_metadata(root).episodes_stats.items():
        for name, rows in columns.items():
            assert_plain(stats[name], rows[episode == e])
            assert stats[name]["count"].shape == (1,)


@pytest.mark.parametrize("version", VERSIONS)
def test_stats_second_run_reads_no_frames_and_writes_nothing(tmp_path, version):
    root = _bare(tmp_path, version)
    assert run_one(root).files_read > 0
    before = bytes_below(root)
    again = run_one(root)
    assert again.files_read == 0
    assert again.status == "up to date"
    assert bytes_below(root) == before


@pytest.mark.parametrize("version", VERSIONS)
def test_stats_published_exact_ones_are_up_to_date(tmp_path, version):
    root = tiny_dataset(tmp_path, version, quantiles=True)
    before = bytes_below(root)
    result = run_one(root)
    assert {s for f, s in statuses(result).items() if f == "meta/stats.json"} <= {
        "up to date",
        "written",
    }
    after = bytes_below(root)
    assert {k: after[k] for k in before} == before


@pytest.mark.parametrize("memory_budget", [0, 1 << 30])
def test_stats_any_number_of_workers_gives_the_same_bytes(tmp_path, memory_budget, monkeypatch):
    monkeypatch.setattr("opentau_prep.stats.scan.BLOCK_BYTES", 4096)
    found = []
    for workers in (1, 3):
        root = _bare(tmp_path / str(workers), "v3.0", episodes_per_file=1)
        run_one(root, workers=workers, memory_budget=memory_budget)
        found.append(bytes_below(root / "meta"))
    assert found[0] == found[1]


def test_stats_over_the_memory_budget_come_from_the_sketch(tmp_path, monkeypatch):
    monkeypatch.setattr("opentau_prep.stats.scan.BLOCK_BYTES", 4096)
    root = _bare(tmp_path, "v3.0", episodes_per_file=2)
    result = run_one(root, memory_budget=0)
    assert result.quantiles == "sketch"
    columns, _ = frames_of(root)
    for name, rows in columns.items():
        assert_plain(result.stats[name], rows, exact_quantiles=False)
    provenance = json.loads((root / "meta/prep/stats.json").read_text())
    assert provenance["parameters"]["quantile_method"] == "sketch"
    for name, q in QUANTILES.items():
        values = result.stats["action"][name]
        rank = (columns["action"] <= values).mean(axis=0)
        assert np.all(np.abs(rank - q) < 0.03), name


def test_stats_more_quantiles_are_added_to_ours(tmp_path):
    root = _bare(tmp_path, "v2.1")
    run_one(root)
    run_one(root, quantiles=(0.001, 0.999))
    written = json.loads((root / "meta/stats.json").read_text())["action"]
    columns, _ = frames_of(root)
    expected = np.quantile(columns["action"].astype(float), 0.999, axis=0)
    assert written["q99.9"] == expected.tolist()
    assert "q00.1" in written
    assert "q01" in written


def test_stats_quantile_beyond_one_is_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"0\.999"):
        run_one(_bare(tmp_path, "v2.1"), quantiles=(99.9,))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_stats_episode_quantiles_of_the_dataset_average_to_it(tmp_path, version):
    root = _bare(tmp_path, version)
    if version == "v3.0":
        result = run_one(root, episode_quantiles="dataset", force=True)
    else:
        result = run_one(root, episode_quantiles="dataset")
    for stats in load_dataset_metadata(root).episodes_stats.values():
        np.testing.assert_array_equal(stats["action"]["q01"], result.stats["action"]["q01"])
    record = json.loads((root / "meta/prep/quantile_sketch.json").read_text())
    assert record["parameters"]["episode_quantiles"] == "dataset"


def test_stats_sketch_artifact_reads_back_by_dataset_and_by_file(tmp_path):
    root = _bare(tmp_path, "v2.1")
    assert load_sketches(root) is None
    run_one(root)
    for given in (root, load_dataset_metadata(root), root / "meta/quantile_sketch.json"):
        sketches = load_sketches(given)
        assert sketches["action"].count.tolist() == [78, 78]
    assert sketches["observation.state"].dims == 3


def test_stats_artifact_root_leaves_the_dataset_alone(tmp_path):
    root = _bare(tmp_path, "v2.1")
    before = bytes_below(root)
    run_one(root, artifact_root=tmp_path / "elsewhere")
    assert bytes_below(root) == before
    assert (tmp_path / "elsewhere/tiny/meta/stats.json").is_file()
    assert run_one(root, artifact_root=tmp_path / "elsewhere").files_read == 0


def test_stats_without_episode_stats_writes_the_whole_datasets_only(tmp_path):
    root = _bare(tmp_path, "v2.1")
    assert set(statuses(run_one(root, episode_stats=False))) == {
        "meta/stats.json",
        "meta/quantile_sketch.json",
    }
    assert not (root / "meta/episodes_stats.jsonl").exists()
    assert run_one(root).files_read == 3
    assert (root / "meta/episodes_stats.jsonl").exists()


def test_stats_dry_run_writes_nothing(tmp_path):
    root = _bare(tmp_path, "v2.1")
    before = bytes_below(root)
    assert run_one(root, dry_run=True).status == "would write"
    assert bytes_below(root) == before


def test_stats_several_datasets_keep_their_order(tmp_path):
    roots = [_bare(tmp_path / n, v) for n, v in zip("abc", VERSIONS, strict=True)]
    report = run_stats(*roots, workers=2)
    assert [r.root for r in report.results] == [str(root) for root in roots]


def test_stats_real_v21_only_gains_quantiles(tmp_path):
    root = copy_real("g1_pick_bottle", tmp_path)
    published = read_lines(root / "meta/episodes_stats.jsonl")
    result = run_one(root)
    assert statuses(result)["meta/episodes_stats.jsonl"] == "extended"
    columns, _ = frames_of(root)
    for name, rows in columns.items():
        assert_plain(result.stats[name], rows)
    rows = read_lines(root / "meta/episodes_stats.jsonl")
    for old, new in zip(published, rows, strict=True):
        for feature, stats in old["stats"].items():
            kept = {stat: new["stats"][feature][stat] for stat in stats}
            assert kept == stats
    exact = np.quantile(columns["action"].astype(float), 0.99, axis=0).tolist()
    assert [row["stats"]["action"]["q99"] for row in rows] == [exact] * 100


def test_stats_real_v30_pooled_quantiles_are_kept_until_replaced(tmp_path):
    root = copy_real("so101_record_test", tmp_path)
    before = bytes_below(root)
    ran = run_cli("stats", root, "--json", "--workers", 1)
    assert ran.code == 0
    files = {f["file"]: f for f in ran.json["datasets"][0]["files"]}
    whole = files["meta/stats.json"]
    assert whole["status"] == "quantiles kept"
    # Only quantiles differ: min, max, mean, std and count agree within float32.
    assert {d["stat"] for d in whole["differences"]} == set(QUANTILES)
    q01 = next(d for d in whole["differences"] if (d["feature"], d["stat"]) == ("action", "q01"))
    assert 0.02 < q01["rank"] < 0.4
    after = bytes_below(root)
    assert {k: after[k] for k in before} == before
    assert run_one(root).files_read == 0  # compared already
    images = {k: v for k, v in load_dataset_metadata(root).stats.items() if "images" in k}
    run_one(root, published="replace", episode_quantiles="episode")
    columns, episode = frames_of(root)
    meta = load_dataset_metadata(root)
    for name, rows in columns.items():
        assert_plain(meta.stats[name], rows)
        for e, stats in meta.episodes_stats.items():
            assert_plain(stats[name], rows[episode == e])
    for name, stats in images.items():
        for stat, values in stats.items():
            np.testing.assert_array_equal(meta.stats[name][stat], values)
    assert len(list((root / "meta").rglob("*.bak-*"))) == 2
    table = pq.read_table(next((root / "meta/episodes").rglob("*.parquet")))
    assert "videos/observation.images.top/from_timestamp" in table.column_names
    assert run_one(root, episode_quantiles="episode").status == "up to date"
