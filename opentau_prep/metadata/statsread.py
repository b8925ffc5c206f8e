"""Stats as they are in files: nested JSON lists, or flattened parquet columns."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.jsonread import JsonLines, read_json_object
from opentau_prep.metadata.records import EpisodesStats, IntArray, StackedStat, Stats, StatsView
from opentau_prep.pooling import aggregate_stacked, aggregate_stats
from opentau_prep.storage.urls import command_at

if TYPE_CHECKING:
    from opentau_prep.storage import Storage

__all__ = [
    "STATS",
    "pack_vectors",
    "parse_stats",
    "pool_stats",
    "read_stats",
    "read_stats_of",
    "stack_stats",
]

STATS = "meta/stats.json"


def read_stats(storage: Storage) -> Stats:
    """Read `meta/stats.json`: the whole dataset's stats; see `parse_stats`."""
    return parse_stats(read_json_object(storage, STATS), f"{storage.url}/{STATS}")


def read_stats_of(storage: Storage, columns: Collection[str]) -> StatsView:
    """Return what `read_stats` would, but only of the features that are asked for and there."""
    raw = read_json_object(storage, STATS)
    known = {column: raw[column] for column in columns if column in raw}
    return parse_stats(known, f"{storage.url}/{STATS}")


def parse_stats(raw: object, where: str) -> Stats:
    """Turn `feature -> stat -> nested lists` into arrays, int64 or float64 as the numbers are.

    A null among numbers becomes NaN, a bare number an array of shape (1,).

    Raises:
        MetadataError: The shape is another one, or a stat is ragged or not made of numbers.
    """
    stats: Stats = {}
    for feature, entry in _features(raw, where).items():
        _check_entry(feature, entry, where)
        vectors = [stat for stat in entry if stat != "count"]
        block = pack_vectors([entry[stat] for stat in vectors])
        known = {} if block is None else dict(zip(vectors, block, strict=True))
        stats[feature] = {
            stat: known[stat] if stat in known else _own_array(value, feature, stat, where)
            for stat, value in entry.items()
        }
    return stats


def stack_stats(
    lines: JsonLines, episodes: IntArray, columns: Collection[str] | None = None
) -> EpisodesStats:
    """Turn rows of `{"stats": feature -> stat -> nested lists}` into one block a stat.

    Args:
        lines: The rows, in order of their episodes.
        episodes: (E,) int64, the `episode_index` of each row.
        columns: The features to read; all by default.

    Raises:
        MetadataError: As `parse_stats`, or a stat has different shapes in different rows.
    """
    rows: list[Any] = [row.get("stats") for row in lines.rows]
    if not set(map(type, rows)) <= {dict}:
        for i, row in enumerate(rows):
            _features(row, lines.place(i))
    blocks: dict[str, dict[str, StackedStat]] = {}
    for feature in columns or dict.fromkeys(chain.from_iterable(rows)):
        having = [i for i, row in enumerate(rows) if feature in row]
        if not having:
            continue
        entries: list[Any] = [rows[i][feature] for i in having]
        if not set(map(type, entries)) <= {dict}:
            for i, entry in zip(having, entries, strict=True):
                _check_entry(feature, entry, lines.place(i))
        alike = _stacked_alike(entries) if len(having) == len(rows) else None
        blocks[feature] = alike or {
            stat: _stacked(having, entries, (feature, stat), lines)
            for stat in dict.fromkeys(chain.from_iterable(entries))
        }
    return EpisodesStats(episodes, blocks)


def _stacked_alike(entries: Sequence[Any]) -> dict[str, StackedStat] | None:
    """Return the blocks of rows that carry the same stats in the same shapes; else None."""
    if len({len(entry) for entry in entries}) != 1:
        return None
    try:
        return _stacked_vectors(entries) or {
            stat: StackedStat(_stacked_numbers([entry[stat] for entry in entries]))
            for stat in entries[0]
        }
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def _stacked_vectors(entries: Sequence[Any]) -> dict[str, StackedStat] | None:
    """Return the blocks of stats that, but for `count`, are lists of floats of one length."""
    names = [stat for stat in entries[0] if stat != "count"]
    if len(names) in (0, len(entries[0])):
        return None
    several = itemgetter(*names, "count")
    rows = [several(entry) for entry in entries]
    block = pack_vectors([values for row in rows for values in row[:-1]])
    if block is None:
        return None
    block = block.reshape(len(rows), len(names), -1)
    found = {stat: StackedStat(block[:, i]) for i, stat in enumerate(names)}
    return {**found, "count": StackedStat(_stacked_numbers([row[-1] for row in rows]))}


