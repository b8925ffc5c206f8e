"""`run` on a real S3 server (moto's): the artifacts of local folders, in few requests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from builders import VERSIONS, tiny_dataset
from cli_runner import run_cli

pytest.importorskip("moto")
pytest.importorskip("s3fs")
from s3_server import running_s3, upload_folder

pytestmark = pytest.mark.slow


def prepare(folder: Path, root: str, env: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    entries = [{"repo_id": version, "root": f"{root}/{version}"} for version in VERSIONS]
    (folder / "mix.json").write_text(json.dumps({"datasets": entries}))
    words = ("run", "--mixture-json", "mix.json", "--artifact-root", "made", "--workers", 1)
    ran = run_cli(*words, cwd=folder, env=env)
    assert ran.code == 0, ran.err


def content(folder: Path) -> dict[str, bytes]:
    """Return the stats, sketches, speed percentiles and heads, without their provenance."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "made").rglob("*"))
        if path.is_file()
        and "prep" not in path.parts
        # The sketch holds the data files' fingerprints, and findings name the dataset's place.
        and path.name not in ("validation.json", "quantile_sketch.json")
        and "action_tokens" not in path.parts
        and "norm_heads" not in path.parts
    }


def test_run_on_s3_equals_folders_and_asks_little_again(tmp_path: Path) -> None:
    for i, version in enumerate(VERSIONS):
        tiny_dataset(tmp_path / "data", version, name=version, lengths=[12, 15, 20], seed=i)
    prepare(tmp_path / "local", str(tmp_path / "data"), {})
    with running_s3(tmp_path) as server:
        upload_folder(server, tmp_path / "data", "robots", "lab")
        prepare(tmp_path / "remote", "s3://robots/lab", server.environ)
        assert content(tmp_path / "remote") == content(tmp_path / "local") != {}
        server.forget()
        prepare(tmp_path / "remote", "s3://robots/lab", server.environ)
        asked = server.requests()
    about_meta = [line for line in asked if "/data/" not in line]
    assert max(Counter(about_meta).values()) == 1
    assert len(about_meta) <= 10 * len(VERSIONS)
    # `validate` reads the footers of the data files, once each.
    assert max(Counter(line for line in asked if "/data/" in line).values(), default=1) == 1
