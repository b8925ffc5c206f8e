"""K: the tasks table, and who uses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import Rule
from opentau_prep.validate.tables import tasks_file
from opentau_prep.validate.view import relative

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]


def tasks_unreadable(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("tasks")) is not None:
        file, message = relative(fault, view.storage.url)
        yield hit(message, fault.hint or "", file=file)


def index_repeated(view: DatasetView) -> Iterator[Hit]:
    rows = view.task_rows or ()
    twice = [i for i, n in Counter(row.index for row in rows).items() if n > 1]
    if twice:
        yield hit(
            f"task_index {listed(twice)} is there more than once; the last row counts",
            file=tasks_file(view.meta),
        )


def index_gaps(view: DatasetView) -> Iterator[Hit]:
    tasks = view.tasks
    if tasks and (min(tasks) != 0 or max(tasks) != len(tasks) - 1):
        yield hit(
            f"{len(tasks):,} tasks are numbered {min(tasks):,} to {max(tasks):,}",
            file=tasks_file(view.meta),
        )


def blank_task(view: DatasetView) -> Iterator[Hit]:
    blank = [i for i, text in (view.tasks or {}).items() if not text.strip()]
    if blank:
        yield hit(f"no text at task_index {listed(blank)}", file=tasks_file(view.meta))


def near_duplicates(view: DatasetView) -> Iterator[Hit]:
    groups: dict[str, list[int]] = {}
    for index, text in (view.tasks or {}).items():
        groups.setdefault(" ".join(text.split()).casefold(), []).append(index)
    for text, indices in groups.items():
        if len(indices) > 1 and text:
            words = [repr((view.tasks or {})[i]) for i in indices]
            yield hit(
                f"tasks {listed(indices)} differ only in case or blanks: {listed(words, 3)}",
                file=tasks_file(view.meta),
            )


def task_missing(view: DatasetView) -> Iterator[Hit]:
    if view.tasks is None:
        return
    unknown: dict[int, str] = {}
    for rel, footer in (view.footers.good if view.footers else {}).items():
        for index in footer.ranges.get("task_index", ()):
            if index not in view.tasks:
                unknown.setdefault(index, rel)
    spans = view.frames.task_spans() if view.frames else None
    for index in np.unique(np.concatenate(spans[1:])).tolist() if spans is not None else ():
        if index not in view.tasks:
            unknown.setdefault(index, "data")
    if unknown:
        lacks = "the tasks table lacks"
        if view.tasks and min(view.tasks) > 0:
            lacks += f": it counts from {min(view.tasks):,}"
        yield hit(
            f"the data names task_index {listed(sorted(unknown))}, which {lacks}",
            file=next(iter(unknown.values())),
            column="task_index",
        )


def string_unknown(view: DatasetView) -> Iterator[Hit]:
    if view.tasks is None or view.episodes is None:
        return
    known = set(view.tasks.values())
    unknown: dict[str, list[int]] = {}
    for episode, texts in zip(view.episodes.episode_index, view.episodes.tasks, strict=True):
        for text in texts:
            if text not in known:
                unknown.setdefault(text, []).append(int(episode))
    if unknown:
        words = [repr(text)[:80] for text in unknown]
        yield hit(
            f"lacks {len(unknown):,} task strings of the episodes table: {listed(words, 3)}",
            file=tasks_file(view.meta),
            episodes=sorted({e for some in unknown.values() for e in some}),
        )


def no_task(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is None:
        return
    empty = np.array([not any(t.strip() for t in texts) for texts in view.episodes.tasks], bool)
    if empty.any():
        yield hit(
            f"{int(empty.sum()):,} episodes name no task in the episodes table",
            episodes=view.episodes.episode_index[empty],
        )


def task_unused(view: DatasetView) -> Iterator[Hit]:
    if view.tasks is None or view.episodes is None:
        return
    texts = {text for some in view.episodes.tasks for text in some}
    used = _footer_tasks(view)
    if used is None:
        used = {i for i, text in view.tasks.items() if text in texts}
    unused = [i for i in view.tasks if i not in used and view.tasks[i] not in texts]
    if unused:
        names = [repr(view.tasks[i])[:80] for i in unused]
        yield hit(
            f"{len(unused):,} tasks have no episode: {listed(names, 3)}", file=tasks_file(view.meta)
        )


def _footer_tasks(view: DatasetView) -> set[int] | None:
    """Return the tasks that the data may use; None when some file does not say."""
    if view.frames is not None and (spans := view.frames.task_spans()) is not None:
        return {int(i) for i in np.concatenate(spans[1:])}
    good = view.footers.good if view.footers else {}
    ranges = [footer.ranges.get("task_index") for footer in good.values()]
    if not ranges or any(pair is None for pair in ranges):
        return None
    return {
        i for pair in ranges if pair for i in range(pair[0], min(pair[1], pair[0] + 10_000) + 1)
    }


def task_changes(view: DatasetView) -> Iterator[Hit]:
    spans = view.frames.task_spans() if view.frames else None
    if spans is not None and (changes := spans[1] != spans[2]).any():
        yield hit(
            f"changes within {int(changes.sum()):,} episodes",
            column="task_index",
            file="data",
            episodes=spans[0][changes],
        )


def task_disagrees(view: DatasetView) -> Iterator[Hit]:
    spans = view.frames.task_spans() if view.frames else None
    table, tasks = view.episodes, view.tasks
    if spans is None or table is None or tasks is None:
        return
    known = set(tasks.values())
    wrong = []
    for episode, index, last in zip(*spans, strict=True):
        texts = table.tasks[table.position(int(episode))]
        own = tasks.get(int(index))
        if index == last and own is not None and texts and own not in texts and set(texts) <= known:
            wrong.append(int(episode))
    if wrong:
        yield hit(
            f"{len(wrong):,} episodes have one task in the episodes table and another in their"
            " frames, which count",
            episodes=wrong,
        )


RULES = (
    Rule(
        "K001",
        "tasks-unreadable",
        "error",
        "The tasks table is missing or malformed.",
        "OpenTau, LeRobot and openpi read it when they open the dataset, and stop.",
        "Restore it from its source.",
        tasks_unreadable,
    ),
    Rule(
        "K002",
        "task-index-repeated",
        "error",
        "A task_index is in the tasks table more than once.",
        "OpenTau and openpi take the last of the texts, LeRobot the row of that number.",
        "Give every task a number of its own.",
        index_repeated,
    ),
    Rule(
        "K003",
        "task-index-gaps",
        "warning",
        "Tasks are not numbered 0, 1, 2, ...",
        "LeRobot takes the number for a row of the table: it gives the policy another task, or"
        " stops.",
        "Renumber them, in the table and in the data.",
        index_gaps,
    ),
    Rule(
        "K004",
        "task-blank",
        "error",
        "A task has no text.",
        "A language-conditioned policy is trained without its condition.",
        "Write what is done in its episodes.",
        blank_task,
    ),
    Rule(
        "K005",
        "task-near-duplicate",
        "warning",
        "Tasks differ only in case or blanks.",
        "Speed buckets and success rates are computed for each apart, on half the episodes.",
        "Merge them into one task.",
        near_duplicates,
    ),
    Rule(
        "K006",
        "task-missing",
        "error",
        "The data names a task_index that the tasks table lacks.",
        "Looking up the instruction of such a frame fails.",
        "Add the task to the table, or renumber the table's.",
        task_missing,
    ),
    Rule(
        "K007",
        "task-string-unknown",
        "warning",
        "A task string of the episodes table is not in the tasks table: a paraphrase, or a task"
        " that was renamed in one of them.",
        "OpenTau, LeRobot and openpi go by the frames' task_index: the episode is trained with"
        " the other wording.",
        "Use one wording in both tables.",
        string_unknown,
    ),
    Rule(
        "K008",
        "episode-without-task",
        "warning",
        "Episodes name no task in the episodes table.",
        "Tools that group by the table leave them out; without a task_index column they have no"
        " instruction.",
        "Fill in `tasks`.",
        no_task,
    ),
    Rule(
        "K009",
        "task-unused",
        "warning",
        "A task of the tasks table has no episode.",
        "Mostly episodes were lost or renumbered: count them.",
        "Remove the task, or restore its episodes.",
        task_unused,
    ),
    Rule(
        "K010",
        "task-changes",
        "warning",
        "`task_index` changes within an episode.",
        "OpenTau's speed buckets go by the first frame's task; action chunks run over the change.",
        "Cut the episode where the task changes.",
        task_changes,
        "frames",
    ),
    Rule(
        "K011",
        "task-disagrees",
        "warning",
        "The frames of an episode name another task than the episodes table does.",
        "Whoever picks episodes by the table picks others than are trained on.",
        "Correct the episodes table.",
        task_disagrees,
        "frames",
    ),
)
