"""The verb behind `speed-percentiles`: every dataset's file, made, completed, or left alone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Recipe, dataset_place, publish
from opentau_prep.artifacts.place import Place, check_artifact_root
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.artifacts.store import Inspection, Outcome, State, inspect
from opentau_prep.engine import Failure
from opentau_prep.errors import ConfigError, DataError, MetadataError
from opentau_prep.metadata.info import parse_fps
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.metadata.resolve import warn_vqa
from opentau_prep.notices import some_names, warn
from opentau_prep.speed.report import SpeedReport, SpeedResult
from opentau_prep.speed.rows import SpeedRow, append_rows, decode_rows, encode_rows, make_rows
from opentau_prep.speed.tasks import resolve_episode_tasks
from opentau_prep.speed.training import missing_rows, warn_if_short

if TYPE_CHECKING:
    from opentau_prep.artifacts.place import Place
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["EPISODES", "KEPT_ROWS", "inspect_speed", "prepare_speed", "speed_place", "speed_recipe"]

COMMAND = "speed-percentiles"
SMALL_MIXTURE = 16


def prepare_speed(
    resolved: ResolvedMixture, context: RunContext, *, persist_subset: bool = False
) -> SpeedReport:
    """Make the speed percentiles of every dataset of a mixture, or say that they are up to date.

    Args:
        resolved: The mixture. Percentiles are of whole datasets, whatever episodes an entry
            selects: the file is everyone's.
        context: How to run.
        persist_subset: Make the file of the episodes that an entry selects, where there is none
            yet.

    Returns:
        The report; the same values on every rank.

    Raises:
        PrepError: A dataset failed and `context.keep_going` is off, or one lies in a store and
            there is no `context.artifact_root`.
    """
    check_artifact_root((entry.meta.root for entry in resolved.entries), context.artifact_root)
    if persist_subset:
        jobs = _distinct(resolved.entries)
        _check_one_selection(jobs)
    else:
        for entry in resolved.entries:
            if entry.is_subset:  # a selection of episodes that do not exist is refused here, too
                with contextlib.suppress(MetadataError, DataError):  # reported with the dataset
                    _ = entry.episodes
        jobs = [entry.of_whole_dataset() for entry in resolved.first_entries]
    work = partial(_prepare_one, context=context.for_workers())
    with main_rank_notices(context.this_rank):
        warn_vqa(resolved.vqa)
        names = [entry.name for entry in jobs]
        done = context.map(COMMAND, work, jobs, names, items_per_worker=SMALL_MIXTURE)
    return SpeedReport(
        [r for r in done if isinstance(r, SpeedResult)],
        [*resolved.faults, *(r for r in done if isinstance(r, Failure))],
    )


def _distinct(entries: Sequence[ResolvedEntry]) -> list[ResolvedEntry]:
    """Return one entry for each dataset and selection: the file belongs to the dataset."""
    kept: dict[object, ResolvedEntry] = {}
    for entry in entries:
        selection = (entry.config.episodes, entry.config.excluded_episodes)
        kept.setdefault((entry.dataset, selection if entry.is_subset else None), entry)
    return list(kept.values())


def _check_one_selection(jobs: Sequence[ResolvedEntry]) -> None:
    """Refuse to persist two selections of one dataset: it has one file."""
    by_root: dict[str, list[str]] = {}
    for entry in jobs:
        by_root.setdefault(entry.meta.root, []).append(entry.name)
    for root, names in by_root.items():
        if len(names) > 1:
            raise ConfigError(
                f"--persist-subset cannot write the percentiles of {len(names)} selections"
                f" ({', '.join(names)}) into one file",
                where=root,
                hint="Leave it out, or name one selection of the dataset.",
            )


class _Work:
    """One dataset's file: what is there, and what it should be."""

    def __init__(self, entry: ResolvedEntry, context: RunContext) -> None:
        self.entry = entry
        self.meta = entry.meta
        # Lengths are in frames: a rate that cannot be is a sign that this is not what it says.
        if "fps" in self.meta.info:
            parse_fps(self.meta.info, self.meta.info_path)
        self.context = context
        entry.dataset.check_not_empty()
        self.episodes = entry.episodes if entry.is_subset else entry.meta.episodes.episode_index
        self.place = speed_place(entry, context.artifact_root)
        if not entry.dataset.present.episodes:
            raise DataError(
                f"none of the data files of its {len(self.meta.episodes):,} episodes is here",
                where=entry.meta.root,
                hint="Download them: an episode's task is read from its first frame.",
            )

    @cached_property
    def recipe(self) -> Recipe:
        return speed_recipe(self.entry, subset=self.entry.is_subset)

    @cached_property
    def lengths(self) -> dict[int, int]:
        table = self.meta.episodes
        return {e: int(table.length[table.position(e)]) for e in self.episodes.tolist()}

    @cached_property
    def computed(self) -> list[SpeedRow]:
        tasks = resolve_episode_tasks(self.meta, self.episodes)
        rows = make_rows(self.lengths, tasks.task_index, self.meta.tasks)
        if not rows:
            raise DataError(
                "no episode has a task",
                where=self.meta.root,
                hint="The data needs task_index, or the episodes table tasks of the tasks table.",
            )
        if tasks.unresolved:
            _say_unresolved(self.entry.name, tasks.unresolved)
        return rows

    @property
    def places(self) -> Sequence[Place]:
        return (self.place,)

    def finished(self) -> SpeedResult | None:
        """Return the file's rows when it is fresh, or is trusted and lacks none."""
        found = inspect(self.place, self.recipe)
        if found.content is None:
            return None
        rows = decode_rows(found.content, str(found.path))
        if found.fresh:
            return self.result(rows, "up to date")
        adopted = found.content == encode_rows(self.computed)
        if self.context.force or adopted or missing_rows(rows, self.computed):
            return None
        _say_stale(self, found, rows)
        return self.result(rows, "kept", changes=found.changes)

    def make(self) -> SpeedResult:
        """Write the file, or add the rows that one lacks which differs: it is trusted otherwise."""
        found = inspect(self.place, self.recipe)
        content = encode_rows(self.computed)
        if found.content is not None and not self.context.force and found.content != content:
            return _append(self, found)
        outcome = self.publish(content, force=self.context.force)
        more = {"changes": outcome.changes, "backup": outcome.backup}
        return self.result(self.computed, outcome.status, **more)

    def publish(self, content: bytes, recipe: Recipe | None = None, **options: bool) -> Outcome:
        dry_run = self.context.dry_run
        return publish(self.place, content, recipe or self.recipe, dry_run=dry_run, **options)

    def result(self, rows: Sequence[SpeedRow], status: str, **more: Any) -> SpeedResult:
        return SpeedResult(
            name=self.entry.name,
            root=self.meta.root,
            status=status,
            path=self.place.path,
            rows=tuple(rows),
            n_episodes=len(self.episodes),
            files_opened=dict(self.meta.storage.opened),
            **more,
        )


