"""Only what is new is read, and the result is as if everything had been."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import VERSIONS, copy_real, tiny_dataset, tiny_episodes
from stats_runs import QUANTILES, assert_plain, frames_of, run_one, statuses

from opentau_prep import load_dataset_metadata
from opentau_prep.demo.append import append_episode


def _grown(tmp_path, version, **options):
    root = tiny_dataset(tmp_path, version, lengths=[300, 200, 250])
    run_one(root, force=version == "v3.0", **options)
    append_episode(root, tiny_episodes(lengths=[120], seed=9)[0])
    return root


@pytest.mark.parametrize("version", VERSIONS)
def test_stats_after_an_episode_was_added_read_one_file(tmp_path, version):
    root = _grown(tmp_path, version, episode_quantiles="episode")
    result = run_one(root, episode_quantiles="episode")
    assert result.files_read == 1
    assert result.episodes == 4
    assert "differs" not in statuses(result).values()
    columns, episode = frames_of(root)
    for name, rows in columns.items():
        assert_plain(result.stats[name], rows, exact_quantiles=False)
    if version != "v2.0":
        stats = load_dataset_metadata(root).episodes_stats
        for e in range(4):
            assert_plain(stats[e]["action"], columns["action"][episode == e])
    assert run_one(root, episode_quantiles="episode").files_read == 0


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_stats_after_growth_every_row_has_the_new_quantiles_of_the_whole(tmp_path, version):
    root = tiny_dataset(tmp_path, version, lengths=[300, 200, 250])
    run_one(root, force=True)
    append_episode(root, tiny_episodes(lengths=[120], seed=9)[0])
    _drop_quantiles_of_episode(root, 3)
    result = run_one(root)
    assert result.files_read == 1
    columns, episode = frames_of(root)
    stats = load_dataset_metadata(root).episodes_stats
    for e in range(4):
        for name in ("action", "observation.state"):
            rows = columns[name][episode == e].astype(float)
            np.testing.assert_allclose(stats[e][name]["mean"], rows.mean(axis=0), rtol=1e-12)
            for stat in QUANTILES:
                np.testing.assert_array_equal(stats[e][name][stat], result.stats[name][stat])
    assert run_one(root).files_read == 0


def _drop_quantiles_of_episode(root, episode):
    """Take the quantiles that the appended row has of its own out again."""
    if (root / "meta/episodes_stats.jsonl").exists():
        path = root / "meta/episodes_stats.jsonl"
        lines = path.read_text().splitlines()
        row = json.loads(lines[episode])
        for entry in row["stats"].values():
            for stat in QUANTILES:
                entry.pop(stat, None)
        lines[episode] = json.dumps(row)
        path.write_text("\n".join([*lines, ""]))
        return
    for path in (root / "meta/episodes").rglob("*.parquet"):
        table = pq.read_table(path)
        if table.column("episode_index").to_pylist() == [episode]:
            kept = [n for n in table.column_names if n.rsplit("/", 1)[-1] not in QUANTILES]
            pq.write_table(table.select(kept), path)


def test_stats_after_growth_have_quantiles_of_all_frames(tmp_path):
    root = _grown(tmp_path, "v2.1")
    result = run_one(root)
    assert result.quantiles == "sketch"
    rows = frames_of(root)[0]["action"]
    for name, q in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        rank = (rows <= result.stats["action"][name]).mean(axis=0)
        assert np.all(np.abs(rank - q) <= 0.005), name
    assert run_one(root, force=True).quantiles == "exact"


def test_stats_row_of_an_old_episode_was_edited_reads_everything(tmp_path):
    root = _grown(tmp_path, "v2.1")
    path = root / "meta/episodes_stats.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(first.replace('"max":[', '"max":[9', 1) + "".join(rest))
    result = run_one(root)
    assert result.files_read == 4
    assert statuses(result)["meta/episodes_stats.jsonl"] == "differs"


def test_stats_old_data_changed_reads_everything(tmp_path):
    root = _grown(tmp_path, "v2.1")
    other = tiny_dataset(tmp_path, "v2.1", lengths=[300], seed=5, name="other")
    rel = "data/chunk-000/episode_000000.parquet"
    (root / rel).write_bytes((other / rel).read_bytes())
    result = run_one(root, force=True)
    assert result.files_read == 4
    columns, _ = frames_of(root)
    assert_plain(result.stats["action"], columns["action"])


def test_stats_old_data_written_anew_with_the_same_frames_is_told_by_content(tmp_path):
    root = _grown(tmp_path, "v2.1")
    file = root / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pq.read_table(file), file, compression="zstd")
    result = run_one(root)
    assert result.files_read == 2  # the file that changed, and the new one
    assert result.episodes == 4


def test_stats_real_dataset_grows_by_one_file(tmp_path):
    root = copy_real("g1_pick_bottle", tmp_path)
    run_one(root)
    append_episode(root, tiny_episodes(lengths=[300], state_dim=26, action_dim=26)[0])
    result = run_one(root)
    assert (result.files_read, result.episodes) == (1, 101)
    rows = frames_of(root)[0]["observation.state"]
    for name, q in (("q01", 0.01), ("q99", 0.99)):
        values = result.stats["observation.state"][name]
        low, high = ((rows < values).mean(axis=0), (rows <= values).mean(axis=0))
        assert np.all((low - 0.002 <= q) & (q <= high + 0.002)), name
