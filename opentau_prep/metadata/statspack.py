"""Stats of some features in the usual shape, read without an object a stat.

Nearly every dataset's stats are vectors of floats with the same few names. They are taken straight
from the parsed JSON into one block a feature. Whatever is unusual is left to the general reader,
which also knows how to tell what is wrong.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from opentau_prep.metadata.info import MAX_INDEX
from opentau_prep.pooling.matrix import COUNT, MIN_WIDTH, StatLayout, StatMatrix, pool_blocks

__all__ = ["pack_stats", "pack_vectors", "pool_lines"]

_UNUSUAL = (KeyError, IndexError, TypeError, ValueError, OverflowError, struct.error)
_MAX_COUNT = 2**40


def pool_lines(data: bytes, columns: Collection[str]) -> dict[str, StatMatrix] | None:
    """Return the aggregate of some features out of a whole `episodes_stats.jsonl`.

    A parsed line is let go of before the next one is parsed, so that memory is bounded by the
    numbers that are asked for, and the allocator has nothing to go through.

    Args:
        data: The file's content.
        columns: The features.

    Returns:
        What `aggregate_stats` would, bit for bit. None unless the lines stand in order of their
        episodes and each has the same stats of every feature: a `count`, and vectors of one width
        of 2 or more a feature, which begin with a float in the first line: then any other number
        becomes a float in NumPy, too.
    """
    packers: list[_Packer] = []
    last = -1
    try:
        for line in data.split(b"\n"):
            if not line:
                continue
            row = orjson.loads(line)
            episode, stats = row["episode_index"], row["stats"]
            if type(episode) is not int or not last < episode <= MAX_INDEX:
                return None
            last = episode
            packers = packers or [_Packer.like(column, stats[column]) for column in columns]
            for packer in packers:
                packer.add(stats[packer.feature])
        groups: dict[object, list[_Packer]] = {}
        for packer in packers:
            groups.setdefault((packer.layout, *packer.counts), []).append(packer)
        found: dict[str, StatMatrix] = {}
        for group in groups.values():
            pooled = pool_blocks([p.block() for p in group], group[0].layout, group[0].weights())
            found |= {p.feature: matrix for p, matrix in zip(group, pooled, strict=True)}
    except _UNUSUAL:
        return None
    return found or None


def pack_stats(entry: Mapping[str, Any]) -> StatMatrix | None:
    """Return one feature of a `stats.json` as a matrix.

    None unless its stats are vectors of one width that begin with a float, and its `count`, if
    there is one, is a list of one whole number.
    """
    try:
        layout = StatLayout.of(tuple(entry))
        if layout is None:
            return None
        values = pack_vectors([entry[stat] for stat in layout.order])
        if values is None:
            return None
        return StatMatrix(layout, values, _count(entry[COUNT]) if COUNT in entry else None)
    except _UNUSUAL:
        return None


def pack_vectors(vectors: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Return lists of numbers as (n, D) float64, read-only, in a third of the time NumPy takes.

    None unless all are of one length and begin with a float: then any other number among them would
    become a float in NumPy, too.
    """
    try:
        (width,) = set(map(len, vectors))
        if set(map(type, map(operator.itemgetter(0), vectors))) != {float}:
            return None
        packed = struct.pack(f"{len(vectors) * width}d", *chain.from_iterable(vectors))
    except _UNUSUAL:
        return None
    return np.frombuffer(packed).reshape(len(vectors), width)


def _count(value: Any) -> int:
    (count,) = value
    if type(count) is not int or not 0 <= count <= _MAX_COUNT:
        raise ValueError
    return count


@dataclass(frozen=True)
class _Packer:
    """The rows of one feature so far."""

    feature: str
    layout: StatLayout
    width: int
    pick: operator.itemgetter[Any]
    n_stats: int
    numbers: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    @classmethod
    def like(cls, feature: str, entry: Mapping[str, Any]) -> _Packer:
        layout = StatLayout.of(tuple(entry))
        if layout is None or {type(entry[stat][0]) for stat in layout.order} != {float}:
            raise ValueError
        width = len(entry["mean"])
        if width < MIN_WIDTH:
            raise ValueError
        pick = operator.itemgetter(*layout.order, COUNT)
        return cls(feature, layout, width, pick, len(entry))

    def add(self, entry: Mapping[str, Any]) -> None:
        *vectors, count = self.pick(entry)
        if len(entry) != self.n_stats or set(map(len, vectors)) != {self.width}:
            raise ValueError
        self.numbers.extend(chain.from_iterable(vectors))
        self.counts.append(_count(count))

    def block(self) -> npt.NDArray[np.float64]:
        packed = struct.pack(f"{len(self.numbers)}d", *self.numbers)
        return np.frombuffer(packed).reshape(len(self.counts), -1, self.width)

    def weights(self) -> npt.NDArray[np.int64]:
        return np.array(self.counts, dtype=np.int64).reshape(-1, 1)
