"""`meta/speed_percentiles.jsonl`: one row a task, no header; training reads each line as one."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonlines

from opentau_prep.errors import MetadataError
from opentau_prep.speed.buckets import PERCENTILES, Percentiles, compute_task_percentiles

__all__ = ["SPEED_FILE", "SpeedRow", "append_rows", "decode_rows", "encode_rows", "make_rows"]

SPEED_FILE = "meta/speed_percentiles.jsonl"
_HINT = "Correct the line, or recompute the file: opentau-prep speed-percentiles --force."


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
        raise MetadataError("is not UTF-8 text", where=where, hint=_HINT) from error
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
        raise MetadataError("is not valid JSON", where=where, hint=_HINT) from error
    if not isinstance(value, dict):
        raise MetadataError("must hold a JSON object", where=where, hint=_HINT)
    task_index = _whole_number(value.get("task_index"), "task_index", where)
    n_episodes = _whole_number(value.get("n_episodes", 0), "n_episodes", where)
    task = value.get("task", "")
    if not isinstance(task, str):
        raise MetadataError("field `task` must be a string", where=where, hint=_HINT)
    return SpeedRow(task_index, task, n_episodes, _percentiles(value.get("percentiles"), where))


def _whole_number(value: object, name: str, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise MetadataError(
        f"field `{name}` must be a whole number of 0 or more, found {value!r}"[:120],
        where=where,
        hint=_HINT,
    )


def _percentiles(value: object, where: str) -> Percentiles:
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
            hint=_HINT,
        )
    return [float(n) for n in numbers]
