from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from opentau_prep.artifacts.place import FOLDER_PROVENANCE, folder_place
from opentau_prep.artifacts.provenance import Recipe
from opentau_prep.artifacts.store import OverwriteRefusedError, State, inspect, publish
from opentau_prep.errors import ArtifactError

RECIPE = Recipe("fit", {"episodes": {"count": 19}}, {"scale": 10})
FILES = {"a.json": b"1", "b.json": b"2"}


def _place(folder):
    return folder_place("tokenizer", folder / "out", "--out-dir")


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_publish_folder_writes_the_files_and_their_provenance(tmp_path):
    place = _place(tmp_path)
    assert inspect(place, RECIPE).state is State.MISSING
    assert publish(place, FILES, RECIPE).status == "written"
    assert _names(place.path) == ["a.json", "b.json", FOLDER_PROVENANCE]
    assert _names(tmp_path) == ["out"]
    assert inspect(place, RECIPE).fresh


def test_publish_folder_takes_an_empty_folders_place(tmp_path):
    place = _place(tmp_path)
    place.path.mkdir()
    publish(place, FILES, RECIPE)
    assert inspect(place, RECIPE).fresh


def test_publish_folder_keeps_each_version_of_its_own_once(tmp_path):
    place = _place(tmp_path)
    publish(place, FILES, RECIPE)
    changed = Recipe("fit", {"episodes": {"count": 105}}, {"scale": 10})
    found = inspect(place, changed)
    assert (found.state, found.changes) == (State.STALE, ("episodes 19 -> 105",))
    old = {p.name: p.read_bytes() for p in place.path.iterdir()}
    outcome = publish(place, {"a.json": b"3"}, changed)
    assert outcome.backup is not None
    assert {p.name: p.read_bytes() for p in outcome.backup.iterdir()} == old
    assert _names(place.path) == ["a.json", FOLDER_PROVENANCE]
    assert _names(tmp_path) == ["out", outcome.backup.name]
    # The same bytes again, and back to the first version: nothing new is worth a backup.
    assert publish(place, {"a.json": b"3"}, changed, force=True).backup is None
    third = publish(place, FILES, RECIPE).backup
    assert publish(place, {"a.json": b"3"}, changed).backup is None
    assert _names(tmp_path) == sorted(["out", outcome.backup.name, third.name])


@pytest.mark.parametrize("what", ["changed", "removed", "added"])
def test_publish_folder_edited_is_refused_and_kept_when_forced(what, tmp_path):
    place = _place(tmp_path)
    publish(place, FILES, RECIPE)
    if what == "removed":
        (place.path / "a.json").unlink()
    else:
        (place.path / ("a.json" if what == "changed" else "mine.txt")).write_bytes(b"mine")
    edited = {p.name: p.read_bytes() for p in place.path.iterdir()}
    with pytest.raises(OverwriteRefusedError, match="--force"):
        publish(place, FILES, RECIPE)
    assert {p.name: p.read_bytes() for p in place.path.iterdir()} == edited
    outcome = publish(place, FILES, RECIPE, force=True)
    assert {p.name: p.read_bytes() for p in outcome.backup.iterdir()} == edited
    assert inspect(place, RECIPE).fresh


def test_publish_folder_foreign_folder_of_folders_is_never_replaced(tmp_path):
    place = _place(tmp_path)
    (place.path / "data").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="holds folders"):
        publish(place, FILES, RECIPE, force=True)
    assert _names(tmp_path) == ["out"]


def test_publish_folder_over_a_file_is_refused(tmp_path):
    place = _place(tmp_path)
    place.path.write_text("mine")
    with pytest.raises(ArtifactError, match="is a file"):
        publish(place, FILES, RECIPE, force=True)
    assert place.path.read_text() == "mine"


def test_publish_folder_dry_run_changes_nothing(tmp_path):
    place = _place(tmp_path)
    assert publish(place, FILES, RECIPE, dry_run=True).status == "would write"
    assert _names(tmp_path) == []


def test_inspect_folder_other_parameters_or_another_artifact(tmp_path):
    place = _place(tmp_path)
    publish(place, FILES, RECIPE)
    other = Recipe("fit", RECIPE.inputs, {"scale": 5})
    assert inspect(place, other).state is State.REPARAMETRIZED
    assert inspect(folder_place("other", place.path, "--out-dir"), RECIPE).state is State.FOREIGN


def test_publish_folder_leftover_of_a_killed_run_is_removed(tmp_path):
    place = _place(tmp_path)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "import opentau_prep.artifacts.folders as f\n"
        "from opentau_prep.artifacts.provenance import Recipe\n"
        "f.os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from opentau_prep.artifacts.place import folder_place\n"
        "from opentau_prep.artifacts.store import publish\n"
        "publish(folder_place('tokenizer', Path(sys.argv[1]), '--out-dir'),"
        " {'a.json': b'torn'}, Recipe('fit', {}))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(place.path)], env=env, check=False)
    assert not place.path.exists()
    publish(place, FILES, RECIPE)
    assert _names(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="the exchange is one system call on Linux only")
def test_publish_folder_a_reader_always_sees_a_whole_folder(tmp_path):
    place = _place(tmp_path)
    publish(place, {"a.json": b"0"}, RECIPE)
    stop, missing = threading.Event(), []

    def read():
        while not stop.is_set():
            try:
                (place.path / "a.json").read_bytes()
            except OSError as error:
                missing.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        publish(place, {"a.json": str(number).encode()}, RECIPE)
    stop.set()
    reader.join()
    assert not missing
