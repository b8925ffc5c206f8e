"""v2.1 data that had only `stats.json`: what `stats` adds must not shadow the cameras' stats."""

from __future__ import annotations

import json

import numpy as np
from builders import tiny_dataset
from cli_runner import run_cli

from opentau_prep import load_dataset_metadata, load_mixture, mixture_norm_heads

CAMERAS = ("observation.images.top", "observation.images.wrist")


def test_stats_carries_cameras_into_what_shadows_stats_json_and_all_steps_go_on(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", name="d", cameras=CAMERAS, lengths=[5, 9])
    whole = load_dataset_metadata(root).stats
    written = {f: {s: v.tolist() for s, v in entry.items()} for f, entry in whole.items()}
    for i, camera in enumerate(CAMERAS):  # no count: not every writer gives one
        values = {"min": 0.0, "max": 1.0, "mean": 0.25 + i / 8, "std": 0.125}
        written[camera] = {s: np.full((3, 1, 1), v).tolist() for s, v in values.items()}
    (root / "meta/stats.json").write_text(json.dumps(written))
    (root / "meta/episodes_stats.jsonl").unlink()
    mixture = tmp_path / "mixture.json"
    entry = {"repo_id": "o/d", "root": "d", "use_imagenet_stats": False}
    mixture.write_text(json.dumps({"datasets": [entry]}))

    assert run_cli("stats", root).code == 0
    lines = (root / "meta/episodes_stats.jsonl").read_text().splitlines()
    rows = [json.loads(line)["stats"] for line in lines]
    assert [row[CAMERAS[1]]["count"] for row in rows] == [[5], [9]]
    heads = mixture_norm_heads(load_mixture(mixture), max_state_dim=8, max_action_dim=8, num_cams=2)
    camera = heads.per_norm_key_stats[0]["camera1"]
    np.testing.assert_allclose(camera["mean"], np.full((3, 1, 1), 0.375))
    np.testing.assert_allclose(camera["std"], np.full((3, 1, 1), 0.125))
    ran = run_cli("heads", "--mixture-json", mixture, "--num-cams", 2)
    assert ran.code == 0, ran.err
    before = (root / "meta/episodes_stats.jsonl").read_bytes()
    checked = run_cli("validate", "--mixture-json", mixture, "--json")
    assert checked.code == 0, checked.out
    ran = run_cli("run", "--mixture-json", mixture, "--num-cams", 2)
    assert ran.code == 0, ran.err
    assert "Ready to train." in ran.out + ran.err
    assert (root / "meta/episodes_stats.jsonl").read_bytes() == before
