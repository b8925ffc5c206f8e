from __future__ import annotations

import json
from importlib import resources

from opentau_prep.config.checks import check_cache_name, check_standard_name
from opentau_prep.config.names import known_name_map


def test_known_name_map_known_dataset_gives_its_columns() -> None:
    assert known_name_map("lerobot/svla_so101_pickplace") == {
        "camera0": "observation.images.up",
        "camera1": "observation.images.side",
        "state": "observation.state",
        "actions": "action",
        "prompt": "task",
        "response": "response",
    }
    assert (known_name_map("ML-GOD/mt-button-press") or {})["state"] == "observation.robot_state"


def test_known_name_map_unknown_dataset_gives_none() -> None:
    assert known_name_map("lerobot/SVLA_so101_pickplace") is None
    assert known_name_map("") is None


def test_known_name_map_changed_result_leaves_registry_alone() -> None:
    first = known_name_map("lerobot/droid_100")
    assert first is not None
    first.clear()
    assert len(known_name_map("lerobot/droid_100") or {}) == 7


def test_registry_every_name_is_one_that_the_schema_takes() -> None:
    file = resources.files("opentau_prep.config").joinpath("feature_registry.json")
    table = json.loads(file.read_text("utf-8"))
    assert len(table) == 10
    for repo_id, name_map in table.items():
        check_cache_name(repo_id)
        for name in name_map:
            check_standard_name(name)
        assert {"state", "actions"} <= set(name_map)
