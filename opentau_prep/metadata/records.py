"""What a dataset's metadata looks like in memory, whatever version it was stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["EpisodeTable", "Feature", "IntArray", "Stats"]

IntArray = npt.NDArray[np.int64]
Stats = dict[str, dict[str, npt.NDArray[Any]]]
"""feature -> stat (`min`, `max`, `mean`, `std`, `count`, `q01`, ...) -> array."""


@dataclass(frozen=True)
class EpisodeTable:
    """The episodes of a dataset in order of `episode_index`; one row an episode, E rows.

    Attributes:
        episode_index: (E,) int64, strictly increasing.
        length: (E,) int64, frames.
        tasks: The task strings of each episode, as the table gives them.
        data_chunk: (E,) int64, `data/chunk_index`; v3.0 only.
        data_file: (E,) int64, `data/file_index`; v3.0 only.
        from_index: (E,) int64, first row of the episode in the whole dataset; v3.0 only.
    """

    episode_index: IntArray
    length: IntArray
    tasks: tuple[tuple[str, ...], ...]
    data_chunk: IntArray | None = None
    data_file: IntArray | None = None
    from_index: IntArray | None = None
    _position: Mapping[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("episode_index", "length", "data_chunk", "data_file", "from_index"):
            array = getattr(self, name)
            if array is not None:
                array.setflags(write=False)
        position = {int(e): i for i, e in enumerate(self.episode_index)}
        object.__setattr__(self, "_position", position)

    def __len__(self) -> int:
        return len(self.episode_index)

    def __contains__(self, episode: object) -> bool:
        return episode in self._position

    def position(self, episode: int) -> int:
        """Return the row of an episode; raise `KeyError` when there is none."""
        return self._position[episode]

    @property
    def total_frames(self) -> int:
        """The sum of the lengths."""
        return int(self.length.sum())


@dataclass(frozen=True)
class Feature:
    """One entry of info.json's `features`.

    Attributes:
        name: The column.
        dtype: As it is written, such as `float32`, `video`.
        shape: Of one frame; empty when info.json does not say.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def is_camera(self) -> bool:
        """Whether it is stored as pictures, which are never read."""
        return self.dtype in ("video", "image")
