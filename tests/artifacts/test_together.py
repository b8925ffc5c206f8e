"""Several files of one dataset: all or none, and a marker in between."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from opentau_prep.artifacts import Recipe, dataset_place, publish
from opentau_prep.artifacts.atomic import NotWritableError, write_atomic
from opentau_prep.artifacts.batches import leave_without
from opentau_prep.artifacts.marker import (
    MARKER,
    finish_update,
    unfinished_update,
    warn_of_update,
)
from opentau_prep.artifacts.tempfiles import list_temps
from opentau_prep.artifacts.together import pending_path, together
from opentau_prep.errors import ArtifactError
from opentau_prep.notices import collect_notices

RECIPE = Recipe("stats", {"episodes": {"count": 19}}, {})


def _names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_together_commits_at_the_end_and_leaves_no_marker(tmp_path):
    for name in "abc":
        write_atomic(tmp_path / name, b"old")
    with together(tmp_path):
        for name in "abc":
            write_atomic(tmp_path / name, b"new")
        assert [(tmp_path / name).read_bytes() for name in "abc"] == [b"old"] * 3
        assert pending_path(tmp_path / "a").read_bytes() == b"new"
    assert [(tmp_path / name).read_bytes() for name in "abc"] == [b"new"] * 3
    assert pending_path(tmp_path / "a") == tmp_path / "a"
    assert _names(tmp_path) == ["a", "b", "c"]


def test_together_removes_what_is_unwanted_before_any_file_takes_its_place(tmp_path, monkeypatch):
    for name in ("a", "a.record", "b.record"):
        write_atomic(tmp_path / name, b"old")
    found, move = [], os.replace
    monkeypatch.setattr(os, "replace", lambda *args: found.append(_names(tmp_path)) or move(*args))
    with together(tmp_path):
        for name in ("a", "a.record"):
            write_atomic(tmp_path / name, b"new")
        leave_without(tmp_path / "a.record")
        leave_without(tmp_path / "b.record")
        assert (tmp_path / "b.record").read_bytes() == b"old"
    assert found
    assert not any(name.endswith(".record") for names in found for name in names)
    assert _names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_together_interrupted_block_changes_nothing(tmp_path, error):
    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(error), together(tmp_path):
        write_atomic(tmp_path / "a", b"new")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert _names(tmp_path) == ["a"]


def test_together_one_file_not_writable_changes_none(tmp_path, monkeypatch):
    places = [dataset_place(name, tmp_path) for name in ("stats", "episodes_stats")]
    places[1].path.parent.mkdir()
    places[1].path.write_bytes(b"")
    real_open = os.open

    def refuse(path, *args):
        if "episodes_stats.jsonl" in str(path) and args[0] & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, *args)

    monkeypatch.setattr(os, "open", refuse)
    with (
        collect_notices() as said,
        pytest.raises(NotWritableError, match="none of the dataset's files was changed"),
        together(tmp_path / "meta"),
    ):
        for place in places:
            publish(place, b"new", RECIPE, extends=True)
    assert [notice.kind for notice in said] == ["not_persisted"]
    assert _names(tmp_path) == ["meta/episodes_stats.jsonl"]


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_together_disk_fails_at_a_rename_marker_says_so(tmp_path, monkeypatch, fails_at):
    for name in "abc":
        write_atomic(tmp_path / name, b"old")
    real_replace, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) >= fails_at:
            raise OSError(errno.EIO, "Input/output error")
        real_replace(source, target)

    with pytest.raises(ArtifactError) as caught, together(tmp_path):
        for name in "abc":
            write_atomic(tmp_path / name, b"new")
        monkeypatch.setattr(os, "replace", failing)
    monkeypatch.undo()
    new = [(tmp_path / name).read_bytes() == b"new" for name in "abc"]
    # The first rename is the marker's own.
    assert new == [fails_at > 2, fails_at > 3, False]
    assert ("other files of the dataset are new" in caught.value.message) == any(new)
    assert (tmp_path / MARKER).exists() == any(new)
    old = [name for name, done in zip("abc", new, strict=True) if not done]
    assert unfinished_update(tmp_path) == (old if any(new) else [])
    assert list_temps(tmp_path) == []
    with collect_notices() as said:
        warn_of_update(tmp_path, "lab/d")
    assert [notice.kind for notice in said] == ["being_updated"] * any(new)
    with together(tmp_path):
        for name in "abc":
            write_atomic(tmp_path / name, b"new")
    assert _names(tmp_path) == ["a", "b", "c"]
    assert unfinished_update(tmp_path) == []


def test_finish_update_removes_the_marker_of_a_finished_one_only(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    write_atomic(tmp_path / MARKER, b'{"files": {"a": "00"}}')
    finish_update(tmp_path)
    assert unfinished_update(tmp_path) == ["a"]
    (tmp_path / MARKER).write_bytes(b"torn")
    assert unfinished_update(tmp_path) == [MARKER]
    right = hashlib.sha256(b"old").hexdigest()
    (tmp_path / MARKER).write_bytes(b'{"files": {"a": "%s"}}' % right.encode())
    finish_update(tmp_path)
    assert not (tmp_path / MARKER).exists()


def test_together_more_files_than_descriptors(tmp_path):
    with together(tmp_path):
        for number in range(900):
            write_atomic(tmp_path / f"{number}", b"new")
    assert len(_names(tmp_path)) == 900
