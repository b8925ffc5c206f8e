"""A malformed dataset or mixture at the command line: one line on stderr, exit code 2 or 3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import tiny_dataset

CASES = [
    ("meta/info.json", b"{", 3),
    ("meta/info.json", b"\xff\xfe", 3),
    ("meta/episodes.jsonl", b'{"episode_index": 0, "length": "x"}', 3),
    ("meta/episodes.jsonl", b'{"episode_index": 0, "tasks": ["\\ud800"], "length": 1}', 3),
    ("meta/tasks.jsonl", b"[" * 100_000, 3),
    ("meta/tasks.jsonl", None, 3),
]


def run(tmp_path: Path, *arguments: str) -> tuple[int, list[str]]:
    env = {
        **os.environ,
        "HOME": str(tmp_path),
        "OPENTAU_PREP_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "COLUMNS": "80",
    }
    command = [sys.executable, "-m", "opentau_prep", "speed-percentiles", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(("rel", "content", "code"), CASES)
def test_command_malformed_dataset_is_one_line(
    tmp_path: Path, rel: str, content: bytes | None, code: int
) -> None:
    root = tiny_dataset(tmp_path, "v2.1")
    (root / rel).unlink()
    if content is not None:
        (root / rel).write_bytes(content)
    found, lines = run(tmp_path, str(root))
    assert found == code
    assert len(lines) == 1
    assert rel in lines[0]


@pytest.mark.parametrize(
    ("mixture", "code"),
    [
        ("{", 2),
        ('{"datasets": [{"root": "tiny"}], "weights": null}', 2),
        ({"datasets": [{"repo_id": "../../etc"}], "weights": None}, 2),
        ({"datasets": [{"repo_id": "a/b", "root": "tiny", "episodes": [77]}], "weights": None}, 2),
        ({"datasets": [{"repo_id": "a/b", "root": "gone"}], "weights": None}, 3),
        ({"datasets": [{"repo_id": "a/b", "root": "gone\n\u0000"}], "weights": None}, 2),
    ],
)
def test_command_malformed_mixture_is_one_line(tmp_path: Path, mixture: object, code: int) -> None:
    tiny_dataset(tmp_path, "v2.1")
    path = tmp_path / "mixture.json"
    path.write_text(mixture if isinstance(mixture, str) else json.dumps(mixture))
    found, lines = run(tmp_path, "--mixture-json", str(path))
    assert found == code
    assert len(lines) == 1
