"""Reports are remembered while nothing that was read has changed, and only then."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from breaking import Salvage, check, check_mixture, info, mutation, write_broken

from opentau_prep.artifacts import memory
from opentau_prep.config.load import mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.validate import CheckOptions, remembered, validate
from opentau_prep.validate import check as module


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what grows each time that the rules look; files may be as young as they like."""
    monkeypatch.setenv("OPENTAU_PREP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "_settled", lambda newest, tick: True)
    found: list[object] = []
    look = module._look
    monkeypatch.setattr(module, "_look", lambda *args: found.append(args) or look(*args))
    write_broken(tmp_path / "set", mutation("x", "", files=info(total_episodes=9)))
    return found


def _same_size(root: Path) -> None:
    """Change a byte, and put the time of change back as it was."""
    file = root / "meta/info.json"
    before = file.stat()
    file.write_bytes(file.read_bytes().replace(b'"fps": 10', b'"fps": 11'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte with the old time": _same_size,
    "a row": lambda r: (r / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "x"}\n'),
    "a file more": lambda r: (r / "data/chunk-000/more.parquet").write_bytes(b""),
    "a file less": lambda r: (r / "data/chunk-000/episode_000001.parquet").unlink(),
    "a video cut off": lambda r: next(r.rglob("*.mp4")).write_bytes(b"\0" * 8),
    "an artifact": lambda r: (r / "meta/speed_percentiles.jsonl").write_bytes(b"{"),
    "a file replaced by its copy": lambda r: os.replace(
        _copied(r / "meta/info.json"), r / "meta/info.json"
    ),
}


def _copied(file: Path) -> Path:
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    return copy


def test_validate_unchanged_dataset_is_not_looked_at_again(
    tmp_path: Path, looks: list[object]
) -> None:
    first, second = (check(tmp_path / "set") for _ in range(2))

    assert len(looks) == 1
    assert second.findings == first.findings
    assert [f.code for f in first.findings] == ["F009"]


@pytest.mark.parametrize("name", CHANGES)
def test_validate_any_changed_file_is_looked_at(
    tmp_path: Path, looks: list[object], name: str
) -> None:
    check(tmp_path / "set", deep=False)
    CHANGES[name](tmp_path / "set")

    changed = check(tmp_path / "set", deep=False)

    assert len(looks) == 2
    unset = os.environ.pop("OPENTAU_PREP_CACHE_DIR")
    os.environ["OPENTAU_PREP_CACHE_DIR"] = f"{unset}-empty"
    assert check(tmp_path / "set", deep=False).findings == changed.findings


@pytest.mark.parametrize(
    "options", [{"deep": True}, {"chunk_size": 500}, {"trainers": ("lerobot",)}], ids=str
)
def test_validate_with_other_options_is_another_question(
    tmp_path: Path, looks: list[object], options: dict[str, object]
) -> None:
    check(tmp_path / "set", deep=False)
    check(tmp_path / "set", **{"deep": False, **options})

    assert len(looks) == 2


def test_validate_changed_mixture_or_output_is_looked_at(
    tmp_path: Path, looks: list[object]
) -> None:
    file = tmp_path / "mixture.json"
    content = {"datasets": [{"repo_id": "lab/set", "root": str(tmp_path / "set")}]}
    file.write_text(json.dumps(content))
    check_mixture(file)
    check_mixture(file)
    assert len(looks) == 1

    (tmp_path / "mixture.prep").mkdir()
    (tmp_path / "mixture.prep/val_plan.json").write_text("{}")
    assert "M018" in {f.code for f in check_mixture(file).findings}
    file.write_text(json.dumps({**content, "weights": [0.5]}))
    check_mixture(file)
    assert len(looks) == 3


def test_validate_young_files_and_dry_runs_are_not_remembered(
    tmp_path: Path, looks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Salvage.of(mixture_from_roots([tmp_path / "set"]))
    validate(subject, RunContext(workers=1, dry_run=True), CheckOptions())
    validate(subject, RunContext(workers=1), CheckOptions())
    assert len(looks) == 2
    (tmp_path / "set/README.md").write_text("new")
    monkeypatch.setattr(memory, "_settled", lambda newest, tick: False)
    validate(subject, RunContext(workers=1), CheckOptions())
    validate(subject, RunContext(workers=1), CheckOptions())
    assert len(looks) == 4


def test_validate_torn_memory_is_none(tmp_path: Path, looks: list[object]) -> None:
    check(tmp_path / "set")
    for file in (tmp_path / "cache/validate").iterdir():
        file.write_bytes(file.read_bytes()[:-40])

    assert [f.code for f in check(tmp_path / "set").findings] == ["F009"]
    assert len(looks) == 2


def test_validate_one_changed_dataset_costs_itself(
    tmp_path: Path, looks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = remembered.stamp_of
    monkeypatch.setattr(remembered, "stamp_of", lambda *args: (stamp(*args)[0], 0))
    names = ("a", "b", "c")
    for name in names:
        write_broken(tmp_path / name, mutation("x", "", files=info(total_episodes=9)))
    file = tmp_path / "mixture.json"
    datasets = [{"repo_id": name, "root": str(tmp_path / name)} for name in names]
    file.write_text(json.dumps({"datasets": datasets}))
    checked: list[str] = []
    check_one = module._check_one
    monkeypatch.setattr(
        module,
        "_check_one",
        lambda work, **rest: checked.append(work[0].name) or check_one(work, **rest),
    )
    first = check_mixture(file)
    assert sorted(checked) == ["a", "b", "c"]
    (tmp_path / "b/meta/tasks.jsonl").write_text("")

    second = check_mixture(file)

    assert checked[3:] == ["b"]
    kept = [f for f in first.findings if f.dataset != "b"]
    assert [f for f in second.findings if f.dataset != "b"] == kept
    monkeypatch.setenv("OPENTAU_PREP_CACHE_DIR", str(tmp_path / "empty"))
    assert check_mixture(file).findings == second.findings
