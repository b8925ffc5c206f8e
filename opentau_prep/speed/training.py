"""The call that training makes: percentiles from the file, which is made when it is not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from opentau_prep.artifacts.atomic import NotWritableError, is_writable, write_atomic
from opentau_prep.artifacts.leftovers import sweep
from opentau_prep.artifacts.rank import Rank, main_rank_notices, wait_for
from opentau_prep.errors import ConfigError, PrepError
from opentau_prep.metadata.dataset import load_dataset_metadata
from opentau_prep.notices import warn
from opentau_prep.speed.rows import (
    SPEED_FILE,
    Percentiles,
    SpeedRow,
    append_rows,
    decode_rows,
    make_rows,
)
from opentau_prep.storage import is_remote, safe_url
from opentau_prep.storage.urls import command_at, shell_command

__all__ = ["load_or_compute_speed_percentiles", "missing_rows", "warn_if_short"]


def load_or_compute_speed_percentiles(
    root: str | os.PathLike[str],
    episode_lengths: Mapping[int, int],
    episode_to_task_index: Mapping[int, int],
    task_to_task_index: Mapping[str, int],
) -> dict[int, Percentiles]:
    """Return the speed percentiles of a dataset's tasks: what is on disk, completed where needed.

    A file that exists is trusted: people edit it by hand. Rows are added for tasks it lacks, the
    others are kept byte for byte. Without a file, all rows are computed and written. Percentiles of
    only some of the dataset's episodes are returned but not written: they would be everyone's from
    then on. Under a launcher the main rank computes and writes; the others wait for the file.

    Args:
        root: The dataset's folder.
        episode_lengths: episode_index -> frames.
        episode_to_task_index: episode_index -> task_index; episodes without one are left out.
        task_to_task_index: task string -> task_index.

    Returns:
        task_index -> ten lengths in frames, or None for a sparse task; see
        `compute_task_percentiles`. The same on every rank.

    Raises:
        MetadataError: The file holds a line that is not a row.
        ArtifactError: It could not be written, or the main rank did not write it in time.
        ConfigError: `root` is a URL, or a launcher's environment variables contradict each other.
    """
    if is_remote(root):
        raise ConfigError(
            "speed percentiles are kept in a folder, and nothing is written into a store",
            where=safe_url(os.fspath(root)),
            hint="Make them with `speed-percentiles --artifact-root DIR`.",
        )
    path = Path(root) / SPEED_FILE
    tasks = {index: task for task, index in task_to_task_index.items()}
    computed = make_rows(episode_lengths, episode_to_task_index, tasks)
    n_episodes = sum(row.n_episodes for row in computed)
    rank = Rank.detect()
    with main_rank_notices(rank):
        if not rank.is_main and is_writable(path.parent) and not _is_part(root, episode_lengths):
            rows = wait_for(lambda: _complete(path, computed), what=str(path))
        else:
            found = _complete(path, computed)
            if found is None:
                rows = _write(Path(root), path, computed, episode_lengths, rank)
            else:
                rows = found
        warn_if_short(rows, n_episodes, str(path))
    return {row.task_index: row.percentiles for row in rows}


def missing_rows(rows: list[SpeedRow], computed: list[SpeedRow]) -> list[SpeedRow]:
    """Return the computed rows of the tasks that a file has no row for."""
    there = {row.task_index for row in rows}
    return [row for row in computed if row.task_index not in there]


def warn_if_short(rows: list[SpeedRow], n_episodes: int, where: str) -> None:
    """Say so when a file's percentiles come from fewer episodes than there are now."""
    covered = sum(row.n_episodes for row in rows)
    if covered < n_episodes:
        warn(
            "stale_speed_percentiles",
            f"Stale {where}: it was computed from {covered:,} episodes, and the dataset now has"
            f" {n_episodes:,}. It is used as it is; recompute it:"
            f" `{command_at('speed-percentiles', where, '--force')}`",
            on_disk=covered,
            current=n_episodes,
        )


def _complete(path: Path, computed: list[SpeedRow]) -> list[SpeedRow] | None:
    """Return the file's rows when it holds every task, else None."""
    try:
        rows = decode_rows(path.read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if missing_rows(rows, computed) else rows


def _write(
    root: Path, path: Path, computed: list[SpeedRow], lengths: Mapping[int, int], rank: Rank
) -> list[SpeedRow]:
    old = path.read_bytes() if path.is_file() else b""
    rows = decode_rows(old, str(path))
    added = missing_rows(rows, computed)
    if _is_part(root, lengths):
        all_of_it = shell_command("speed-percentiles", [root])
        warn(
            "subset_not_persisted",
            f"{root}: speed percentiles of {len(lengths):,} episodes are used but not written: the"
            f" dataset has more. Write them once for all: `{all_of_it}`",
            dataset=str(root),
        )
        return rows + added
    if not rank.is_main:  # only where nobody can write: every rank has the values by itself
        return rows + added
    try:
        sweep(path.parent)
        write_atomic(path, append_rows(old, added))
    except NotWritableError as error:
        warn(
            "not_persisted",
            f"{error.where}: speed percentiles are used but not written ({error.message})",
            dataset=str(root),
        )
    else:
        if rows:
            names = ", ".join(str(row.task_index) for row in added)
            warn(
                "added_speed_rows",
                f"Adding {len(added):,} missing {'task' if len(added) == 1 else 'tasks'} ({names})"
                f" to {path}; the rows that it has stay as they are",
                tasks=[row.task_index for row in added],
            )
    return rows + added


def _is_part(root: str | os.PathLike[str], lengths: Mapping[int, int]) -> bool:
    """Tell whether the dataset at `root` has episodes that are not among `lengths`."""
    try:
        table = load_dataset_metadata(root).episodes
    except PrepError:
        return False
    return any(int(episode) not in lengths for episode in table.episode_index)
