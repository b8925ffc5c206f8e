"""Stats of datasets that LeRobot's own writer made (scripts/make_lerobot_fixtures.py).

0.4.4 wrote v30, with stats over all axes but the last; 0.3.3 wrote v21, with stats per element.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from stats_runs import QUANTILES, bytes_below, read_lines, run_one, statuses

from opentau_prep import load_dataset_metadata

DATA = Path(__file__).parents[1] / "data/lerobot"
SHAPES = {"observation.pose": (4, 3), "observation.pair": (2, 5), "observation.grid": (2, 3, 4)}
EPISODES = {"v30": "meta/episodes/chunk-000/file-000.parquet", "v21": "meta/episodes_stats.jsonl"}


@pytest.fixture(params=["v30", "v21"])
def root(request, tmp_path):
    return Path(shutil.copytree(DATA / request.param, tmp_path / request.param))


def _vectors(root, name):
    """Return (N, vectors per frame, D) float64 and each frame's episode."""
    files = sorted((root / "data").rglob("*.parquet"))
    tables = [pq.read_table(file, columns=list({name, "episode_index"})) for file in files]
    values = [np.asarray(t.column(name).to_pylist(), dtype=np.float64) for t in tables]
    matrix = np.concatenate(values)
    matrix = matrix.reshape(len(matrix), -1, matrix.shape[-1] if matrix.ndim > 1 else 1)
    return matrix, np.concatenate([t.column("episode_index").to_numpy() for t in tables])


def _assert_stats(found, vectors, quantiles_of=None):
    flat = vectors.reshape(-1, vectors.shape[-1])
    quantiles_of = vectors if quantiles_of is None else quantiles_of
    for stat in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(found[stat], getattr(flat, stat)(axis=0), rtol=1e-12)
    for stat, q in QUANTILES.items():
        pooled = quantiles_of.reshape(-1, flat.shape[1])
        np.testing.assert_array_equal(found[stat], np.quantile(pooled, q, axis=0))
    assert found["count"].tolist() == [len(vectors)]


def _numeric(root):
    features = json.loads((root / "meta/info.json").read_text())["features"]
    return [n for n, f in features.items() if f["dtype"] not in ("image", "string")]


def test_stats_of_lerobot_only_complete_what_lerobot_wrote(root):
    before = {n: b for n, b in bytes_below(root).items() if n.startswith("meta")}
    result = run_one(root)
    found = statuses(result)
    assert "differs" not in found.values()
    assert found[EPISODES[root.name]] == {"v30": "quantiles kept", "v21": "extended"}[root.name]
    if root.name == "v30":  # LeRobot 0.4.4's quantiles stay as they are
        assert (root / "meta/stats.json").read_bytes() == before["meta/stats.json"]
    rows = load_dataset_metadata(root).episodes_stats
    for name in SHAPES:
        vectors, episode = _vectors(root, name)
        _assert_stats(result.stats[name], vectors)
        assert set(rows) == set(episode.tolist())
    files = bytes_below(root)
    assert run_one(root).files_read == 0
    assert bytes_below(root) == files


def test_stats_of_lerobot_added_quantiles_have_the_shape_of_the_file(tmp_path):
    root = Path(shutil.copytree(DATA / "v21", tmp_path / "v21"))
    published = {r["episode_index"]: r["stats"] for r in read_lines(root / EPISODES["v21"])}
    run_one(root)
    for row in read_lines(root / EPISODES["v21"]):
        for name, shape in SHAPES.items():
            entry, before = row["stats"][name], published[row["episode_index"]][name]
            assert {stat: entry[stat] for stat in before} == before
            vectors, _ = _vectors(root, name)
            pooled = vectors.reshape(-1, vectors.shape[-1])
            for stat, q in QUANTILES.items():
                expected = np.broadcast_to(np.quantile(pooled, q, axis=0), shape)
                np.testing.assert_array_equal(entry[stat], expected)


@pytest.mark.parametrize("options", [{"force": True}, {"published": "replace"}])
def test_stats_of_lerobot_recomputed_are_over_all_axes_but_the_last(root, options):
    images = load_dataset_metadata(root).episodes_stats[1]["observation.images.top"]
    if root.name == "v21" and "published" in options:
        pytest.skip("nothing differs")
    run_one(root, **options)
    meta = load_dataset_metadata(root)
    for name in _numeric(root):
        vectors, episode = _vectors(root, name)
        for e, stats in meta.episodes_stats.items():
            _assert_stats(stats[name], vectors[episode == e], quantiles_of=vectors)
        whole = json.loads((root / "meta/stats.json").read_text())[name]
        _assert_stats({stat: np.array(value) for stat, value in whole.items()}, vectors)
    kept = meta.episodes_stats[1]["observation.images.top"]
    assert {s: v.tolist() for s, v in kept.items()} == {s: v.tolist() for s, v in images.items()}
    assert kept["mean"].shape == (3, 1, 1)
    assert run_one(root).files_read == 0


def test_stats_of_lerobot_a_moved_element_is_found(tmp_path):
    root = Path(shutil.copytree(DATA / "v21", tmp_path / "v21"))
    path = root / EPISODES["v21"]
    rows = read_lines(path)
    rows[1]["stats"]["observation.grid"]["std"][1][2][3] *= 1.2
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {file.name: file for file in run_one(root).files}
    (difference,) = files[EPISODES["v21"]].differences
    assert (difference.feature, difference.stat) == ("observation.grid", "std")
    assert (difference.episode, difference.dim) == (1, 3)


def test_stats_of_lerobot_a_row_that_lacks_is_added_in_the_shape_of_the_others(tmp_path):
    root = Path(shutil.copytree(DATA / "v21", tmp_path / "v21"))
    path = root / EPISODES["v21"]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert statuses(run_one(root))[EPISODES["v21"]] == "extended"
    added = read_lines(path)[2]["stats"]
    for name, shape in SHAPES.items():
        assert {np.shape(v) for s, v in added[name].items() if s != "count"} == {shape}
