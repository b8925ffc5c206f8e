from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path

import pytest

from opentau_prep.artifacts import tempfiles
from opentau_prep.artifacts.atomic import (
    NotWritableError,
    is_writable,
    replacing,
    write_all_atomic,
    write_atomic,
)
from opentau_prep.artifacts.leftovers import sweep
from opentau_prep.artifacts.tempfiles import LEFTOVER_AGE_S, create_temp, list_temps
from opentau_prep.errors import ArtifactError


def test_write_atomic_missing_folders_are_made(tmp_path: Path) -> None:
    target = tmp_path / "meta" / "prep" / "a.json"
    write_atomic(target, b"1")
    write_atomic(target, b"22")
    assert target.read_bytes() == b"22"
    assert os.listdir(target.parent) == ["a.json"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_write_atomic_new_file_follows_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_write_atomic_old_file_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"1")
    target.chmod(0o664)
    if os.geteuid() == 0:
        os.chown(target, 12345, 23456)
    owner = (target.stat().st_uid, target.stat().st_gid)
    write_atomic(target, b"2")
    assert stat.S_IMODE(target.stat().st_mode) == 0o664
    assert (target.stat().st_uid, target.stat().st_gid) == owner


def test_write_atomic_link_into_hub_blobs_leaves_the_blob_alone(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / "0a1b"
    link = tmp_path / "snapshots" / "main" / "meta" / "stats.json"
    blob.parent.mkdir()
    link.parent.mkdir(parents=True)
    blob.write_bytes(b"published")
    link.symlink_to(os.path.relpath(blob, link.parent))
    write_atomic(link, b"ours")
    assert blob.read_bytes() == b"published"
    assert link.read_bytes() == b"ours"
    assert not link.is_symlink()


def test_write_atomic_root_is_a_file_not_writable(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(NotWritableError, match=r"root/meta/a\.json.*[Nn]ot a directory"):
        write_atomic(tmp_path / "root" / "meta" / "a.json", b"1")
    assert not is_writable(tmp_path / "root" / "meta")
    assert is_writable(tmp_path / "new" / "meta")


def test_write_atomic_target_is_a_folder_error_and_no_leftover(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ArtifactError, match="Is a directory"):
        write_atomic(tmp_path / "a", b"1")
    assert list_temps(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_write_atomic_fsync_fails_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ArtifactError, match="old file") as caught:
        write_atomic(tmp_path / "a", b"new")
    assert caught.value.exit_code == 4
    assert not isinstance(caught.value, NotWritableError)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_write_atomic_file_system_without_fsync_still_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EINVAL, "no fsync here")

    monkeypatch.setattr(os, "fsync", fail)
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_write_atomic_longest_name_fits(tmp_path: Path) -> None:
    name = "é" * 127
    write_atomic(tmp_path / name, b"1")
    assert os.listdir(tmp_path) == [name]


def test_write_atomic_temp_removed_by_force_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, removed = os.replace, []

    def remove_first(source: Path, target: Path) -> None:
        if not removed:
            removed.append(source)
            os.unlink(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", remove_first)
    write_all_atomic([(tmp_path / "a", b"1"), (tmp_path / "b", b"2")])
    assert [(tmp_path / n).read_bytes() for n in "ab"] == [b"1", b"2"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_write_all_atomic_second_fails_first_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotWritableError):
        write_all_atomic([(tmp_path / "a", b"new"), (tmp_path / "file" / "b", b"new")])
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "file"]


def test_replacing_block_writes_in_place_afterwards(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with replacing(target) as pending:
        pending.file.write(b"ne")
        assert target.read_bytes() == b"old"
        pending.file.write(b"w")
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, FileNotFoundError(2, "x")])
def test_replacing_block_raises_old_file_stays(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_bytes(b"old")
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind), replacing(tmp_path / "a") as pending:
        pending.file.write(b"new")
        raise error
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_sweep_removes_leftovers_but_not_live_files(tmp_path: Path) -> None:
    live_fd, live = create_temp(tmp_path / "a")
    dead_fd, dead = create_temp(tmp_path / "a")
    os.close(dead_fd)
    bystander = tmp_path / ".a.prep-tmp.txt"
    bystander.write_bytes(b"")
    old = time.time() - 2 * LEFTOVER_AGE_S
    os.utime(live, (old, old))  # however long its writer has been at it
    assert sweep(tmp_path) == [dead]
    assert live.exists()
    assert bystander.exists()
    os.close(live_fd)
    assert sweep(tmp_path) == [live]
    assert sweep(tmp_path / "nowhere") == []


def test_sweep_other_machines_file_only_when_old(tmp_path: Path) -> None:
    # Its lock may be invisible here, so only age tells.
    foreign = tmp_path / f".a.{'0' * 20}.prep-tmp"
    foreign.write_bytes(b"")
    assert sweep(tmp_path) == []
    old = time.time() - LEFTOVER_AGE_S - 10
    os.utime(foreign, (old, old))
    assert sweep(tmp_path) == [foreign]


def test_sweep_without_locks_goes_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    write_atomic(tmp_path / "a", b"works without locks")
    fd, temp = create_temp(tmp_path / "a")
    assert sweep(tmp_path) == []
    old = time.time() - LEFTOVER_AGE_S - 10
    os.utime(temp, (old, old))
    assert sweep(tmp_path) == [temp]
    os.close(fd)


def test_sweep_planted_link_and_pipe_are_let_be(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with tempfiles.claim_leftover(tmp_path / "missing") as leftover:
        assert not leftover
    fd, temp = create_temp(tmp_path / "a")
    os.close(fd)
    temp.unlink()
    temp.symlink_to(victim)
    pipe = temp.with_name(temp.name.replace(".prep-tmp", "").replace(".a.", ".b.") + ".prep-tmp")
    os.mkfifo(pipe)
    assert sweep(tmp_path) == []
    assert victim.read_bytes() == b"precious"


def test_create_temp_swept_before_it_is_held_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, swept = fcntl.flock, []

    def sweeper_is_faster(fd: int, operation: int) -> None:
        if not swept:
            swept.extend(list_temps(tmp_path))
            swept[0].unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", sweeper_is_faster)
    fd, temp = create_temp(tmp_path / "a")
    assert swept != [temp]
    assert temp.exists()
    os.close(fd)
