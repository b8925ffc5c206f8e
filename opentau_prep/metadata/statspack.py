"""Episodes' stats of some features, packed line by line: how nearly every v2.1 file can be read.

A parsed line is let go of before the next one is parsed, so that memory is bounded by the numbers
that are asked for, and neither the allocator nor the garbage collector has anything to go through.
Whatever is unusual is left to the general reader, which also knows how to tell what is wrong.
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
from opentau_prep.metadata.records import EpisodesStats, StackedStat

__all__ = ["pack_lines", "pack_vectors"]

_UNUSUAL = (KeyError, IndexError, TypeError, ValueError, OverflowError, struct.error)


def pack_lines(data: bytes, columns: Collection[str]) -> EpisodesStats | None:
    """Return the stats of some features out of a whole `episodes_stats.jsonl`.

    Args:
        data: The file's content.
        columns: The features.

    Returns:
        None unless the lines stand in order of their episodes and each has the same stats of every
        feature: a `count`, and vectors of one width a feature, which begin with a float in the
        first line: then any other number becomes a float in NumPy, too.
    """
    episodes: list[int] = []
    packers: list[_Packer] = []
    try:
        for line in data.split(b"\n"):
            if line:
                row = orjson.loads(line)
                stats = row["stats"]
                packers = packers or [_Packer.like(column, stats[column]) for column in columns]
                episodes.append(row["episode_index"])
                for packer in packers:
                    packer.add(stats[packer.feature])
        if not packers or not _increasing(episodes):
            return None
        blocks = {packer.feature: packer.blocks() for packer in packers}
    except _UNUSUAL:
        return None
    return EpisodesStats(np.array(episodes, dtype=np.int64), blocks)


def pack_vectors(vectors: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Return lists of numbers as (n, D) float64, read-only, in a third of the time NumPy takes.

    None unless all are of one length and begin with a float: then any other number among them would
    become a float in NumPy, too.
    """
    try:
        width = len(vectors[0])
        for vector in vectors:
            if len(vector) != width or type(vector[0]) is not float:
                return None
        packed = struct.pack(f"{len(vectors) * width}d", *chain.from_iterable(vectors))
    except _UNUSUAL:
        return None
    return np.frombuffer(packed).reshape(len(vectors), width)


@dataclass(frozen=True)
class _Packer:
    """The rows of one feature so far."""

    feature: str
    names: Sequence[str]
    width: int
    pick: operator.itemgetter[Any]
    n_stats: int
    numbers: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    @classmethod
    def like(cls, feature: str, entry: Mapping[str, Any]) -> _Packer:
        names = [stat for stat in entry if stat != "count"]
        width = len(entry[names[0]])
        if {type(entry[stat][0]) for stat in names} != {float}:
            raise ValueError
        pick = operator.itemgetter(*names, "count")
        return cls(feature, names, width, pick, len(entry))

    def add(self, entry: Mapping[str, Any]) -> None:
        *vectors, count = self.pick(entry)
        if len(entry) != self.n_stats or type(count[0]) is not int or len(count) != 1:
            raise ValueError
        width, extend = self.width, self.numbers.extend
        for vector in vectors:
            if len(vector) != width:
                raise ValueError
            extend(vector)
        self.counts.append(count[0])

    def blocks(self) -> dict[str, StackedStat]:
        packed = struct.pack(f"{len(self.numbers)}d", *self.numbers)
        block = np.frombuffer(packed).reshape(len(self.counts), -1, self.width)
        counts = np.array(self.counts, dtype=np.int64).reshape(-1, 1)
        counts.setflags(write=False)
        found = {stat: StackedStat(block[:, i]) for i, stat in enumerate(self.names)}
        return {**found, "count": StackedStat(counts)}


def _increasing(episodes: Sequence[Any]) -> bool:
    return (
        set(map(type, episodes)) == {int}
        and episodes[0] >= 0
        and episodes[-1] <= MAX_INDEX
        and all(map(operator.lt, episodes, episodes[1:]))
    )
