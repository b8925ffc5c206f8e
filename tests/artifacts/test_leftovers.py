"""What killed runs leave in a folder, and what only looks like it."""

from __future__ import annotations

import json
import os

import pytest

from opentau_prep.artifacts import Recipe, dataset_place, publish
from opentau_prep.artifacts.leftovers import sweep
from opentau_prep.artifacts.place import file_place
from opentau_prep.artifacts.store import State, inspect
from opentau_prep.artifacts.tempfiles import (
    create_temp,
    create_temp_folder,
    list_temps,
    remove_live,
    target_name,
)

RECIPE = Recipe("test", {"episodes": {"count": 19}}, {"size": 1})


def _killed_before_its_provenance(place):
    """Leave an artifact as a process leaves it that is killed right after the artifact's rename."""
    publish(place, b"content", RECIPE)
    record = place.provenance_path.read_bytes()
    place.provenance_path.unlink()
    fd, temp = create_temp(place.provenance_path)
    os.write(fd, record)
    os.close(fd)
    return temp


@pytest.mark.parametrize(
    "place",
    [
        lambda root: dataset_place("norm_head", root, mixture_id="mix.v2-0a1b2c3d4e5f"),
        lambda root: dataset_place("episodes", root, file="chunk-000/file-000"),
        lambda root: dataset_place("episodes_stats", root),
        lambda root: file_place("norm_heads", root / "out.json"),
        lambda root: file_place("report", root / "report.html"),
    ],
)
def test_sweep_finishes_a_provenance_whoever_sweeps(tmp_path, place):
    place = place(tmp_path)
    temp = _killed_before_its_provenance(place)
    assert inspect(place, RECIPE).state is State.FOREIGN
    assert sweep(place.provenance_path.parent) == []
    assert not temp.exists()
    assert inspect(place, RECIPE).fresh


def test_sweep_provenance_of_other_content_is_removed(tmp_path):
    place = dataset_place("validation", tmp_path)
    temp = _killed_before_its_provenance(place)
    place.path.write_bytes(b"edited")
    assert sweep(place.provenance_path.parent) == [temp]
    assert inspect(place, RECIPE).state is State.FOREIGN


@pytest.mark.parametrize(
    "name",
    [
        ".notes.prep-tmp",
        ".a.0123456789abcdef.prep-tmp",
        "a.0123456789abcdef01234.prep-tmp",
        ".a.ZZZZZZZZZZZZZZZZZZZZ.prep-tmp",
        ".a.0123456789abcdef0123.prep-tmp.bak",
    ],
)
def test_sweep_leaves_names_alone_that_are_not_its_own(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    os.utime(tmp_path / name, (0, 0))
    assert sweep(tmp_path) == []
    assert os.listdir(tmp_path) == [name]


def test_sweep_planted_journal_removes_no_other_folder(tmp_path):
    for name in ("precious", "out.bak-0a1b2c3d", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "sub").mkdir()
    for backup, inode_of in [
        ("precious", "precious"),
        ("out", "out"),
        ("out.bak-0a1b2c3d", "precious"),
        ("../precious", "precious"),
        (None, "precious"),
    ]:
        status = (tmp_path / inode_of).stat()
        fd, _ = create_temp(tmp_path / "out")
        unwanted = [[status.st_dev, status.st_ino]]
        os.write(fd, json.dumps({"backup": backup, "unwanted": unwanted}).encode())
        os.close(fd)
    assert len(sweep(tmp_path)) == 5
    assert sorted(os.listdir(tmp_path)) == ["out", "out.bak-0a1b2c3d", "precious", "sub"]


@pytest.mark.parametrize("name", ["out.bak-0a1b2c3d", "out-0a1b2c3d", "out-0a1b2c3d-2"])
def test_sweep_removes_the_new_folder_under_the_name_of_a_backup_or_version(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.json").write_bytes(b"new")
    status = (tmp_path / name).stat()
    fd, journal = create_temp(tmp_path / "out")
    unwanted = [[status.st_dev, status.st_ino]]
    os.write(fd, json.dumps({"backup": name, "unwanted": unwanted}).encode())
    os.close(fd)
    assert sweep(tmp_path) == [journal]
    assert os.listdir(tmp_path) == []


def test_sweep_folder_of_a_killed_run_is_removed_but_not_a_live_one(tmp_path):
    live_fd, live = create_temp_folder(tmp_path / "out")
    dead_fd, dead = create_temp_folder(tmp_path / "out")
    (dead / "a.json").write_bytes(b"half")
    os.close(dead_fd)
    assert sweep(tmp_path) == [dead]
    assert list_temps(tmp_path) == [live]
    os.close(live_fd)


def test_remove_live_removes_what_this_process_has_open(tmp_path):
    fd, file = create_temp(tmp_path / "a")
    folder_fd, folder = create_temp_folder(tmp_path / "b")
    (folder / "x").write_bytes(b"x")
    assert remove_live() == []
    assert os.listdir(tmp_path) == []
    assert (target_name(file), target_name(folder)) == ("a", "b")
    for each in (fd, folder_fd):
        os.close(each)


def test_write_removes_leftovers_of_others_first(tmp_path):
    from opentau_prep.artifacts.atomic import write_atomic

    fd, dead = create_temp(tmp_path / "of-another-command.json")
    os.close(fd)
    write_atomic(tmp_path / "a", b"1")
    assert os.listdir(tmp_path) == ["a"]
    assert not dead.exists()
