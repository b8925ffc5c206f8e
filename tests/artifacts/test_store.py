from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from opentau_prep import notices
from opentau_prep.artifacts.ensure import ensure_file
from opentau_prep.artifacts.place import Place, dataset_place, file_place
from opentau_prep.artifacts.provenance import Recipe, record_of
from opentau_prep.artifacts.rank import Rank
from opentau_prep.artifacts.store import (
    OverwriteRefusedError,
    State,
    heal,
    inspect,
    judge,
    publish,
)
from opentau_prep.artifacts.tempfiles import create_temp, list_temps
from opentau_prep.errors import ArtifactError

OLD = Recipe("test", {"episodes": {"count": 19, "frames": 4958, "sha256": "a"}}, {"q": [0.5]})
NEW = Recipe("test", {"episodes": {"count": 105, "frames": 27623, "sha256": "b"}}, {"q": [0.5]})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return dataset_place("speed_percentiles", tmp_path, dataset="org/name")


def names(place: Place) -> list[str]:
    return sorted(path.name for path in place.path.parent.iterdir() if path.is_file())


def test_inspect_every_state_is_told(place: Place) -> None:
    assert inspect(place, OLD).state is State.MISSING
    publish(place, b"1\n", OLD)
    assert inspect(place, OLD).state is State.FRESH
    stale = inspect(place, NEW)
    assert stale.state is State.STALE
    assert stale.changes == ("episodes 19 -> 105", "frames 4,958 -> 27,623")
    other = Recipe("test", OLD.inputs, {"q": [0.1]})
    assert inspect(place, other).state is State.REPARAMETRIZED
    assert inspect(place, other).changes == ("q [0.5] -> [0.1]",)
    place.path.write_bytes(b"1 \n")
    assert inspect(place, OLD).state is State.EDITED
    place.provenance_path.unlink()
    assert inspect(place, OLD).state is State.FOREIGN


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("count", [19, 105])
def test_judge_names_the_state_from_inputs_parameters_and_layout(count, size, schema):
    made = Recipe("test", {"episodes": {"count": 19}}, {"size": 1})
    now = Recipe("test", {"episodes": {"count": count}}, {"size": size})
    record = record_of("validation", 1, b"content", made)
    found = judge(Path("x"), b"content", record, now, schema_version=schema)
    # Other inputs or another layout make a file stale, whatever the parameters are.
    if count != 19 or schema != 1:
        assert found.state is State.STALE
    elif size != 1:
        assert found.state is State.REPARAMETRIZED
    else:
        assert found.state is State.FRESH
    expected = {
        "episodes 19 -> 105": count != 19,
        "file layout 1 -> 2": schema != 1,
        "size 1 -> 2": size != 1,
    }
    assert set(found.changes) == {text for text, wanted in expected.items() if wanted}
    edited = judge(Path("x"), b"other", record, now, schema_version=schema)
    assert (edited.state, edited.changes) == (State.EDITED, ())
    foreign = judge(Path("x"), b"content", None, now, schema_version=schema)
    assert (foreign.state, foreign.changes) == (State.FOREIGN, ())


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"tool": "opentau-prep"}',
        b'{"tool": "other"}',
        b"\xff",
        b"[" * 99_999,
    ],
)
def test_inspect_damaged_provenance_counts_as_foreign(place: Place, damage: bytes) -> None:
    publish(place, b"1\n", OLD)
    place.provenance_path.write_bytes(damage)
    assert inspect(place, OLD).state is State.FOREIGN
    assert publish(place, b"1\n", OLD).status == "up to date"
    assert inspect(place, OLD).fresh


def test_inspect_other_schema_version_is_stale(place: Place) -> None:
    publish(place, b"1\n", OLD)
    newer = Place(place.name, 2, place.path, place.provenance_path, place.root)
    assert inspect(newer, OLD).changes == ("file layout 1 -> 2",)


def test_inspect_folder_in_the_way_is_an_artifact_error(place: Place) -> None:
    place.path.mkdir(parents=True)
    with pytest.raises(ArtifactError, match="cannot be read"):
        inspect(place, OLD)


