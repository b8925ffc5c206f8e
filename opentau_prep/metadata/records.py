"""What a dataset's metadata looks like in memory, whatever version it was stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CAMERA_DTYPES",
    "EpisodeTable",
    "EpisodesStats",
    "Feature",
    "IntArray",
    "StackedStat",
    "Stats",
    "StatsView",
]

IntArray = npt.NDArray[np.int64]
Stats = dict[str, dict[str, npt.NDArray[Any]]]
"""feature -> stat (`min`, `max`, `mean`, `std`, `count`, `q01`, ...) -> array."""
StatsView = Mapping[str, Mapping[str, npt.NDArray[Any]]]
"""The same, to be read only."""

CAMERA_DTYPES = ("video", "image")
_COLUMNS = ("episode_index", "length", "data_chunk", "data_file", "from_index", "to_index")


@dataclass(frozen=True)
class EpisodeTable:
    """The episodes of a dataset in order of `episode_index`; one row per episode, E rows.

    Attributes:
        episode_index: (E,) int64, strictly increasing.
        length: (E,) int64, frames.
        tasks: The task strings of each episode, as the table gives them.
        data_chunk: (E,) int64, `data/chunk_index`; v3.0 only.
        data_file: (E,) int64, `data/file_index`; v3.0 only.
        from_index: (E,) int64, first row of the episode in the whole dataset; v3.0 only.
        to_index: (E,) int64, the row after its last one there; v3.0 only.
    """

    episode_index: IntArray
    length: IntArray
    tasks: tuple[tuple[str, ...], ...]
    data_chunk: IntArray | None = None
    data_file: IntArray | None = None
    from_index: IntArray | None = None
    to_index: IntArray | None = None

    def __post_init__(self) -> None:
        for name in _COLUMNS:
            array = getattr(self, name)
            if array is not None:
                own = array.view()  # the caller's array stays as writable as it was
                own.setflags(write=False)
                object.__setattr__(self, name, own)

    @cached_property
    def _position(self) -> Mapping[int, int]:
        return dict(zip(self.episode_index.tolist(), range(len(self)), strict=True))

    def __len__(self) -> int:
        return len(self.episode_index)

    def __contains__(self, episode: object) -> bool:
        return episode in self._position

    def position(self, episode: int) -> int:
        """Return the row of an episode; raise `KeyError` when there is none."""
        return self._position[episode]

    def positions(self, episodes: IntArray) -> IntArray:
        """Return the rows of many episodes, (N,) int64; raise `KeyError` when one is not there."""
        found = np.searchsorted(self.episode_index, episodes)
        known = found < len(self)
        known[known] = self.episode_index[found[known]] == episodes[known]
        if not known.all():
            raise KeyError(int(episodes[~known][0]))
        return found

    @property
    def total_frames(self) -> int:
        """The sum of the lengths."""
        return int(self.length.sum())


@dataclass(frozen=True)
class StackedStat:
    """One stat of one feature for all episodes that have it.

    Attributes:
        values: (n, *shape), one row per episode; read-only.
        rows: (n,) int64, those episodes' rows in `EpisodesStats`; None when all have it.
    """

    values: npt.NDArray[Any]
    rows: IntArray | None = None


@dataclass(frozen=True)
class EpisodesStats:
    """The stats of E episodes, stat by stat: what pools without a walk over the episodes.

    Attributes:
        episode_index: (E,) int64, increasing.
        blocks: feature -> stat -> its values.
    """

    episode_index: IntArray
    blocks: Mapping[str, Mapping[str, StackedStat]]

    def rows_of(self, episodes: IntArray) -> IntArray | None:
        """Return the rows of some episodes; None when one of them has no stats at all."""
        found = np.searchsorted(self.episode_index, episodes)
        known = found < len(self.episode_index)
        known[known] = self.episode_index[found[known]] == episodes[known]
        known[known] = self._filled[found[known]]
        return found if known.all() else None

    @cached_property
    def _filled(self) -> npt.NDArray[np.bool_]:
        filled = np.zeros(len(self.episode_index), dtype=np.bool_)
        for stats in self.blocks.values():
            for block in stats.values():
                filled[slice(None) if block.rows is None else block.rows] = True
        return filled

    def by_episode(self) -> dict[int, Stats]:
        """Return episode_index -> feature -> stat -> array; the arrays are views."""
        found: list[Stats] = [{} for _ in self.episode_index]
        for feature, stats in self.blocks.items():
            for stat, block in stats.items():
                rows = range(len(found)) if block.rows is None else block.rows.tolist()
                for row, values in zip(rows, block.values, strict=True):
                    found[row].setdefault(feature, {})[stat] = values
        return dict(zip(self.episode_index.tolist(), found, strict=True))

    def arrays(self, rows: IntArray | None = None) -> Stats | None:
        """Return feature -> stat -> (n, *shape) of all or some rows; None when any lacks a stat."""
        stacked = [block for stats in self.blocks.values() for block in stats.values()]
        if any(block.rows is not None for block in stacked):
            return None
        return {
            feature: {s: b.values if rows is None else b.values[rows] for s, b in stats.items()}
            for feature, stats in self.blocks.items()
        }


@dataclass(frozen=True)
class Feature:
    """One entry of info.json's `features`.

    Attributes:
        name: The column.
        dtype: As it is written, such as `float32`, `video`.
        shape: Of one frame; empty when info.json does not say.
        names: Of its dims, flattened from however they are nested; empty when there are none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def is_camera(self) -> bool:
        """Whether it is stored as pictures, which are never read."""
        return self.dtype in CAMERA_DTYPES
