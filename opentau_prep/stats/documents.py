"""The three files that hold LeRobot stats, read for comparison and written with stats merged in.

What a file holds besides the numeric features (image stats, other fields, other columns) is kept as
it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from opentau_prep.artifacts.jsonio import dump_foreign, dump_foreign_lines
from opentau_prep.errors import MetadataError
from opentau_prep.stats.stack import Stacked
from opentau_prep.storage.urls import command_at

__all__ = ["LinesDocument", "StatsDocument", "WholeDocument", "place_rows", "pool_elements"]

Floats = NDArray[np.float64]
_BARE = (b"NaN", b"Infinity")


def _hint(where: str) -> str:
    return (
        f"Restore it from its source, or let `{command_at('stats', where, '--force')}` make it from"
        " the frames; the damaged file is kept as a backup."
    )


class StatsDocument(Protocol):
    """A file with stats: R rows, each of one episode, or one row of the whole dataset."""

    episodes: Sequence[int]
    """The rows' episodes, in the order of the file; `(-1,)` for the whole dataset."""

    def published(self, feature: str, stat: str, size: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the file's values (R, size), and which rows have the stat at all.

        Stats of a feature with several axes that are written per element, as by older versions of
        LeRobot, are pooled over all axes but the last; quantiles cannot be, and are NaN. A stat of
        another size, or one that is no numbers, is NaN too.
        """
        ...

    def is_per_element(self, feature: str, size: int) -> bool:
        """Tell whether the stats of a feature are per element, not vectors of that size."""
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
        without: Features whose stats are passed over.
    """

    def __init__(
        self,
        content: bytes | None,
        where: str,
        *,
        with_count: bool,
        without: Iterable[str] = (),
    ) -> None:
        raw = {} if content is None else _load(content, where)
        if not isinstance(raw, dict):
            raise MetadataError(
                "must hold a JSON object: feature -> stats", where=where, hint=_hint(where)
            )
        self._raw: dict[str, Any] = raw | {feature: {} for feature in without}
        self._where = where
        self._with_count = with_count
        self.episodes: Sequence[int] = (-1,)

    def published(self, feature: str, stat: str, size: int) -> tuple[Floats, NDArray[np.bool_]]:
        """See `StatsDocument`."""
        return _gather([_entry(self._raw, feature)], stat, size)

    def is_per_element(self, feature: str, size: int) -> bool:
        """See `StatsDocument`."""
        return _is_per_element([_entry(self._raw, feature)], size)

    def merged(self, stacked: Stacked, episodes: Sequence[int], *, keep: bool) -> bytes:
        """See `StatsDocument`."""
        del episodes
        shapes = _element_shapes([self._raw] if keep else [], stacked)
        merged = _merge(
            self._raw, stacked, 0, keep=keep, with_count=self._with_count, shapes=shapes
        )
        return dump_foreign(merged, where=self._where, allow_non_finite=True)


class LinesDocument:
    """`meta/episodes_stats.jsonl`: one line per episode.

    Args:
        content: The file, or None.
        where: Its place, for errors.
        carried: Stats that are not computed here, as cameras', and that every new line gets with a
            `count` of its own: a v2.1 reader that finds this file asks `meta/stats.json` no more.
    """

    def __init__(
        self,
        content: bytes | None,
        where: str,
        carried: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._carried = carried or {}
        lines = [] if content is None else [x for x in content.split(b"\n") if x.strip()]
        self._rows = [_load(line, f"{where}, line {i}") for i, line in enumerate(lines, 1)]
        self._where = where
        # orjson would write a bare NaN somewhere in the file as null.
        self._finite = content is None or not any(word in content for word in _BARE)
        bad = [i for i, row in enumerate(self._rows, 1) if _episode(row) is None]
        if bad:
            raise MetadataError(
                "must hold episode_index and stats",
                where=f"{where}, line {bad[0]}",
                hint=_hint(where),
            )
        self.episodes: Sequence[int] = [int(row["episode_index"]) for row in self._rows]

    def published(self, feature: str, stat: str, size: int) -> tuple[Floats, NDArray[np.bool_]]:
        """See `StatsDocument`."""
        return _gather([_entry(row["stats"], feature) for row in self._rows], stat, size)

    def is_per_element(self, feature: str, size: int) -> bool:
        """See `StatsDocument`."""
        return _is_per_element([_entry(row["stats"], feature) for row in self._rows], size)

    def merged(self, stacked: Stacked, episodes: Sequence[int], *, keep: bool) -> bytes:
        """See `StatsDocument`. Lines of other episodes stay; new ones are put in order."""
        rows = dict(zip(self.episodes, self._rows, strict=True))
        replaced = set() if keep else set(episodes)
        stay = [row["stats"] for episode, row in rows.items() if episode not in replaced]
        shapes = _element_shapes(stay, stacked)
        listed = {f: {s: v.tolist() for s, v in stats.items()} for f, stats in stacked.items()}
        for k, episode in enumerate(episodes):
            row = rows.get(episode) or self._new_row(episode, listed, k)
            stats = _merge(row["stats"], listed, k, keep=keep, with_count=True, shapes=shapes)
            rows[episode] = {**row, "stats": stats}
        ordered = [rows[episode] for episode in sorted(rows)]
        finite = all(np.isfinite(v).all() for stats in stacked.values() for v in stats.values())
        if finite and self._finite:
            return b"".join(orjson.dumps(r, option=orjson.OPT_APPEND_NEWLINE) for r in ordered)
        return dump_foreign_lines(ordered, where=self._where, allow_non_finite=True)

    def _new_row(self, episode: int, listed: Mapping[str, Any], k: int) -> dict[str, Any]:
        counts = [stats["count"][k] for stats in listed.values() if "count" in stats]
        count = {"count": counts[0]} if counts else {}
        carried = {f: {**entry, **count} for f, entry in self._carried.items() if f not in listed}
        return {"episode_index": episode, "stats": carried}


def place_rows(document: StatsDocument, episodes: Sequence[int]) -> NDArray[np.int64]:
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
        raise MetadataError("is not valid JSON", where=where, hint=_hint(where)) from error


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
    holding = [entry for entry in entries if stat in entry]
    values = [entry[stat] for entry in holding]
    try:
        block = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        block = np.zeros(0)
    if block.size == len(values) * size:
        out[have] = block.reshape(len(values), size)
        return out, have
    for row, entry in zip(np.flatnonzero(have), holding, strict=True):
        value, mean = (_numbers(entry.get(name), size) for name in (stat, "mean"))
        if value is not None:
            out[row] = pool_elements(stat, value.reshape(1, -1, size), mean)[0]
    return out, have


def _numbers(value: Any, size: int) -> Floats | None:
    """Return (*leading, size) numbers, or None."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if not array.size or array.size % size:
        return None
    return array if array.ndim > 1 and array.shape[-1] == size else array.reshape(-1, size)


def _is_per_element(entries: Sequence[Mapping[str, Any]], size: int) -> bool:
    found = next((entry["mean"] for entry in entries if "mean" in entry), None)
    numbers = _numbers(found, size)
    return numbers is not None and numbers.size > size


def pool_elements(stat: str, values: Floats, means: Floats | None) -> Floats:
    """Return (R, size) stats of vectors, pooled from (R, k, size) stats of k elements each.

    Args:
        stat: The stat's name.
        values: It.
        means: The means of the same elements, broadcastable to `values`, for the std.
    """
    if values.shape[1] == 1:
        return values[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):
        if stat == "std" and means is not None and np.size(means) == values.size:
            means = means.reshape(values.shape)
            spread = np.square(means - means.mean(axis=1, keepdims=True))
            return np.asarray(np.sqrt((np.square(values) + spread).mean(axis=1)))
        if stat in ("min", "max", "mean"):
            return np.asarray(getattr(np, stat)(values, axis=1))
        return np.full(values[:, 0].shape, math.nan)


def _element_shapes(
    rows: Sequence[Mapping[str, Any]], stacked: Stacked
) -> dict[str, tuple[int, ...]]:
    """Return feature -> the shape of its stats in a file, where they are per element.

    What is added gets that shape: LeRobot aggregates the stats of a feature only where all have
    one shape.
    """
    shapes = {}
    for feature, stats in stacked.items():
        means = (_entry(row, feature).get("mean") for row in rows)
        numbers = _numbers(next((m for m in means if m is not None), None), stats["mean"][0].size)
        if numbers is not None and numbers.size > numbers.shape[-1]:
            shapes[feature] = numbers.shape
    return shapes


def _merge(
    old: Mapping[str, Any],
    stacked: Mapping[str, Mapping[str, Any]],
    row: int,
    *,
    keep: bool,
    with_count: bool,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Any]:
    merged = dict(old)
    for feature, stats in stacked.items():
        there = _entry(old, feature)
        shape = shapes.get(feature)
        new = {stat: values[row] for stat, values in stats.items()}
        if not with_count and "count" not in there:
            new.pop("count", None)
        if shape is not None:
            for stat in new.keys() - {"count"}:
                new[stat] = np.broadcast_to(new[stat], shape).tolist()
        if keep and there:
            new = {**there, **{stat: v for stat, v in new.items() if stat not in there}}
        merged[feature] = new
    return merged
