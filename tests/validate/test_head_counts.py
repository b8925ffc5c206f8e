"""`heads`, `validate` and `report` agree on a dataset whose info.json and table do not."""

from __future__ import annotations

import json

from builders import tiny_dataset, tiny_episodes
from cli_runner import run_cli

from opentau_prep.demo.append import append_episode


def test_head_is_fresh_for_all_where_info_and_table_differ_and_stale_after_growth(tmp_path):
    root = tiny_dataset(tmp_path, robot_type="arm", control_mode="joint", name="a")
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info |= {"total_frames": info["total_frames"] + 3}
    path.write_text(json.dumps(info))
    mixture = tmp_path / "m.json"
    mixture.write_text(json.dumps({"datasets": [{"repo_id": "o/a", "root": "a"}]}))
    where = ("--mixture-json", mixture)
    assert run_cli("heads", *where, "-q").code == 0

    def stale():
        found = run_cli("validate", *where, "--json").json["findings"]
        page = run_cli("report", *where, "--json").json["artifacts"]
        head = [a["state"] for a in page if a["kind"] == "norm head"]
        return [f for f in found if f["code"] == "A002" and "norm_heads" in str(f["file"])], head

    assert stale() == ([], ["fresh"])
    append_episode(root, tiny_episodes(lengths=[9], seed=3)[0])
    findings, states = stale()
    assert len(findings) == 1
    assert states == ["stale"]
