"""Metadata files larger than any real one, and numbers out of range, are refused where read."""

from __future__ import annotations

import json
import resource
import subprocess

import pytest
from builders import tiny_dataset
from cli_runner import command, environment
from typer.testing import CliRunner

from opentau_prep import load_dataset_metadata
from opentau_prep.cli.app import app
from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.storage.limits import MAX_METADATA, metadata_limit


def test_huge_info_is_refused_unread(tmp_path):
    root = tiny_dataset(tmp_path)
    with open(root / "meta/info.json", "r+b") as file:
        file.truncate(1 << 30)  # sparse
    done = subprocess.run(
        command("speed-percentiles", root),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)),
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "1,024 MB" in done.stderr
    assert f"{MAX_METADATA}=1024" in done.stderr


def test_limit_is_for_each_kind_of_file_and_can_be_set(tmp_path, monkeypatch):
    root = tiny_dataset(tmp_path)
    assert metadata_limit("meta/episodes.jsonl") > metadata_limit("meta/info.json")
    path = root / "meta/tasks.jsonl"
    path.write_bytes(path.read_bytes() + b"\n" * (3 << 20))
    monkeypatch.setenv(MAX_METADATA, "2")
    meta = load_dataset_metadata(root)
    with pytest.raises(MetadataError, match=f"tasks.jsonl.*3 MB.*{MAX_METADATA}=4"):
        meta.tasks  # noqa: B018
    monkeypatch.setenv(MAX_METADATA, "4")
    assert load_dataset_metadata(root).tasks
    for wrong in ("0", "-1", "much", "1.5"):
        monkeypatch.setenv(MAX_METADATA, wrong)
        with pytest.raises(ConfigError, match=MAX_METADATA):
            load_dataset_metadata(root).tasks  # noqa: B018


@pytest.mark.parametrize("fps", ["NaN", "Infinity", "1e300", "-1", "0", '"30"', "true"])
def test_frame_rate_out_of_range_is_refused_by_speed_percentiles(tmp_path, fps):
    root = tiny_dataset(tmp_path)
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "fps": "FPS"}).replace('"FPS"', fps))
    refused = CliRunner().invoke(app, ["speed-percentiles", str(root)])
    assert refused.exit_code == 3
    assert "fps" in refused.output
