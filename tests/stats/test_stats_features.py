"""Features that info.json gains, loses or changes make stats stale."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import tiny_dataset, tiny_episodes
from stats_runs import frames_of, read_lines, run_one, statuses

from opentau_prep.demo.append import append_episode


def _declare(root, **features):
    info = json.loads((root / "meta/info.json").read_text())
    info["features"].update(features)
    info["features"] = {name: f for name, f in info["features"].items() if f is not None}
    (root / "meta/info.json").write_text(json.dumps(info))


def _with_effort(tmp_path, version):
    """Return a dataset with a column that info.json does not declare, and with its stats made."""
    root = tiny_dataset(tmp_path, version, lengths=[30, 20, 40])
    _add_effort(root)
    run_one(root)
    assert run_one(root).files_read == 0
    return root


def _add_effort(root):
    for file in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(file)
        rows = [[float(i), i / 7] for i in range(len(table))]
        effort = pa.array(rows, pa.list_(pa.float32(), 2))
        pq.write_table(table.append_column("effort", effort), file)


EFFORT = {"dtype": "float32", "shape": [2], "names": None}


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_a_newly_declared_feature_is_read(tmp_path, version):
    root = _with_effort(tmp_path, version)
    _declare(root, effort=EFFORT)
    result = run_one(root)
    assert result.files_read > 0
    rows = frames_of(root)[0]["effort"].astype(float)
    np.testing.assert_allclose(result.stats["effort"]["mean"], rows.mean(axis=0), rtol=1e-12)
    written = json.loads((root / "meta/stats.json").read_text())["effort"]
    assert written["q50"] == np.quantile(rows, 0.5, axis=0).tolist()
    assert set(statuses(result).values()) == {"written"}
    assert run_one(root).files_read == 0


def test_a_new_feature_and_a_new_episode_at_once_are_read(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[30, 20, 40])
    run_one(root)
    append_episode(root, tiny_episodes(lengths=[25], seed=4)[0])
    _add_effort(root)
    _declare(root, effort=EFFORT)
    result = run_one(root)
    assert result.episodes == 4
    assert result.stats["effort"]["max"][0] == 39.0
    rows = read_lines(root / "meta/episodes_stats.jsonl")
    assert all("effort" in row["stats"] for row in rows)


@pytest.mark.parametrize("changed", [None, {"dtype": "float32", "shape": [1, 3], "names": None}])
def test_a_removed_or_reshaped_feature_makes_stats_stale(tmp_path, changed):
    root = _with_effort(tmp_path, "v2.1")
    _declare(root, **{"observation.state": changed})
    result = run_one(root)
    assert result.files_read > 0
    assert ("observation.state" in result.stats) == (changed is not None)
    assert run_one(root).files_read == 0
