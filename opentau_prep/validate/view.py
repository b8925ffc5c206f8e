"""One dataset as the rules see it: every part read once, and faults kept instead of raised.

A part that cannot be read is None, and `fault(name)` says why. Exactly one rule a part tells the
fault; all others pass over what is None, so that one broken file hides nothing else and is named
once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from opentau_prep.errors import PrepError
from opentau_prep.metadata import DatasetMetadata
from opentau_prep.metadata.dataset import Dataset
from opentau_prep.metadata.info import INFO
from opentau_prep.metadata.resolve import ResolvedEntry
from opentau_prep.metadata.statsread import STATS, read_stats
from opentau_prep.notices import Notice, collect_notices
from opentau_prep.storage import Storage, open_storage
from opentau_prep.validate.artifacts import FoundArtifact, find_artifacts
from opentau_prep.validate.footers import Footers, read_footers
from opentau_prep.validate.tables import TaskRow, read_row_ranges, read_task_rows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from opentau_prep.config.schema import DatasetEntry
    from opentau_prep.frames import DataPart
    from opentau_prep.metadata import EpisodeTable, Feature, Stats
    from opentau_prep.metadata.records import EpisodesStats, IntArray
    from opentau_prep.validate.frames import FrameSummary
    from opentau_prep.validate.videos import Videos

__all__ = ["DatasetView", "EntrySpec", "Target", "relative"]

T = TypeVar("T")


@dataclass(frozen=True)
class EntrySpec:
    """One mixture entry of a dataset.

    Attributes:
        index: Its position in the mixture.
        name: Its mixture-level name.
        config: The entry as written.
        tolerance_s: Of the timestamp check, after the entry's override.
        skip_timestamp_check: Whether that check is left out, after the entry's override.
        action_freq: The mixture's.
    """

    index: int
    name: str
    config: DatasetEntry
    tolerance_s: float
    skip_timestamp_check: bool
    action_freq: float | None = None


@dataclass(frozen=True)
class Target:
    """A dataset that is to be checked, once, however many entries name it.

    Attributes:
        name: What its findings are filed under: the dataset's artifact name, so that two folders of
            one id are two.
        root: Its folder.
        repo_id: Its hub id.
        entries: The entries that name it, at least one.
        from_mixture: Whether a mixture file names it, rather than the command line.
        artifact_root: Where artifacts lie instead of the dataset.
        deep: Whether frames are read.
        trainers: The trainers that it must be fit for.
        chunk_size: Steps per action chunk, when it was given.
    """

    name: str
    root: str
    repo_id: str
    entries: tuple[EntrySpec, ...]
    from_mixture: bool = False
    artifact_root: Path | None = None
    deep: bool = False
    trainers: tuple[str, ...] = ()
    chunk_size: int | None = None


class DatasetView:
    """A dataset's parts, each read when a rule first asks for it.

    Attributes:
        target: What is checked.
        frames: What `--deep` found in the frames; None without it.
        notices: What the metadata layer said while it read.
    """

    def __init__(self, target: Target, frames: FrameSummary | None = None) -> None:
        self.target = target
        self.frames = frames
        self.notices: list[Notice] = []
        self._parts: dict[str, Any] = {}
        self._faults: dict[str, PrepError] = {}

    def fault(self, part: str) -> PrepError | None:
        """Return why a part could not be read; None when it could, or is not there to be read."""
        getattr(self, part)
        return self._faults.get(part)

    @cached_property
    def meta(self) -> DatasetMetadata:
        """The metadata; with an empty info.json in the place of one that cannot be read."""
        with collect_notices() as said:
            storage = open_storage(self.target.root)
            try:
                meta = DatasetMetadata(storage, repo_id=self.target.repo_id)
            except PrepError as fault:
                self._faults["info"] = fault
                stand_in = _Overlay(storage, {INFO: b"{}"})
                meta = DatasetMetadata(stand_in, repo_id=self.target.repo_id)
                said.clear()
        self.notices += said
        return meta

    @property
    def info(self) -> dict[str, Any] | None:
        """`meta/info.json`."""
        meta = self.meta
        return None if "info" in self._faults else meta.info

    @property
    def storage(self) -> Storage:
        """The way to the dataset's files."""
        return self.meta.storage

    @property
    def fps(self) -> float | None:
        """Frames a second."""
        return self._part("fps", lambda: float(self.meta.fps) if self.info is not None else None)

    @property
    def features(self) -> Mapping[str, Feature] | None:
        """The features that info.json declares."""
        return self._part("features", lambda: self.meta.features if self.info is not None else None)

    @property
    def episodes(self) -> EpisodeTable | None:
        """The episodes table."""
        return self._part("episodes", lambda: self.meta.episodes)

    @property
    def tasks(self) -> Mapping[int, str] | None:
        """task_index -> task."""
        return self._part("tasks", lambda: self.meta.tasks)

    @property
    def task_rows(self) -> Sequence[TaskRow] | None:
        """The rows of the tasks table as they stand, repeated indices too."""
        if self.tasks is None:
            return None
        return self._part("task_rows", lambda: read_task_rows(self.meta))

    @property
    def whole_stats(self) -> Stats | None:
        """`meta/stats.json`, when there is one."""
        there = self.storage.exists(STATS)
        return self._part("whole_stats", lambda: read_stats(self.storage) if there else None)

    @property
    def episodes_stats(self) -> EpisodesStats | None:
        """The stats of each episode, in blocks; None also when the dataset keeps none."""
        if self.meta.is_v3 and self.episodes is None:
            return None
        return self._part("episodes_stats", lambda: self.meta.stacked_stats)

    def episode_stat(self, column: str, stat: str) -> tuple[IntArray, NDArray[Any]] | None:
        """Return the (n,) episodes that have a stat of a column, and its (n, *shape) values."""
        stacked = self.episodes_stats
        block = None if stacked is None else stacked.blocks.get(column, {}).get(stat)
        if stacked is None or block is None:
            return None
        rows = slice(None) if block.rows is None else block.rows
        return stacked.episode_index[rows], block.values

    @property
    def stats(self) -> Stats | None:
        """What training uses as the dataset's stats."""
        if "whole_stats" in self._faults or "episodes_stats" in self._faults:
            return None
        return self._part("stats", lambda: self.meta.stats)

    @property
    def data_paths(self) -> Sequence[str] | None:
        """The data file of each episode."""
        if self.episodes is None:
            return None
        return self._part("data_paths", lambda: self.meta.data_paths)

    @property
    def row_ranges(self) -> IntArray | None:
        """v3.0: (E, 2) `dataset_from_index` and `dataset_to_index`, in table order."""
        if self.episodes is None or not self.meta.is_v3:
            return None
        return self._part("row_ranges", lambda: read_row_ranges(self.meta))

    @property
    def data_parts(self) -> Sequence[DataPart]:
        """Which episodes lie in which file; empty when that is not known."""
        if self.data_paths is None:
            return ()
        from opentau_prep.frames import data_parts

        return self._part("data_parts", lambda: data_parts(self.meta)) or ()

    @property
    def footers(self) -> Footers | None:
        """The footers of the data files."""
        if self.data_paths is None:
            return None
        return self._part("footers", lambda: read_footers(self.storage, self.data_paths or ()))

    @property
    def videos(self) -> Videos | None:
        """The video files; None where nothing is stored as video."""
        table = self.episodes
        if table is None or not any(f.dtype == "video" for f in (self.features or {}).values()):
            return None
        from opentau_prep.validate.videos import read_videos

        return self._part("videos", lambda: read_videos(self.meta, table))

    @cached_property
    def entries(self) -> Sequence[ResolvedEntry]:
        """The entries that name this dataset."""
        dataset = Dataset(self.target.root, self.target.repo_id, self.target.name, self.meta)
        return [ResolvedEntry(e.index, e.name, e.config, dataset) for e in self._specs]

    @property
    def _specs(self) -> Sequence[EntrySpec]:
        return self.target.entries

    @cached_property
    def artifacts(self) -> Sequence[FoundArtifact]:
        """The artifacts in the dataset's folder."""
        return find_artifacts(self)

    @cached_property
    def vectors(self) -> Mapping[str, str]:
        """`state` and `actions` -> column, as far as they are mapped and declared."""
        if self.features is None:
            return {}
        columns = self.entries[0].name_map.columns
        found = {name: columns[name] for name in ("state", "actions") if name in columns}
        return {name: column for name, column in found.items() if column in self.features}

    def _part(self, name: str, read: Callable[[], T | None]) -> T | None:
        if name not in self._parts:
            self._parts[name] = None
            with collect_notices() as said:
                try:
                    self._parts[name] = read()
                except PrepError as fault:
                    self._faults[name] = fault
            self.notices += said
        value: T | None = self._parts[name]
        return value


class _Overlay:
    """A storage with some files' content replaced."""

    def __init__(self, storage: Storage, content: Mapping[str, bytes]) -> None:
        self._storage = storage
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def read_bytes(self, rel: str) -> bytes:
        if rel in self._content:
            return self._content[rel]
        return self._storage.read_bytes(rel)


def relative(error: PrepError, root: str) -> tuple[str | None, str]:
    """Return the file of an error relative to the root, and the rest of what it says."""
    where = error.where or ""
    inside = where.removeprefix(f"{root}/")
    if inside == where:  # not a file of the dataset
        return None, f"{where}: {error.message}" if where else error.message
    file, _, rest = inside.partition(", ")
    return file, f"{rest}: {error.message}" if rest else error.message
