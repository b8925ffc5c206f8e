"""F: the counts of info.json, and what they must be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from opentau_prep.metadata.info import DEFAULT_CHUNKS_SIZE, INFO, as_integer
from opentau_prep.validate.checks.episodes import rows_differ, wrong_file
from opentau_prep.validate.checks.format import files_missing, files_unclaimed, files_unreadable
from opentau_prep.validate.findings import Hit, hit
from opentau_prep.validate.rule import OLD, RUN_FIX, Rule

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES", "true_counts"]

# The table is only right about the counts when the data files say the same.
_WITNESSES = (rows_differ, wrong_file, files_missing, files_unreadable, files_unclaimed)


def true_counts(view: DatasetView) -> dict[str, Any]:
    """Return the fields of info.json that follow from the rest, as far as that is sure."""
    counts: dict[str, Any] = {}
    table, info = view.episodes, view.info or {}
    # Fewer than are promised may be a part of the dataset, which is not to become the whole of it.
    sure = table is not None and len(table) >= (as_integer(info.get("total_episodes")) or 1)
    if table is not None and sure and not any(list(check(view)) for check in _WITNESSES):
        counts["total_episodes"] = len(table)
        counts["total_frames"] = table.total_frames
        size = as_integer(info.get("chunks_size", DEFAULT_CHUNKS_SIZE)) or 0
        if "total_chunks" in info and not view.meta.is_v3 and size > 0:
            counts["total_chunks"] = int(table.episode_index.max()) // size + 1
        splits = info.get("splits")
        if isinstance(splits, Mapping) and list(splits) == ["train"] and _from_zero(splits):
            counts["splits"] = {"train": f"0:{len(table)}"}
    if view.tasks and "total_tasks" in info:
        counts["total_tasks"] = len(view.tasks)
    template = info.get("data_path")
    if isinstance(template, str) and not view.meta.is_v3 and "{chunk_index" in template:
        # Both names are understood here and mean one number; trainers fill only one.
        counts["data_path"] = template.replace("{chunk_index", "{episode_chunk")
    return counts


def _from_zero(splits: Mapping[str, Any]) -> bool:
    return re.fullmatch(r"0:\d+", str(splits["train"])) is not None


def _fix(view: DatasetView, *fields: str) -> tuple[str, ...]:
    """Return the command that corrects fields, where it can: else a person must look."""
    return RUN_FIX if set(fields) <= set(true_counts(view)) else ()


def _count_differs(view: DatasetView, field: str, actual: int | None, of: str) -> Iterator[Hit]:
    declared = _differs(view, field, actual)
    if declared is not None:
        yield hit(
            f"{field} is {declared:,}, but {of} {actual:,}", file=INFO, command=_fix(view, field)
        )


def _differs(view: DatasetView, field: str, actual: int | None) -> int | None:
    """Return what info.json says a count is, where that is wrong."""
    declared = as_integer(view.info.get(field)) if view.info is not None else None
    return declared if declared is not None and actual is not None and declared != actual else None


def count_episodes(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is None:
        return
    here, frames = len(view.episodes), view.episodes.total_frames
    declared = _differs(view, "total_episodes", here)
    if declared is None:
        return
    declared_frames = _differs(view, "total_frames", frames)
    message = f"total_episodes is {declared:,}, but the episodes table has {here:,}"
    if declared_frames is not None:
        message = (
            f"{here:,} of {declared:,} episodes are here, {frames:,} of {declared_frames:,} frames"
            if here < declared
            else f"{message}; total_frames is {declared_frames:,}, the lengths add up to {frames:,}"
        )
    hint = f"Download the rest; if these are all, write total_episodes {here} and total_frames"
    part = f"{hint} {frames} into {INFO}." if here < declared else ""
    yield hit(message, part, file=INFO, command=_fix(view, "total_episodes"))


def count_frames(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is not None and _differs(view, "total_episodes", len(view.episodes)) is None:
        actual = view.episodes.total_frames
        yield from _count_differs(view, "total_frames", actual, "the episodes' lengths add up to")


def count_tasks(view: DatasetView) -> Iterator[Hit]:
    actual = None if view.tasks is None else len(view.tasks)
    yield from _count_differs(view, "total_tasks", actual, "the tasks table has")


def count_chunks(view: DatasetView) -> Iterator[Hit]:
    if view.info is None or view.episodes is None or view.meta.is_v3 or not len(view.episodes):
        return
    size = as_integer(view.info.get("chunks_size")) or DEFAULT_CHUNKS_SIZE
    if size > 0:
        chunks = int(view.episodes.episode_index.max()) // size + 1
        yield from _count_differs(view, "total_chunks", chunks, "the episodes fill")


def splits_run_past(view: DatasetView) -> Iterator[Hit]:
    if view.info is None or view.episodes is None or "splits" not in view.info:
        return
    splits = view.info["splits"]
    if not isinstance(splits, Mapping):
        yield hit("splits is not an object of `name: first:end`", file=INFO)
        return
    n = len(view.episodes)
    promised = _differs(view, "total_episodes", n)
    for name, span in splits.items():
        first, _, end = str(span).partition(":")
        if promised is not None and end.strip() == str(promised):
            continue  # as many episodes as info.json promises: F009
        if not (first.strip().isdecimal() and end.strip().isdecimal()):
            yield hit(f"split {name!r} is {span!r}, not `first:end`"[:120], file=INFO)
        elif len(end) > 15 or int(end) > n or int(first) > int(end):
            yield hit(
                f"split {name!r} is {span!r}, but there are {n:,} episodes"[:120],
                file=INFO,
                command=_fix(view, "splits"),
            )


def count_missing(view: DatasetView) -> Iterator[Hit]:
    missing = [n for n in ("total_episodes", "total_frames") if n not in (view.info or {n: 0})]
    if missing and view.info:
        yield hit(f"has no {' and no '.join(missing)}", file=INFO, command=_fix(view, *missing))


RULES = (
    Rule(
        "F009",
        "count-episodes",
        "error",
        "`total_episodes` is not the number of rows of the episodes table; where `total_frames` is"
        " wrong too, that is the same finding.",
        "LeRobot and openpi count up to it: where it is too high, they ask the hub for episodes"
        " that do not exist, and stop. OpenTau goes by the table.",
        "If episodes were not downloaded, download them; `--fix` corrects counts that are too low.",
        count_episodes,
    ),
    Rule(
        "F010",
        "count-frames",
        "error",
        "`total_frames` is not the sum of the episode lengths.",
        "OpenTau weighs the dataset by it in its norm head: a wrong number shifts the"
        " normalization of every dataset that shares the head. LeRobot takes it for the number"
        " of rows: it draws some that do not exist, or never draws the last.",
        "`--fix` writes the sum.",
        count_frames,
    ),
    Rule(
        "F011",
        "count-tasks",
        "warning",
        "`total_tasks` is not the number of tasks in the tasks table.",
        "OpenTau numbers the tasks of new recordings from it: they get a wrong task_index."
        " LeRobot 0.6.2 reads no task where it is 0.",
        "`--fix` writes the number.",
        count_tasks,
    ),
    Rule(
        "F012",
        "count-chunks",
        "warning",
        "`total_chunks` (v2.x) is not the number of chunk folders that the episodes fill.",
        "Tools that append to the dataset or copy it chunk by chunk miss episodes.",
        "`--fix` writes the number.",
        count_chunks,
        formats=OLD,
    ),
    Rule(
        "F013",
        "splits-run-past",
        "warning",
        "A split ends after the last episode, or is not written `first:end`.",
        "OpenTau and LeRobot do not read splits; a tool that loads one asks for episodes that"
        " do not exist.",
        "Let it end at the number of episodes (`--fix` does so for a single `train` split).",
        splits_run_past,
    ),
    Rule(
        "F016",
        "count-missing",
        "warning",
        "info.json has no `total_episodes` or no `total_frames`.",
        "Without `total_frames`, OpenTau counts the dataset as a single frame when it pools a"
        " head. LeRobot 0.4.4 stops, and 0.6.2 takes what is missing for 0.",
        "`--fix` writes them.",
        count_missing,
    ),
)
