"""One dataset as the rules see it: every part read once, and faults kept instead of raised.

A part that cannot be read is None, and `fault(name)` says why. Exactly one rule a part tells the
fault; all others pass over what is None, so that one broken file hides nothing else and is named
once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from opentau_prep.errors import PrepError
from opentau_prep.metadata import DatasetMetadata
from opentau_prep.metadata.dataset import Dataset
from opentau_prep.metadata.info import INFO
from opentau_prep.metadata.statsread import STATS, read_stats
from opentau_prep.notices import Notice, collect_notices
from opentau_prep.storage import Storage
from opentau_prep.validate.artifacts import find_artifacts, why_misshapen, why_torn
from opentau_prep.validate.footers import Footers, read_footers
from opentau_prep.validate.tables import TaskRow, read_row_ranges, read_task_rows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from opentau_prep.artifacts.store import Inspection
    from opentau_prep.config.schema import Mixture
    from opentau_prep.frames import DataPart
    from opentau_prep.metadata import EpisodeTable, Feature, Stats
    from opentau_prep.metadata.records import EpisodesStats, IntArray
    from opentau_prep.metadata.resolve import ResolvedEntry
    from opentau_prep.validate.frames import FrameSummary
    from opentau_prep.validate.rule import Rule, Trainer
    from opentau_prep.validate.videos import Videos

__all__ = ["CheckOptions", "DatasetView", "relative"]

T = TypeVar("T")
_LEAST_INFO = b'{"codebase_version": "v2.1"}'


@dataclass(frozen=True)
class CheckOptions:
    """What is checked.

    Attributes:
        rules: The rules that count; all by default.
        deep: Whether frames are read.
        tokenizer: A tokenizer folder to check with the mixture.
        chunk_size: Steps of the policy's action chunk, to check episodes and the tokenizer against.
        max_tokens: The policy's `discrete_action_max_length`, likewise.
        trainers: The trainers that must be able to open the datasets.
    """

    rules: Sequence[Rule] = ()
    deep: bool = False
    tokenizer: Path | None = None
    chunk_size: int | None = None
    max_tokens: int | None = None
    trainers: tuple[Trainer, ...] = ("opentau",)


class DatasetView:
    """A dataset's parts, each read when a rule first asks for it.

    Attributes:
        dataset: What is checked.
        options: What is looked for.
        artifact_root: Where artifacts lie instead of the dataset.
        named_by: The entries that name it, at least one.
        frames: What `--deep` found in the frames; None without it.
        notices: What the metadata layer reported while it read.
    """

    def __init__(
        self,
        dataset: Dataset,
        entries: Sequence[ResolvedEntry],
        options: CheckOptions = CheckOptions(),
        *,
        mixture: Mixture | None = None,
        artifact_root: Path | None = None,
    ) -> None:
        self.dataset = dataset
        self.options = options
        self.artifact_root = artifact_root
        self.frames: FrameSummary | None = None
        self.notices: list[Notice] = []
        self.named_by = entries
        # Of a mixture of thousands, each view would carry all datasets to another process.
        self._mixture = None if mixture is None else replace(mixture, datasets=(), weights=None)
        self._parts: dict[str, Any] = {}
        self._faults: dict[str, PrepError] = {}

    def unread(self) -> DatasetView:
        """Return a view of the same dataset that has read nothing, and keeps nothing alive."""
        again = DatasetView(
            self.dataset, self.named_by, self.options, artifact_root=self.artifact_root
        )
        again._mixture = self._mixture
        return again

    @property
    def name(self) -> str:
        """What findings are filed under: two folders of one repo id are two."""
        return self.dataset.artifact_name

    def fault(self, part: str) -> PrepError | None:
        """Return why a part could not be read; None when it could, or is not there to be read."""
        getattr(self, part)
        return self._faults.get(part)

    @cached_property
    def meta(self) -> DatasetMetadata:
        """The metadata; with the least of an info.json in place of one that cannot be read."""
        with collect_notices() as emitted:
            storage, repo_id = self.dataset.storage, self.dataset.repo_id
            try:  # opened anew: what is read goes with the view, and not with the mixture
                meta = DatasetMetadata(storage, repo_id=repo_id)
            except PrepError as fault:
                self._faults["info"] = fault
                meta = DatasetMetadata(_Overlay(storage, {INFO: _LEAST_INFO}), repo_id=repo_id)
                emitted.clear()
        self.notices += emitted
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
        """The rows of the tasks table as they are, repeated indices too."""
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
        """The entries that name this dataset, at least one."""
        own = Dataset(self.dataset.root, self.dataset.repo_id, self.name, self.meta)
        return [replace(entry, dataset=own) for entry in self.named_by]

    @property
    def is_of_mixture(self) -> bool:
        """Whether a mixture's file names the dataset, rather than the command line."""
        return self._mixture is not None and self._mixture.path is not None

    @property
    def action_freq(self) -> float | None:
        """The mixture's rate of action chunks in Hz; None for each dataset's own."""
        return None if self._mixture is None else self._mixture.action_freq

    @property
    def tolerance_s(self) -> float | None:
        """The strictest tolerance of an entry's timestamps; None where all leave the check out."""
        every = self._mixture
        found = []
        for entry in self.named_by:
            skip, tolerance = entry.config.skip_timestamp_check, entry.config.tolerance_s
            if every is not None and not (every.skip_timestamp_check if skip is None else skip):
                found.append(every.tolerance_s if tolerance is None else tolerance)
        return min(found, default=None)

    @cached_property
    def artifacts(self) -> Mapping[str, Inspection]:
        """The artifacts in the dataset's folder: their paths and states."""
        return find_artifacts(self)

    @cached_property
    def torn(self) -> Mapping[str, str]:
        """The artifacts that cannot be read as what they should be, and why."""
        found = {}
        for rel, each in self.artifacts.items():
            if each.content is not None:
                found[rel] = why_torn(rel, each.content) or why_misshapen(rel, each)
        return {rel: why for rel, why in found.items() if why}

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
            with collect_notices() as emitted:
                try:
                    self._parts[name] = read()
                except PrepError as fault:
                    self._faults[name] = fault
            self.notices += emitted
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
