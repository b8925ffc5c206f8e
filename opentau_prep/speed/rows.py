"""`meta/speed_percentiles.jsonl`: one row per task, no header; training reads each line as one."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonlines
import numpy as np

from opentau_prep.errors import MetadataError
from opentau_prep.storage.urls import command_at

__all__ = [
    "MIN_DISTINCT_LENGTHS",
    "PERCENTILES",
    "SPARSE_BUCKET",
    "SPEED_FILE",
    "Percentiles",
    "SpeedRow",
    "append_rows",
    "bucket_episode_length",
    "compute_task_percentiles",
    "decode_rows",
    "encode_rows",
    "make_rows",
]

SPEED_FILE = "meta/speed_percentiles.jsonl"


def _hint(where: str) -> str:
    command = command_at("speed-percentiles", where, "--force")
    return f"Correct the line, or recompute the file: `{command}`."


@dataclass(frozen=True)
class SpeedRow:
    """One task's percentiles.

    Attributes:
        task_index: As in the tasks table.
        task: Its string; empty when the tasks table does not hold the index.
        n_episodes: How many episodes the percentiles were computed from.
        percentiles: Ten lengths in frames, or None for a sparse task.
    """

    task_index: int
    task: str
    n_episodes: int
    percentiles: Percentiles

    def as_json(self) -> dict[str, Any]:
        """Return the row as it is in the file."""
        return {
            "task_index": self.task_index,
            "task": self.task,
            "n_episodes": self.n_episodes,
            "percentiles": self.percentiles,
        }


def make_rows(
    episode_lengths: Mapping[int, int],
    episode_to_task_index: Mapping[int, int],
    tasks: Mapping[int, str],
) -> list[SpeedRow]:
    """Compute the rows of a dataset, in order of task_index.

    Args:
        episode_lengths: episode_index -> frames.
        episode_to_task_index: episode_index -> task_index; episodes without a task are left out.
        tasks: task_index -> string.
    """
    lengths_by_task: dict[int, list[int]] = {}
    for episode, length in episode_lengths.items():
        task = episode_to_task_index.get(episode)
        if task is not None:
            lengths_by_task.setdefault(int(task), []).append(int(length))
    percentiles = compute_task_percentiles(lengths_by_task)
    return [
        SpeedRow(task, tasks.get(task, ""), len(lengths_by_task[task]), percentiles[task])
        for task in percentiles
    ]


def encode_rows(rows: Sequence[SpeedRow]) -> bytes:
    """Return the file's content: the bytes that training itself would write."""
    text = io.StringIO()
    with jsonlines.Writer(text, dumps=_dumps) as writer:
        writer.write_all(row.as_json() for row in rows)
    return text.getvalue().encode("utf-8")


def append_rows(content: bytes, rows: Sequence[SpeedRow]) -> bytes:
    """Return the content with rows added; what is there is kept byte for byte."""
    gap = b"" if not content or content.endswith(b"\n") else b"\n"
    return content + gap + encode_rows(rows)


def _dumps(row: object) -> str:
    return json.dumps(row, ensure_ascii=False)


def decode_rows(content: bytes, where: str) -> list[SpeedRow]:
    """Read a file's content; people edit it by hand, so every line is checked.

    Raises:
        MetadataError: A line is not a row, or a task occurs twice.
    """
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise MetadataError("is not UTF-8 text", where=where, hint=_hint(where)) from error
    rows: dict[int, SpeedRow] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _decode_row(line, f"{where}, line {number}")
        if row.task_index in rows:
            raise MetadataError(
                f"task_index {row.task_index} occurs twice",
                where=f"{where}, line {number}",
                hint="Remove one of the rows.",
            )
        rows[row.task_index] = row
    return list(rows.values())


def _decode_row(line: str, where: str) -> SpeedRow:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MetadataError("is not valid JSON", where=where, hint=_hint(where)) from error
    if not isinstance(value, dict):
        raise MetadataError("must hold a JSON object", where=where, hint=_hint(where))
    task_index = _whole_number(value.get("task_index"), "task_index", where)
    n_episodes = _whole_number(value.get("n_episodes", 0), "n_episodes", where)
    task = value.get("task", "")
    if not isinstance(task, str):
        raise MetadataError("field `task` must be a string", where=where, hint=_hint(where))
    return SpeedRow(
        task_index, task, n_episodes, _checked_percentiles(value.get("percentiles"), where)
    )


def _whole_number(value: object, name: str, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise MetadataError(
        f"field `{name}` must be a whole number of 0 or more, found {value!r}"[:120],
        where=where,
        hint=_hint(where),
    )


def _checked_percentiles(value: object, where: str) -> Percentiles:
    if value is None:
        return None
    numbers = value if isinstance(value, list) else []
    good = len(numbers) == len(PERCENTILES) and all(
        isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n)
        for n in numbers
    )
    if not good or numbers != sorted(numbers):
        raise MetadataError(
            f"field `percentiles` must be null or {len(PERCENTILES)} lengths in ascending order",
            where=where,
            hint=_hint(where),
        )
    return [float(n) for n in numbers]


Percentiles = list[float] | None
"""Episode lengths in frames at p5, p15, ..., p95; None when a task has too few distinct lengths."""

# OpenTau's: lengths below p5 are bucket 0, above p95 bucket 100.
PERCENTILES = (5, 15, 25, 35, 45, 55, 65, 75, 85, 95)
MIN_DISTINCT_LENGTHS = 10
# OpenTau's: the middle bucket, where a task has too few lengths to tell fast from slow.
SPARSE_BUCKET = 50


def compute_task_percentiles(
    lengths_by_task: Mapping[int, Iterable[int]],
) -> dict[int, Percentiles]:
    """Return the percentiles of the episode lengths of each task.

    Args:
        lengths_by_task: task_index -> episode lengths in frames, in any order.

    Returns:
        task_index -> ten lengths (NumPy's linear interpolation between order statistics), or None
        for a task with fewer than ten distinct lengths; in order of task_index.
    """
    return {
        int(task): _percentiles(np.fromiter(lengths_by_task[task], dtype=np.int64))
        for task in sorted(lengths_by_task)
    }


def _percentiles(lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Percentiles:
    if len(np.unique(lengths)) < MIN_DISTINCT_LENGTHS:
        return None
    return [float(p) for p in np.percentile(lengths, PERCENTILES)]


def bucket_episode_length(length: int, percentiles: Sequence[float] | None) -> int:
    """Return the speed bucket of an episode: 0 (shorter than p5) to 100 (p95 or longer), by tens.

    Args:
        length: Frames.
        percentiles: The task's, or None for a sparse or unknown task.

    Returns:
        Ten times the number of percentiles that are at most `length`; 50 without percentiles.

    Example:
        >>> bucket_episode_length(20, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100])
        20
    """
    if percentiles is None:
        return SPARSE_BUCKET
    return 10 * int(np.searchsorted(percentiles, length, side="right"))
