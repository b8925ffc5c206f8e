"""The three files that hold LeRobot stats, read for comparison and written with stats merged in.

What a file holds beside the numeric features (image stats, other fields, other columns) is kept as
it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from opentau_prep.artifacts.jsonio import dump_foreign, dump_foreign_lines
from opentau_prep.errors import MetadataError
from opentau_prep.stats.stack import Stacked

__all__ = ["Document", "LinesDocument", "WholeDocument", "place_rows"]

Floats = NDArray[np.float64]
_BARE = (b"NaN", b"Infinity")
_HINT = (
    "Restore it from its source, or let `opentau-prep stats --force` make it from the frames; the"
    " damaged file is kept beside."
)


class Document(Protocol):
    """A file with stats: R rows, each of one episode, or one row of the whole dataset."""

    episodes: Sequence[int]
    """The rows' episodes, in the order of the file; `(-1,)` for the whole dataset."""

    def published(self, feature: str, stat: str, size: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the file's values (R, size), and which rows have the stat at all.

        A stat of another size, or one that is no numbers, is NaN.
        """
        ...

    def merged(self, stacked: Stacked, episodes: Sequence[int], *, keep: bool) -> bytes:
        """Return the file with computed stats in it.

        Args:
            stacked: The stats of some episodes (or of the whole dataset).
            episodes: Which episodes, as rows of `stacked`.
            keep: Whether numbers that are there stay, and only what is missing is added.
        """
        ...


class WholeDocument:
    """`meta/stats.json`.

    Args:
        content: The file, or None.
        where: Its place, for errors.
        with_count: Whether `count` is written where the file does not have it.
    """

    def __init__(self, content: bytes | None, where: str, *, with_count: bool) -> None:
        raw = {} if content is None else _load(content, where)
        if not isinstance(raw, dict):
            raise MetadataError(
                "must hold a JSON object: feature -> stats", where=where, hint=_HINT
            )
        self._raw: dict[str, Any] = raw
        self._where = where
        self._with_count = with_count
        self.episodes: Sequence[int] = (-1,)

    def published(self, feature: str, stat: str, size: int) -> tuple[Floats, NDArray[np.bool_]]:
        """See `Document`."""
        return _gather([_entry(self._raw, feature)], stat, size)

    def merged(self, stacked: Stacked, episodes: Sequence[int], *, keep: bool) -> bytes:
        """See `Document`."""
        del episodes
        merged = _merge(self._raw, stacked, 0, keep=keep, with_count=self._with_count)
        return dump_foreign(merged, where=self._where, allow_non_finite=True)


class LinesDocument:
    """`meta/episodes_stats.jsonl`: one line an episode."""

    def __init__(self, content: bytes | None, where: str) -> None:
        lines = [] if content is None else [x for x in content.split(b"\n") if x.strip()]
        self._rows = [_load(line, f"{where}, line {i}") for i, line in enumerate(lines, 1)]
        self._where = where
        # orjson would write a bare NaN that stands somewhere in the file as null.
        self._finite = content is None or not any(word in content for word in _BARE)
        bad = [i for i, row in enumerate(self._rows, 1) if _episode(row) is None]
        if bad:
            raise MetadataError(
                "must hold episode_index and stats", where=f"{where}, line {bad[0]}", hint=_HINT
            )
        self.episodes: Sequence[int] = [int(row["episode_index"]) for row in self._rows]

    def published(self, feature: str, stat: str, size: int) -> tuple[Floats, NDArray[np.bool_]]:
        """See `Document`."""
        return _gather([_entry(row["stats"], feature) for row in self._rows], stat, size)

    def merged(self, stacked: Stacked, episodes: Sequence[int], *, keep: bool) -> bytes:
        """See `Document`. Lines of other episodes stay; new ones are put in order."""
        rows = dict(zip(self.episodes, self._rows, strict=True))
        listed = {f: {s: v.tolist() for s, v in stats.items()} for f, stats in stacked.items()}
        for k, episode in enumerate(episodes):
            row = rows.get(episode, {"episode_index": episode, "stats": {}})
            stats = _merge(row["stats"], listed, k, keep=keep, with_count=True)
            rows[episode] = {**row, "stats": stats}
        ordered = [rows[episode] for episode in sorted(rows)]
        finite = all(np.isfinite(v).all() for stats in stacked.values() for v in stats.values())
        if finite and self._finite:
            return b"".join(orjson.dumps(r, option=orjson.OPT_APPEND_NEWLINE) for r in ordered)
        return dump_foreign_lines(ordered, where=self._where, allow_non_finite=True)


def place_rows(document: Document, episodes: Sequence[int]) -> NDArray[np.int64]:
    """Return the document's row of each episode, -1 where it has none."""
    rows = {episode: row for row, episode in enumerate(document.episodes)}
    return np.array([rows.get(episode, -1) for episode in episodes], dtype=np.int64)


def _load(content: bytes, where: str) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content)  # other Python tools write bare NaN
    except (ValueError, RecursionError) as error:
        raise MetadataError("is not valid JSON", where=where, hint=_HINT) from error


def _episode(row: Any) -> int | None:
    index = row.get("episode_index") if isinstance(row, dict) else None
    return index if isinstance(index, int) and isinstance(row.get("stats"), dict) else None


def _entry(stats: Mapping[str, Any], feature: str) -> Mapping[str, Any]:
    entry = stats.get(feature)
    return entry if isinstance(entry, Mapping) else {}


def _gather(
    entries: Sequence[Mapping[str, Any]], stat: str, size: int
) -> tuple[Floats, NDArray[np.bool_]]:
    have = np.array([stat in entry for entry in entries], dtype=bool)
    out = np.full((len(entries), size), math.nan)
    values = [entry[stat] for entry in entries if stat in entry]
    try:
        block = np.asarray(values, dtype=np.float64)
        out[have] = block.reshape(len(values), -1) if block.size == len(values) * size else math.nan
    except (TypeError, ValueError):
        for row, value in zip(np.flatnonzero(have), values, strict=True):
            out[row] = _numbers(value, size)
    return out, have


def _numbers(value: Any, size: int) -> Any:
    try:
        array = np.asarray(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return math.nan
    return array if len(array) == size else math.nan


def _merge(
    old: Mapping[str, Any],
    stacked: Mapping[str, Mapping[str, Any]],
    row: int,
    *,
    keep: bool,
    with_count: bool,
) -> dict[str, Any]:
    merged = dict(old)
    for feature, stats in stacked.items():
        there = _entry(old, feature)
        new = {
            stat: values[row]
            for stat, values in stats.items()
            if stat != "count" or with_count or "count" in there
        }
        added = {stat: value for stat, value in new.items() if stat not in there}
        merged[feature] = {**there, **added} if keep else new
    return merged
