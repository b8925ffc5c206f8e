"""Four real processes with the variables of a launcher."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opentau_prep.artifacts import Recipe, dataset_place
from opentau_prep.artifacts.store import State, inspect

REPO = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("rank_driver.py")


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="prep-ranks-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def launch(mode: str, root: Path, **environ: str) -> list[tuple[int, str, str]]:
    """Run ranks 0 to 3; returns each one's exit code, stdout and stderr."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(DRIVER), mode, str(root)],
            env={
                **os.environ,
                "PYTHONPATH": str(REPO),
                "RANK": str(rank),
                "WORLD_SIZE": "4",
                "LOCAL_RANK": str(rank % 2),
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(4)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def builders(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("built-by-*"))


def test_ensure_four_ranks_one_writes_all_return_the_value(root: Path) -> None:
    found = launch("normal", root)
    assert [(code, out) for code, out, _ in found] == [(0, "the value\n")] * 4
    assert builders(root) == ["built-by-0"]
    assert "".join(err for _, _, err in found).count("odd") == 1
    assert [err for _, _, err in found[1:]] == [""] * 3
    place = dataset_place("validation", root)
    assert inspect(place, Recipe("test", {"n": 1})).state is State.FRESH


def test_ensure_main_rank_killed_others_end_with_a_message(root: Path) -> None:
    start = time.monotonic()
    found = launch("main_dies", root, OPENTAU_PREP_WAIT_TIMEOUT_S="1.5")
    assert time.monotonic() - start < 15
    assert found[0][0] == -signal.SIGKILL
    for code, out, err in found[1:]:
        assert (code, out) == (4, "")
        assert "meta/validation.json: not written by the main rank within 1.5 s" in err
        assert "Traceback" not in err


def test_ensure_read_only_dataset_every_rank_computes_one_warns(root: Path) -> None:
    (root / "dataset").mkdir()
    (root / "dataset").chmod(0o555)
    found = launch("read_only", root)
    assert [(code, out) for code, out, _ in found] == [(0, "the value\n")] * 4
    said = "".join(err for _, _, err in found)
    assert said.count("not persisted") == 1
    assert os.listdir(root / "dataset") == []
    (root / "dataset").chmod(0o755)


def test_ensure_node_local_one_rank_a_node_writes(root: Path) -> None:
    # Ranks 0 and 2 are the first of their nodes; here both see the same folder, which is no harm.
    found = launch("normal", root, OPENTAU_PREP_NODE_LOCAL="1")
    assert [(code, out) for code, out, _ in found] == [(0, "the value\n")] * 4
    assert set(builders(root)) <= {"built-by-0", "built-by-2"}
    assert "".join(err for _, _, err in found).count("odd") == 1