def _stacked_numbers(values: Sequence[Any]) -> npt.NDArray[Any]:
    block = np.array(values)
    if block.dtype.kind not in "iufb":
        raise TypeError
    block = block.astype(np.int64) if block.dtype.kind == "b" else block
    block = block if block.ndim > 1 else block.reshape(-1, 1)
    block.setflags(write=False)
    return block


def pack_vectors(vectors: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Return lists of numbers as (n, D) float64, read-only; a third of the time that NumPy takes.

    None unless all are of one length and begin with a float: then any other number among them would
    become a float in NumPy, too.
    """
    try:
        (width,) = set(map(len, vectors))
        if set(map(type, map(itemgetter(0), vectors))) != {float}:
            return None
        packed = struct.pack(f"{len(vectors) * width}d", *chain.from_iterable(vectors))
    except (IndexError, TypeError, ValueError, KeyError, OverflowError, struct.error):
        return None
    return np.frombuffer(packed).reshape(len(vectors), width)


def pool_stats(stats: EpisodesStats, context: str, rows: IntArray | None = None) -> Stats:
    """Return the aggregate of episodes' stats, weighted by their `count`; see `aggregate_stats`.

    Args:
        stats: The stats.
        context: The dataset, for messages.
        rows: The rows of `stats` that take part; all by default.

    Raises:
        MetadataError: An episode's stats lack what is pooled, or their shapes differ.
    """
    blocks = stats.arrays(rows)
    if blocks is not None:
        with contextlib.suppress(MetadataError):  # reported below, with the episode's number
            return aggregate_stacked(blocks)
    episodes = stats.episode_index if rows is None else stats.episode_index[rows]
    own = stats.by_episode()
    return aggregate_stats(
        [own[episode] for episode in episodes.tolist()],
        contributor_names=[f"{context}, episode {episode}" for episode in episodes.tolist()],
        context=context,
    )


def _stacked(
    having: Sequence[int],
    entries: Sequence[Mapping[str, Any]],
    name: tuple[str, str],
    lines: JsonLines,
) -> StackedStat:
    stat = name[1]
    carried = having
    try:
        values = list(map(itemgetter(stat), entries))
    except KeyError:
        carried = [i for i, entry in zip(having, entries, strict=True) if stat in entry]
        values = [entry[stat] for entry in entries if stat in entry]
    try:
        block = _array(values, *name, lines.where)
    except MetadataError as error:
        shapes = {
            _array(value, *name, lines.place(i)).shape
            for i, value in zip(carried, values, strict=True)
        }
        raise MetadataError(
            f"stat `{'/'.join(name)}` has different shapes in different episodes:"
            f" {', '.join(map(str, sorted(shapes)))}",
            where=lines.where,
            hint=_hint(lines.where),
        ) from error
    if block.ndim == 1:
        block = block.reshape(-1, 1)
    block.setflags(write=False)
    everywhere = len(carried) == len(lines.rows)
    return StackedStat(block, None if everywhere else np.array(carried, dtype=np.int64))


def _hint(where: str) -> str:
    return f"Recompute the stats: `{command_at('stats', where, '--force')}`."


def _features(raw: object, where: str) -> dict[str, Any]:
    if isinstance(raw, dict):
        return raw
    raise MetadataError(
        "stats must be an object: feature -> stat -> numbers", where=where, hint=_hint(where)
    )


def _check_entry(feature: str, entry: object, where: str) -> None:
    if not isinstance(entry, dict):
        raise MetadataError(
            f"stats of {feature!r} must be an object: stat -> numbers",
            where=where,
            hint=_hint(where),
        )


def _own_array(value: object, feature: str, stat: str, where: str) -> npt.NDArray[Any]:
    numbers = _array(value, feature, stat, where)
    numbers = numbers.reshape(numbers.shape or 1)
    numbers.setflags(write=False)
    return numbers


def _array(value: object, feature: str, stat: str, where: str) -> npt.NDArray[Any]:
    try:
        numbers = np.array(value)
        if numbers.dtype == object:
            # A null among the numbers is how some writers put NaN.
            numbers = numbers.astype(np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        numbers = np.array("")
    if numbers.dtype.kind == "b":  # LeRobot's min and max of a boolean feature
        return numbers.astype(np.int64)
    if numbers.dtype.kind in "iuf":
        return numbers
    raise MetadataError(
        f"stat `{feature}/{stat}` is not an array of numbers", where=where, hint=_hint(where)
    )