def test_publish_same_again_touches_nothing(place: Place) -> None:
    assert publish(place, b"1\n", OLD).status == "written"

    def written() -> list[tuple[int, int, int]]:  # not when it was read
        found = [path.stat() for path in (place.path, place.provenance_path)]
        return [(each.st_ino, each.st_mtime_ns, each.st_ctime_ns) for each in found]

    before = written()
    assert publish(place, b"1\n", OLD).status == "up to date"
    assert written() == before


def test_publish_own_stale_file_is_replaced_without_backup(place: Place) -> None:
    publish(place, b"1\n", OLD)
    outcome = publish(place, b"2\n", NEW)
    assert (outcome.status, outcome.before, outcome.backup) == ("written", State.STALE, None)
    assert names(place) == ["speed_percentiles.jsonl"]


def test_publish_foreign_or_edited_file_is_refused(place: Place) -> None:
    place.path.parent.mkdir(parents=True)
    place.path.write_bytes(b"theirs\n")
    for _ in range(2):
        with pytest.raises(OverwriteRefusedError, match="--force") as caught:
            publish(place, b"ours\n", OLD)
        assert caught.value.inspection.content == b"theirs\n"
        assert place.path.read_bytes() == b"theirs\n"
        publish(place, b"ours\n", OLD, force=True)
        place.path.write_bytes(b"theirs\n")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.content, str(again)) == (b"ours\n", str(caught.value))


def test_publish_force_keeps_the_old_file_beside(place: Place) -> None:
    publish(place, b"1\n", OLD)
    outcome = publish(place, b"2\n", OLD, force=True)
    assert outcome.backup is not None
    assert outcome.backup.read_bytes() == b"1\n"
    assert outcome.backup.name == "speed_percentiles.jsonl.bak-4355a46b"
    publish(place, b"1\n", OLD, force=True)
    publish(place, b"2\n", OLD, force=True)
    assert len(names(place)) == 3


def test_publish_extending_keeps_old_file_unless_it_is_the_beginning(place: Place) -> None:
    place.path.parent.mkdir(parents=True)
    place.path.write_bytes(b"1\n")
    assert publish(place, b"1\n2\n", OLD, extends=True).backup is None
    place.path.write_bytes(b"0\n")
    backup = publish(place, b"0.0\n", OLD, extends=True).backup
    assert backup is not None
    assert backup.read_bytes() == b"0\n"


def test_publish_dry_run_changes_nothing(place: Place) -> None:
    assert publish(place, b"1\n", OLD, dry_run=True).status == "would write"
    assert not place.path.parent.exists()


def test_publish_reading_order_of_parameters_is_no_matter(place: Place) -> None:
    publish(
        place, b"1\n", Recipe("test", {"a": 1, "b": {"c": 1, "d": 2}}, {"x": float("nan"), "y": 1})
    )
    first = place.provenance_path.read_bytes()
    other = Recipe("test", {"b": {"d": 2, "c": 1}, "a": 1}, {"y": 1, "x": float("nan")})
    assert inspect(place, other).fresh
    place.provenance_path.unlink()
    publish(place, b"1\n", other)
    assert place.provenance_path.read_bytes() == first


def test_provenance_same_inputs_same_bytes_anywhere(tmp_path: Path) -> None:
    written = []
    for where in ("one", "another/place"):
        place = dataset_place("stats", tmp_path / where)
        publish(place, b"{}\n", OLD)
        written.append(place.provenance_path.read_bytes())
    assert written[0] == written[1]
    assert str(tmp_path).encode() not in written[0]


def test_heal_finished_provenance_of_a_killed_run_is_put_in_place(place: Place) -> None:
    publish(place, b"2\n", NEW)
    finished = place.provenance_path.read_bytes()
    publish(place, b"1\n", OLD)
    fd, temp = create_temp(place.provenance_path)
    os.write(fd, finished)
    place.path.write_bytes(b"2\n")
    heal(place)
    assert inspect(place, NEW).state is State.EDITED, "a live writer's file was taken"
    os.close(fd)
    heal(place)
    assert inspect(place, NEW).fresh
    assert not temp.exists()