def _say_unresolved(name: str, episodes: Sequence[int]) -> None:
    warn(
        "unresolved_tasks",
        f"{name}: {len(episodes):,} episodes have no resolvable task and get speed bucket 50:"
        f" {some_names(episodes)}",
        dataset=name,
        episodes=list(episodes),
    )


def _prepare_one(entry: ResolvedEntry, *, context: RunContext) -> SpeedResult:
    return context.ensure(_Work(entry, context))


def _append(work: _Work, found: Inspection) -> SpeedResult:
    """Add the rows that a file lacks; the others stay as they are."""
    old = found.content or b""
    where = str(found.path)
    rows = decode_rows(old, where)
    added = missing_rows(rows, work.computed)
    _say_stale(work, found, [*rows, *added])
    computed = {row.task_index: row for row in work.computed}
    kept = [row.task_index for row in rows if computed.get(row.task_index) != row]
    # Rows that a recomputation would change are on record, so that the file never counts as fresh.
    parameters = {**work.recipe.parameters, **({KEPT_ROWS: kept} if kept else {})}
    recipe = replace(work.recipe, parameters=parameters)
    outcome = work.publish(append_rows(old, added), recipe, extends=True)
    names = ", ".join(str(row.task_index) for row in added)
    warn(
        "added_speed_rows",
        f"{where}: added the rows of {len(added):,} tasks that it lacked ({names}); the others are"
        " as they were",
        dataset=work.entry.name,
        tasks=[row.task_index for row in added],
    )
    status = "appended" if outcome.status == "written" else outcome.status
    return work.result([*rows, *added], status, changes=found.changes)


def _say_stale(work: _Work, found: Inspection, rows: list[SpeedRow]) -> None:
    if found.state is State.STALE or (found.changes and KEPT_ROWS not in found.changes[0]):
        warn(
            "stale_speed_percentiles",
            f"{found.path} is stale ({', '.join(found.changes)}). It is used as it is; recompute it"
            " with --force",
            dataset=work.entry.name,
            changes=list(found.changes),
        )
    elif found.state is not State.FRESH:
        warn_if_short(rows, sum(row.n_episodes for row in work.computed), str(found.path))


COMMAND = "speed-percentiles"
EPISODES = "episodes"
"""The parameter of a file that was made, on request, of selected episodes alone."""
KEPT_ROWS = "kept_rows"
"""The parameter of a file that holds rows which a recomputation would change."""


def speed_place(entry: ResolvedEntry, artifact_root: Path | None) -> Place:
    """Return where the file of an entry's dataset lies."""
    return dataset_place(
        "speed_percentiles",
        entry.meta.storage,
        dataset=entry.artifact_name,
        artifact_root=artifact_root,
    )


def speed_recipe(entry: ResolvedEntry, *, subset: bool, read: bool = True) -> Recipe:
    """Return what the file is made of.

    Args:
        entry: Any entry of the dataset.
        subset: Whether it is made of the entry's selected episodes alone.
        read: Whether data files may be read to hash them.
    """
    parameters = {EPISODES: entry.episodes.tolist()} if subset else {}
    inputs = describe_inputs(entry.meta, read=read)
    return Recipe(COMMAND, inputs=inputs, parameters=parameters, partial=not read)


def inspect_speed(entry: ResolvedEntry, *, artifact_root: Path | None = None) -> Inspection:
    """Return the state of the file of an entry's dataset; reads no frames and changes nothing.

    A file that was made of the very episodes that the entry selects is fresh for it.

    Raises:
        PrepError: The dataset's tables, or the file, cannot be read.
    """
    place = speed_place(entry, artifact_root)
    found = inspect(place, speed_recipe(entry, subset=False, read=False))
    if found.state is State.REPARAMETRIZED and entry.is_subset:
        of_subset = inspect(place, speed_recipe(entry, subset=True, read=False))
        return of_subset if of_subset.fresh else found
    return found
