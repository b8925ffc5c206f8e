"""Rule 5: published stats are compared first; nobody's number changes unasked."""

import json

import numpy as np
import pytest
from builders import tiny_dataset
from cli_runner import run_cli
from stats_runs import bytes_below, frames_of, read_lines, run_one, statuses


def _rewrite(path, change):
    """Change the objects of a JSON or JSON-lines file."""
    if path.suffix == ".jsonl":
        rows = read_lines(path)
        change(rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))


def _as_float32(stats):
    for entry in stats.values():
        for stat in ("min", "max", "mean", "std"):
            entry[stat] = np.float32(entry[stat]).astype(float).tolist()


def test_stats_published_in_float32_are_equal(tmp_path):
    root = tiny_dataset(tmp_path, "v2.0", lengths=[400, 100])
    path = root / "meta/stats.json"
    _rewrite(path, _as_float32)
    published = json.loads(path.read_text())
    assert statuses(run_one(root))["meta/stats.json"] in ("up to date", "extended")
    written = json.loads(path.read_text())
    for feature, stats in published.items():
        assert {stat: written[feature][stat] for stat in stats} == stats


@pytest.mark.parametrize(
    ("stat", "change"), [("mean", 1e-3), ("std", 1e-2), ("min", 1e-6), ("max", -0.2)]
)
def test_stats_a_changed_number_is_shown_and_left_alone(tmp_path, stat, change):
    root = tiny_dataset(tmp_path, "v2.0", lengths=[400, 100])
    path = root / "meta/stats.json"

    def move(stats):
        stats["action"][stat][1] += change

    _rewrite(path, move)
    before = path.read_bytes()
    ran = run_cli("stats", root, "--workers", 1)
    assert ran.code == 1
    assert "--published-stats replace" in ran.out
    assert stat in ran.out
    (difference,) = run_one(root).files[0].differences
    assert (difference.feature, difference.stat, difference.dims) == ("action", stat, (1,))
    assert path.read_bytes() == before
    result = run_one(root, force=True)
    assert result.files[0].status == "written"
    assert result.files[0].backup.read_bytes() == before
    rows = frames_of(root)[0]["action"].astype(float)
    exact = {"mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0)}
    written = json.loads(path.read_text())["action"][stat]
    np.testing.assert_allclose(written, exact[stat], rtol=1e-12)


def test_stats_an_episode_that_differs_is_named(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[30, 40, 50])

    def change(rows):
        rows[1]["stats"]["observation.state"]["max"][2] += 0.5

    _rewrite(root / "meta/episodes_stats.jsonl", change)
    file = {f.name: f for f in run_one(root).files}["meta/episodes_stats.jsonl"]
    (difference,) = file.differences
    assert (difference.episode, difference.dim, difference.rows) == (1, 2, 1)
    assert difference.published == pytest.approx(difference.computed + 0.5)


def test_stats_missing_feature_count_and_row_are_added(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[30, 40, 50])
    path = root / "meta/episodes_stats.jsonl"

    def change(rows):
        del rows[0]["stats"]["action"], rows[1]["stats"]["action"]["count"], rows[2]
        rows[0]["extra"] = "kept"
        rows[0]["stats"]["unknown"] = {"mean": [1.0]}

    _rewrite(path, change)
    before = path.read_bytes()
    file = {f.name: f for f in run_one(root).files}["meta/episodes_stats.jsonl"]
    assert file.status == "extended"
    assert file.backup.read_bytes() == before
    rows = read_lines(path)
    assert [row["episode_index"] for row in rows] == [0, 1, 2]
    assert rows[0]["extra"] == "kept"
    assert rows[0]["stats"]["unknown"] == {"mean": [1.0]}
    assert rows[0]["stats"]["action"]["count"] == [30]
    assert rows[1]["stats"]["action"]["count"] == [40]


def test_stats_our_own_file_is_replaced_when_the_data_changed(tmp_path):
    root = tiny_dataset(tmp_path, "v2.0", lengths=[30, 40])
    (root / "meta/stats.json").unlink()
    run_one(root)
    other = tiny_dataset(tmp_path, "v2.0", lengths=[30, 40], seed=3, name="other")
    for file in (other / "data").rglob("*.parquet"):
        (root / file.relative_to(other)).write_bytes(file.read_bytes())
    result = run_one(root)
    assert result.files[0].status == "written"
    assert result.files[0].backup is None
    rows = frames_of(root)[0]["action"].astype(float)
    np.testing.assert_allclose(result.stats["action"]["mean"], rows.mean(0), rtol=1e-12)


def test_stats_a_broken_file_is_an_error_that_names_it(tmp_path):
    root = tiny_dataset(tmp_path, "v2.0")
    (root / "meta/stats.json").write_text('{"action": ')
    ran = run_cli("stats", root)
    assert ran.code == 3
    assert "stats.json" in ran.err
    assert "Traceback" not in ran.err


def test_run_stops_at_a_difference_and_goes_on_with_the_published_stats_when_asked(tmp_path):
    root = tiny_dataset(tmp_path, "v2.0", lengths=[60, 50])

    def change(stats):
        stats["action"]["mean"][0] += 0.25

    _rewrite(root / "meta/stats.json", change)
    before = (root / "meta/stats.json").read_bytes()
    ran = run_cli("run", root, "--json", "--workers", 1, cwd=tmp_path)
    assert ran.code == 1
    assert [step["step"] for step in ran.json["steps"]] == ["stats"]
    assert not (root / "meta/speed_percentiles.jsonl").exists()
    ran = run_cli("run", root, "--published-stats", "keep", "--workers", 1, cwd=tmp_path)
    assert ran.code == 0, ran.out
    assert (root / "meta/stats.json").read_bytes() == before
    assert (root / "meta/speed_percentiles.jsonl").is_file()


def test_stats_ranks_write_once_and_report_the_same(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[30, 40])
    env = {"WORLD_SIZE": "2"}
    main = run_cli("stats", root, "--json", env={**env, "RANK": "0"})
    files = bytes_below(root)
    other = run_cli("stats", root, "--json", env={**env, "RANK": "1"})
    assert bytes_below(root) == files
    assert main.json["datasets"][0]["stats"] == other.json["datasets"][0]["stats"]
