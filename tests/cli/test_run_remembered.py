"""A run that found nothing to do is not gone through again until something changes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import tiny_dataset
from fake_stores import fake_store, upload
from typer.testing import CliRunner, Result

from opentau_prep import pipeline
from opentau_prep.artifacts.memory import Memory
from opentau_prep.cli.app import app
from opentau_prep.config.load import load_mixture
from opentau_prep.context import RunContext

SIZES = ("--chunk-size", "4", "--total-chunks", "20", "--vocab-size", "300")


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what grows each time that the steps of a run are gone through."""
    monkeypatch.setenv("OPENTAU_PREP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    found: list[object] = []
    through = pipeline.run_pipeline
    monkeypatch.setattr(pipeline, "run_pipeline", lambda *a: found.append(a) or through(*a))
    return found


def run(*words: str) -> Result:
    done = CliRunner().invoke(app, ["run", "--mixture-json", "mix.json", "--workers", "1", *words])
    assert done.exit_code == 0, done.output
    return done


def write_mixture(root: str = "set", **more: object) -> None:
    content = {"datasets": [{"repo_id": "lab/set", "root": root}], **more}
    Path("mix.json").write_text(json.dumps(content))


@pytest.fixture
def prepared(tmp_path: Path, steps: list[object]) -> Path:
    tags = {"robot_type": "arm", "control_mode": "joint"}
    root = tiny_dataset(tmp_path, "v2.1", name="set", lengths=[20, 30, 25], **tags)
    write_mixture()
    run(*SIZES)
    return root


def test_run_after_the_first_is_remembered_and_shows_the_same(
    prepared: Path, steps: list[object]
) -> None:
    seen = len(steps)
    shown, document = run(*SIZES), run(*SIZES, "--json")
    assert len(steps) == seen
    for found, words in ((shown, ()), (document, ("--json",))):
        shutil.rmtree("cache/run")
        anew = run(*SIZES, *words)
        assert (anew.stdout, anew.stderr) == (found.stdout, found.stderr)
    assert len(steps) == seen + 2
    assert "Nothing to do: everything is up to date." in shown.stdout
    assert "columns inferred for lab/set" in shown.stderr


def memory(given: dict[str, int] | None = None, **how: object) -> Memory:
    return pipeline.run_memory(load_mixture("mix.json"), RunContext(**how), given or {})


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a dataset of a mixture whose run is remembered as `b"found"`."""
    monkeypatch.setenv("OPENTAU_PREP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    root = tiny_dataset(tmp_path, "v2.1", name="set", lengths=[20, 30, 25])
    (root / "meta/speed_percentiles.jsonl").write_text("{}")
    (tmp_path / "mix.prep").mkdir()
    (tmp_path / "mix.prep/norm_heads.json").write_text("{}")
    write_mixture()
    noted = memory()
    noted.note()
    noted.keep(b"found")
    assert memory().recall() == b"found"
    return root


def replace_by_copy(file: Path) -> None:
    shutil.copy(file, file.with_name("copy"))
    os.replace(file.with_name("copy"), file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a table": lambda r: (r / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "x"}\n'),
    "an artifact is gone": lambda r: (r / "meta/speed_percentiles.jsonl").unlink(),
    "a data file is another": lambda r: replace_by_copy(next(r.rglob("*.parquet"))),
    "a file more": lambda r: (r / "data/chunk-000/note.txt").write_text(""),
    "an output of the mixture": lambda r: replace_by_copy(r.parent / "mix.prep/norm_heads.json"),
    "a plan that was not there": lambda r: (r.parent / "mix.prep/val_plan.json").write_text("{}"),
    "the mixture": lambda r: write_mixture(weights=[0.5]),
    "the root's spelling": lambda r: write_mixture(root=str(r)),
    "a checkout": lambda r: (r.parent / ".git").mkdir(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_change_is_noticed(kept: Path, name: str) -> None:
    CHANGES[name](kept)
    assert memory().recall() is None


def test_what_the_run_does_not_read_may_change(kept: Path) -> None:
    (kept.parent / "mix.prep/report.html").write_text("<p>")
    (kept.parent / "other").mkdir()
    assert memory().recall() == b"found"


@pytest.mark.parametrize(
    "how", [{"force": True}, {"dry_run": True}, {"prep_dir": Path("p")}], ids=str
)
def test_another_way_to_run_is_another_question(kept: Path, how: dict[str, object]) -> None:
    assert memory(**how).recall() is None
    assert memory(given={"chunk_size": 5}).recall() is None


def test_what_changes_after_it_was_noted_is_noticed(kept: Path) -> None:
    noted = memory()
    noted.note()
    (kept / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "y"}\n')
    noted.keep(b"of the old tasks")
    assert memory().recall() is None


def test_run_that_is_not_ready_is_not_remembered(prepared: Path, steps: list[object]) -> None:
    info = json.loads((prepared / "meta/info.json").read_text())
    (prepared / "meta/info.json").write_text(json.dumps({**info, "total_frames": 1}))
    words = ["run", "--mixture-json", "mix.json", "--workers", "1", *SIZES]
    codes = [CliRunner().invoke(app, words).exit_code for _ in range(2)]
    assert codes == [1, 1]
    assert len(steps) == 2 + 2


def test_run_on_a_store_is_remembered_until_its_listing_changes(
    tmp_path: Path, steps: list[object]
) -> None:
    with fake_store("fake", concurrent=True) as store:
        root = tiny_dataset(tmp_path, "v3.0", name="set", lengths=[20, 30], robot_type="arm")
        upload(store, root, "bucket/set")
        write_mixture(root="fake://bucket/set")
        words = (*SIZES, "--artifact-root", "made")
        run(*words)
        seen = len(steps)
        store.asked.clear()
        run(*words)
        assert (len(steps), store.asked) == (seen, [])
        store.facts["ETag"] = '"e2"'
        mixture, context = load_mixture("mix.json"), RunContext(artifact_root=Path("made"))
        assert pipeline.run_memory(mixture, context, {}).recall() is None
