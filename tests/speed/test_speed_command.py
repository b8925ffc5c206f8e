"""`speed-percentiles` end to end, in processes of its own, on tiny and on published datasets."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
from builders import copy_real, tiny_dataset, tiny_episodes
from cli_runner import run_cli

from opentau_prep.artifacts.fingerprint import TICK_NS
from opentau_prep.demo.write import append_episode

NAME = "meta/speed_percentiles.jsonl"
PROVENANCE = "meta/prep/speed_percentiles.json"


def _run(*args, code=0, **kwargs):
    ran = run_cli("speed-percentiles", *args, "--json", **kwargs)
    assert ran.code == code, ran.err
    return ran.json


def _rows(root):
    return [json.loads(line) for line in (root / NAME).read_text().splitlines()]


def _snapshot(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["g1_pick_bottle", "so101_record_test"])
def test_published_dataset_written_fresh_stale_forced(name, tmp_path):
    root = copy_real(name, tmp_path)
    time.sleep(2 * TICK_NS / 1e9)  # hashes of files that are younger than a tick are not remembered
    first = _run(root)["datasets"][0]
    assert first["status"] == "written"
    assert (root / PROVENANCE).exists()
    content = (root / NAME).read_bytes()
    table = _episode_lengths(root)
    expected = [float(p) for p in np.percentile(table, range(5, 100, 10))]
    (row,) = _rows(root)
    assert row["n_episodes"] == len(table)
    assert row["percentiles"] == (expected if len(set(table)) >= 10 else None)

    before = _snapshot(root)
    again = _run(root)
    assert again["datasets"][0]["status"] == "up to date"
    assert "data" not in again["datasets"][0]["files_opened"]
    assert again["warnings"] == []
    assert _snapshot(root) == before

    append_episode(root, _episode_like(root))
    stale = _run(root)
    assert stale["datasets"][0]["status"] == "kept"
    assert (root / NAME).read_bytes() == content
    (warning,) = stale["warnings"]
    assert f"episodes {len(table)} -> {len(table) + 1}" in warning["message"]
    assert "--force" in warning["message"]

    forced = _run(root, "--force")["datasets"][0]
    assert forced["status"] == "written"
    assert _rows(root)[0]["n_episodes"] == len(table) + 1
    backups = list((root / "meta").glob("speed_percentiles.jsonl.bak-*"))
    assert [p.read_bytes() for p in backups] == [content]
    assert _run(root)["datasets"][0]["status"] == "up to date"


def _episode_lengths(root):
    if (root / "meta/episodes.jsonl").exists():
        return [json.loads(line)["length"] for line in (root / "meta/episodes.jsonl").open()]
    import pyarrow.parquet as pq

    (file,) = (root / "meta/episodes").rglob("*.parquet")
    return pq.read_table(file, columns=["length"])["length"].to_pylist()


def _episode_like(root):
    info = json.loads((root / "meta/info.json").read_text())
    (width,) = info["features"]["action"]["shape"]
    return tiny_episodes(lengths=[77], state_dim=width, action_dim=width)[0]


def test_fresh_after_copy_and_touch(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=4)
    _run(root)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, copy_function=shutil.copy)  # new times
    assert _run(copy)["datasets"][0]["status"] == "up to date"


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_task_of_the_first_frame_beats_the_table(version, tmp_path):
    tasks = ("pick", "place")
    root = tiny_dataset(tmp_path, version, lengths=[5, 6, 7], task_indices=[1, 0, 1], tasks=tasks)
    _run(root)
    assert {row["task"]: row["n_episodes"] for row in _rows(root)} == {"pick": 1, "place": 2}


def test_foreign_file_is_trusted_and_not_overwritten(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=12)
    mine = '{"task_index": 0, "task": "mine", "n_episodes": 12, "percentiles": null}\n'
    (root / NAME).write_text(mine)
    found = _run(root)["datasets"][0]
    assert found["status"] == "kept"
    assert found["tasks"][0]["task"] == "mine"
    assert (root / NAME).read_text() == mine


def test_crash_before_provenance_is_healed(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=12)
    _run(root)
    (root / PROVENANCE).unlink()
    assert _run(root)["datasets"][0]["status"] == "up to date"
    assert (root / PROVENANCE).exists()


def test_rows_of_new_tasks_are_appended(tmp_path):
    root = tiny_dataset(tmp_path, lengths=[5, 6], task_indices=[0, 1], tasks=("a", "b"))
    old = '{"task_index": 1, "task": "edited", "n_episodes": 1, "percentiles": null}'
    (root / NAME).write_text(old)
    found = _run(root)
    assert found["datasets"][0]["status"] == "appended"
    assert (root / NAME).read_text().startswith(old + "\n")
    assert [row["task_index"] for row in _rows(root)] == [1, 0]
    assert [w["kind"] for w in found["warnings"]] == ["added_speed_rows"]
    again = _run(root)
    assert again["datasets"][0]["status"] == "kept"
    assert again["warnings"] == []


def _subset_mixture(tmp_path, root):
    path = tmp_path / "mixture.json"
    entry = {"repo_id": "o/d", "root": str(root), "episodes": list(range(11))}
    path.write_text(json.dumps({"datasets": [entry]}))
    return path


def test_file_is_of_the_whole_dataset_whatever_an_entry_selects_unless_asked(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=14)
    mixture = _subset_mixture(tmp_path, root)
    found = _run("--mixture-json", mixture)
    assert found["datasets"][0]["status"] == "written"
    assert found["datasets"][0]["tasks"][0]["n_episodes"] == 14
    assert found["warnings"] == []
    assert _rows(root)[0]["n_episodes"] == 14
    for path in (root / NAME, root / "meta/prep/speed_percentiles.json"):
        path.unlink()
    found = _run("--mixture-json", mixture, "--persist-subset")
    assert found["datasets"][0]["status"] == "written"
    assert _rows(root)[0]["n_episodes"] == 11
    # A later run over everything does not take a subset's file for the whole dataset's.
    later = _run(root)
    assert later["datasets"][0]["status"] == "kept"
    assert [w["kind"] for w in later["warnings"]] == ["stale_speed_percentiles"]


def test_two_selections_of_one_dataset_are_not_persisted_over_each_other(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=4)
    path = tmp_path / "mixture.json"
    entries = [{"repo_id": "o/d", "root": str(root), "episodes": [e]} for e in (0, 1)]
    path.write_text(json.dumps({"datasets": entries}))
    error = _run("--mixture-json", path, "--persist-subset", code=2)["error"]
    assert "o/d#0, o/d#1" in error["message"]
    assert not (root / NAME).exists()


def test_dry_run_writes_nothing(tmp_path):
    root = tiny_dataset(tmp_path)
    before = _snapshot(root)
    assert _run(root, "--dry-run")["datasets"][0]["status"] == "would write"
    assert _snapshot(root) == before


def test_artifact_root_gets_the_file(tmp_path):
    root = tiny_dataset(tmp_path, name="org/name")
    before = _snapshot(root)
    _run(root, "--artifact-root", tmp_path / "art")
    assert _snapshot(root) == before
    assert (tmp_path / "art/name" / NAME).exists()
    assert _run(root, "--artifact-root", tmp_path / "art")["datasets"][0]["status"] == "up to date"


def test_keep_going_reports_the_broken_dataset_and_does_the_others(tmp_path):
    good = tiny_dataset(tmp_path, name="good")
    bad = tiny_dataset(tmp_path, name="bad")
    (bad / "meta/episodes.jsonl").write_text("{")
    found = _run(bad, good, "--keep-going", code=1)
    assert [d["dataset"] for d in found["datasets"]] == ["good"]
    (failure,) = found["failures"]
    assert failure["dataset"] == "bad"
    assert "episodes.jsonl" in failure["where"]
    error = _run(bad, good, "--fail-fast", code=3)["error"]
    assert error["kind"] == "MetadataError"


def test_dataset_without_episodes_is_an_error(tmp_path):
    root = tiny_dataset(tmp_path)
    (root / "meta/episodes.jsonl").write_text("")
    assert "table is empty" in _run(root, code=3)["error"]["message"]
    assert not (root / NAME).exists()


def test_unreadable_data_gives_way_to_the_tables_with_one_warning(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=3)
    for file in (root / "data").rglob("*.parquet"):
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    found = _run(root)
    assert found["datasets"][0]["status"] == "written"
    assert [w["kind"] for w in found["warnings"]] == ["tasks_from_tables"]
    assert "git lfs pull" in found["warnings"][0]["message"]


def test_workers_change_nothing(tmp_path):
    for workers in (1, 2):
        roots = [tiny_dataset(tmp_path / str(workers), name=f"d{i}", seed=i) for i in range(20)]
        found = _run(*roots, "--workers", workers)
        assert [d["dataset"] for d in found["datasets"]] == [f"d{i}" for i in range(20)]
    one, two = (
        {k: v for k, v in _snapshot(tmp_path / n).items() if "prep" in k.parts or k.name == NAME}
        for n in ("1", "2")
    )
    assert one == two
    assert len(one) == 20
