"""--published-stats and --allow-partial: which numbers stay, which stop the command."""

import json
import logging
import re
import shlex
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import tiny_dataset
from cli_runner import run_cli
from stats_runs import bytes_below, frames_of, read_lines, run_one, run_stats, statuses

STATS = "meta/stats.json"


def _published(tmp_path, *changes, name="tiny"):
    """Return a dataset with stats of its own frames in which some numbers are moved."""
    root = tiny_dataset(tmp_path, "v2.0", lengths=[400, 100], name=name)
    run_one(root)
    stats = json.loads((root / STATS).read_text())
    for stat, by in changes:
        stats["action"][stat][1] += by
    for file in (root / "meta/prep").rglob("*"):
        if file.is_file():
            file.unlink()
    (root / "meta/quantile_sketch.json").unlink()
    (root / STATS).write_text(json.dumps(stats))
    return root


@pytest.mark.parametrize("stat", ["mean", "std", "min", "max"])
def test_a_moved_number_stops_with_two_commands_that_go_on(tmp_path, stat):
    root = _published(tmp_path, (stat, 0.3))
    before = (root / STATS).read_bytes()
    ran = run_cli("stats", root, "--json", "--workers", 1)
    assert ran.code == 1
    assert ran.json["datasets"][0]["status"] == "differs"
    assert (root / STATS).read_bytes() == before
    commands = [shlex.split(line) for line in ran.json["commands"]]
    assert [words[-1] for words in commands] == ["keep", "replace"]
    keep, replace = ([*words[1:], "--json", "--workers", "1"] for words in commands)
    kept = run_cli(*keep)
    assert (kept.code, kept.json["datasets"][0]["status"]) == (0, "kept")
    assert (root / STATS).read_bytes() == before
    again = run_cli("stats", root, "--json", "--workers", 1)  # the decision is remembered
    assert (again.code, again.json["datasets"][0]["files_read"]) == (0, 0)
    replaced = run_cli(*replace)
    assert (replaced.code, replaced.json["datasets"][0]["status"]) == (0, "written")
    assert before in [file.read_bytes() for file in (root / "meta").glob("stats.json.bak-*")]
    rows = frames_of(root)[0]["action"].astype(float)
    exact = {"mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0)}
    found = json.loads((root / STATS).read_text())["action"][stat]
    np.testing.assert_allclose(found, exact[stat], rtol=1e-12)


def test_keep_is_settled_though_the_records_were_deleted_and_the_sketch_was_not(tmp_path):
    root = _published(tmp_path, ("mean", 0.3))
    assert run_cli("stats", root, "-q", "--workers", 1).code == 1
    shutil.rmtree(root / "meta/prep")
    kept = run_cli("stats", root, "--published-stats", "keep", "--json", "--workers", 1)
    assert (kept.code, kept.json["datasets"][0]["status"]) == (0, "kept")
    again = run_cli("stats", root, "--json", "--workers", 1)
    assert (again.code, again.json["datasets"][0]["files_read"]) == (0, 0)


def test_moved_quantiles_alone_stay_with_one_warning(tmp_path, caplog):
    roots = [_published(tmp_path, ("q01", 0.3), ("q90", -0.2), name=name) for name in "ab"]
    before = [(root / STATS).read_bytes() for root in roots]
    with caplog.at_level(logging.WARNING, logger="opentau_prep"):
        report = run_stats(*roots)
    assert not report.needs_attention
    assert [r.status for r in report.results] == ["quantiles kept"] * 2
    assert [(root / STATS).read_bytes() for root in roots] == before
    (record,) = caplog.records
    rows = frames_of(roots[0])[0]["action"][:, 1].astype(float)
    for root in roots:
        assert str(root) in record.message
    assert "--published-stats replace" in record.message
    published = json.loads((roots[0] / STATS).read_text())["action"]
    said = float(re.search(r"the (\S+)% quantile", record.message)[1]) / 100
    assert any(abs(np.mean(rows < published[q][1]) - said) < 0.01 for q in ("q01", "q90"))
    assert run_cli("stats", *roots, "--workers", 1).code == 0


def test_moved_quantiles_stay_where_something_else_is_added(tmp_path):
    root = _published(tmp_path, ("q01", 0.3))
    stats = json.loads((root / STATS).read_text())
    del stats["observation.state"]["q50"]
    (root / STATS).write_text(json.dumps(stats))
    assert statuses(run_one(root))[STATS] == "extended"
    written = json.loads((root / STATS).read_text())
    assert written["action"] == stats["action"]
    rows = frames_of(root)[0]["observation.state"].astype(float)
    assert written["observation.state"]["q50"] == np.quantile(rows, 0.5, axis=0).tolist()


def test_replace_leaves_equal_and_own_files_alone(tmp_path):
    root = _published(tmp_path)
    before = (root / STATS).read_bytes()
    run_one(root, published="replace")
    assert (root / STATS).read_bytes() == before
    files = bytes_below(root)
    assert run_one(root, published="replace").files_read == 0
    assert bytes_below(root) == files


def _declare(root, episodes, frames):
    info = json.loads((root / "meta/info.json").read_text())
    info.update(total_episodes=episodes, total_frames=frames)
    (root / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_a_part_of_a_dataset_writes_nothing_and_is_named_first(tmp_path, version):
    root = tiny_dataset(tmp_path, version, lengths=[30, 20, 40])
    _declare(root, 105, 27623)
    before = bytes_below(root)
    ran = run_cli("stats", root, "--workers", 1)
    assert ran.code == 1
    assert bytes_below(root) == before
    first = next(line for line in ran.out.splitlines() if line.strip())
    assert "3 of 105 episodes (90 of 27,623 frames)" in first
    report = run_stats(root)
    assert [r.name for r in report.partial] == ["tiny"]
    assert report.results[0].files_read == 0
    assert "--allow-partial" in report.results[0].findings[0].message
    allowed = run_cli("stats", root, "--allow-partial", "--json", "--workers", 1)
    assert allowed.code == 0
    assert allowed.json["datasets"][0]["coverage"]["declared_episodes"] == 105
    assert json.loads((root / STATS).read_text())["action"]["max"]


@pytest.mark.parametrize("keep_going", [False, True])
def test_missing_files_make_a_part_that_is_completed_later(tmp_path, keep_going):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[30, 20, 40])
    for file in (STATS, "meta/episodes_stats.jsonl"):
        (root / file).unlink(missing_ok=True)
    gone = root / "data/chunk-000/episode_000001.parquet"
    data = gone.read_bytes()
    gone.unlink()
    result = run_one(root, keep_going=keep_going)
    assert (result.status, result.findings[0].episodes) == ("partial", (1,))
    assert "episode_000001.parquet" in result.findings[0].message
    assert not (root / STATS).exists()
    part = run_one(root, allow_partial=True, keep_going=keep_going)
    assert (part.episodes, part.frames) == (2, 70)
    assert run_one(root, allow_partial=True).files_read == 0
    assert run_one(root).status == "partial"
    gone.write_bytes(data)
    whole = run_one(root)
    assert (whole.status, whole.episodes, whole.frames) == ("written", 3, 90)
    rows = frames_of(root)[0]["action"].astype(float)
    found = json.loads((root / STATS).read_text())["action"]
    np.testing.assert_allclose(found["mean"], rows.mean(axis=0), rtol=1e-12)
    assert len(read_lines(root / "meta/episodes_stats.jsonl")) == 3


def test_quantiles_of_episodes_that_pool_wrongly_are_named_once_and_replaced(tmp_path, caplog):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[50, 400], name="own")
    file = min((root / "data").rglob("*.parquet"))
    table = pq.read_table(file)
    position = table.column_names.index("action")
    rows = [[x + 5 for x in row] for row in table.column("action").to_pylist()]
    shifted = pa.array(rows, table.schema.field(position).type)
    pq.write_table(table.set_column(position, "action", shifted), file)
    path = root / "meta/episodes_stats.jsonl"
    path.unlink()
    run_one(root, episode_quantiles="episode")
    for file in (root / "meta/prep").rglob("*"):
        if file.is_file():
            file.unlink()
    (root / "meta/quantile_sketch.json").unlink()
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING, logger="opentau_prep"):
        report = run_stats(root)
    assert not report.needs_attention
    assert path.read_bytes() == before
    (record,) = caplog.records
    rows = read_lines(path)
    counts = [row["stats"]["action"]["count"][0] for row in rows]
    pooled = {
        (q, dim): np.average([r["stats"]["action"][q][dim] for r in rows], weights=counts)
        for q in ("q01", "q10", "q50", "q90", "q99")
        for dim in range(2)
    }
    named = re.search(r"(q\d\d) of action\[(\d)\] becomes (\S+) ", record.message)
    stat, dim, said = named.groups()
    assert float(said) == pytest.approx(pooled[stat, int(dim)], rel=1e-3)
    command = shlex.split(re.search(r"`(.*)`", record.message)[1])
    assert run_cli(*command[1:], "--workers", 1).code == 0
    exact = np.quantile(frames_of(root)[0]["action"].astype(float), 0.99, axis=0).tolist()
    assert [row["stats"]["action"]["q99"] for row in read_lines(path)] == [exact, exact]