def test_dataset_place_artifact_root_reads_through_and_writes_there(tmp_path: Path) -> None:
    inside = dataset_place("stats", tmp_path / "data")
    publish(inside, b"1\n", OLD)
    over = dataset_place(
        "stats", tmp_path / "data", dataset="org/name", artifact_root=tmp_path / "elsewhere"
    )
    assert inspect(over, OLD).path == inside.path
    assert inspect(over, OLD).fresh
    publish(over, b"2\n", NEW)
    assert (tmp_path / "elsewhere/org/name/meta/stats.json").read_bytes() == b"2\n"
    assert inspect(over, NEW).content == b"2\n"
    assert inside.path.read_bytes() == b"1\n"


def test_file_place_provenance_lies_beside(tmp_path: Path) -> None:
    place = file_place("norm_heads", tmp_path / "out" / "norm_heads.json")
    publish(place, b"{}\n", OLD)
    assert names(place) == ["norm_heads.json", "norm_heads.prep.json"]


def test_ensure_file_replaces_a_stale_one_with_a_warning(place: Place) -> None:
    ensure_file(place, lambda: b"1\n", OLD)
    with notices.collect_notices() as said:
        made = ensure_file(place, lambda: b"2\n", NEW)
    assert (made.content, made.outcome.status) == (b"2\n", "written")
    assert [notice.kind for notice in said] == ["stale_artifact"]
    assert "episodes 19 -> 105" in said[0].message


def test_ensure_fresh_is_not_built_again_unless_forced(place: Place) -> None:
    ensure_file(place, lambda: b"1\n", OLD)
    with notices.collect_notices() as said:
        again = ensure_file(place, lambda: pytest.fail("built"), OLD)
    assert (again.outcome.status, said) == ("up to date", [])
    assert ensure_file(place, lambda: b"1\n", OLD, force=True).outcome.status == "up to date"
    assert ensure_file(place, lambda: b"2\n", OLD, force=True).outcome.backup is not None


def test_ensure_fresh_still_removes_what_a_killed_run_left(place: Place) -> None:
    ensure_file(place, lambda: b"1\n", OLD)
    for target in (place.path, place.provenance_path):
        os.close(create_temp(target)[0])
    ensure_file(place, lambda: pytest.fail("built"), OLD, dry_run=True)
    assert len(list_temps(place.path.parent)) == 1
    ensure_file(place, lambda: pytest.fail("built"), OLD)
    assert list_temps(place.path.parent) == list_temps(place.provenance_path.parent) == []


def test_ensure_dry_run_every_rank_gets_the_value_and_nothing_is_written(place: Place) -> None:
    for rank in (Rank(0, 2, 0, True, "torchrun"), Rank(1, 2, 1, False, "torchrun")):
        made = ensure_file(place, lambda: b"1\n", OLD, rank=rank, dry_run=True)
        assert (made.content, made.outcome.status) == (b"1\n", "would write")
    assert not place.path.parent.exists()


def test_ensure_root_is_a_file_value_is_returned(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"")
    place = dataset_place("stats", tmp_path / "root", dataset="d")
    with notices.collect_notices() as said:
        made = ensure_file(place, lambda: b"1\n", OLD)
    assert (made.content, made.outcome.status) == (b"1\n", "not persisted")
    assert [(notice.kind, notice.dataset) for notice in said] == [("not_persisted", "d")]


def test_publish_on_a_disk_that_fails_for_good_leaves_the_provenance_to_the_next_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(place, b"1\n", OLD)
    replace, broken = os.replace, []

    def fail_after_the_first(source: Path, target: Path) -> None:
        if broken:
            raise OSError(errno.EIO, "Input/output error")
        broken.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_after_the_first)
        with pytest.raises(ArtifactError):
            publish(place, b"2\n", NEW)
    assert place.path.read_bytes() == b"2\n"
    assert inspect(place, NEW).state is State.EDITED
    heal(place)
    assert inspect(place, NEW).state is State.FRESH
    assert list_temps(place.provenance_path.parent) == []
