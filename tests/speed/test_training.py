"""The call that training makes, against the reference's own scenarios."""

from __future__ import annotations

import json
import shutil

import pytest
from builders import tiny_dataset
from golden_io import load_golden

from opentau_prep import load_or_compute_speed_percentiles
from opentau_prep.notices import collect_notices

CASES = load_golden("speed")["load_or_compute"]
KINDS = {
    "stale: fewer episodes on disk than in this load": "stale_speed_percentiles",
    "added rows for missing tasks": "added_speed_rows",
    "could not write, in-memory values used": "not_persisted",
}


def _by_int(mapping):
    return {int(key): value for key, value in mapping.items()}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_load_or_compute_golden_scenario_equal(case, tmp_path):
    root = tmp_path / "root"
    path = root / "meta/speed_percentiles.jsonl"
    if case["mode"] == "root_is_a_file":
        root.write_text("not a folder")
    elif case["file_before"] is not None:
        path.parent.mkdir(parents=True)
        path.write_text(case["file_before"], encoding="utf-8")
    lengths = _by_int(case["episode_lengths"])
    tasks = _by_int(case["episode_to_task_index"])
    for call in case["calls"]:
        with collect_notices() as said:
            found = load_or_compute_speed_percentiles(
                root, lengths, tasks, case["task_to_task_index"]
            )
        assert found == _by_int(call["returned"])
        assert list(found) == call["returned_key_order"]
        assert [n.kind for n in said] == [KINDS[w["kind"]] for w in call["warnings"]]
        for notice, expected in zip(said, call["warnings"], strict=True):
            for key in ("on_disk", "current", "tasks"):
                assert notice.details.get(key) == expected.get(key)
        after = path.read_text(encoding="utf-8") if path.is_file() else None
        assert after == call["file_after"]
        if after is not None:
            assert [p.name for p in path.parent.iterdir()] == [path.name]


def _arguments(root):
    rows = [json.loads(line) for line in (root / "meta/episodes.jsonl").open()]
    lengths = {row["episode_index"]: row["length"] for row in rows}
    return lengths, dict.fromkeys(lengths, 0), {"a": 0}


def test_load_or_compute_subset_of_the_dataset_is_not_persisted(tmp_path):
    root = tiny_dataset(tmp_path, n_episodes=12)
    lengths, tasks, names = _arguments(root)
    few = {e: n for e, n in lengths.items() if e < 11}
    with collect_notices() as said:
        found = load_or_compute_speed_percentiles(root, few, tasks, names)
    assert found[0] is not None
    assert [n.kind for n in said] == ["subset_not_persisted"]
    assert not (root / "meta/speed_percentiles.jsonl").exists()
    load_or_compute_speed_percentiles(root, lengths, tasks, names)
    assert (root / "meta/speed_percentiles.jsonl").exists()


def test_load_or_compute_promised_episodes_do_not_count(tmp_path):
    # info.json promises more episodes than there are: the table decides what a subset is.
    root = tiny_dataset(tmp_path, n_episodes=3)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "total_episodes": 105}))
    load_or_compute_speed_percentiles(root, *_arguments(root))
    assert (root / "meta/speed_percentiles.jsonl").exists()


def test_training_file_equals_the_command_file(tmp_path):
    from cli_runner import run_cli

    root = tiny_dataset(tmp_path, n_episodes=12)
    other = tmp_path / "other"
    shutil.copytree(root, other)
    tasks = {row["task"]: row["task_index"] for row in _lines(root / "meta/tasks.jsonl")}
    lengths, to_task, _ = _arguments(root)
    load_or_compute_speed_percentiles(root, lengths, to_task, tasks)
    assert run_cli("speed-percentiles", other).code == 0
    name = "meta/speed_percentiles.jsonl"
    assert (root / name).read_bytes() == (other / name).read_bytes()


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
