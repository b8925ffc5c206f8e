"""One dataset: its metadata, whatever the version, and how much of it there is.

Each part is read when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.artifacts.marker import warn_of_update
from opentau_prep.errors import MetadataError, PrepError
from opentau_prep.metadata import v2
from opentau_prep.metadata.features import infer_columns
from opentau_prep.metadata.frames_format import check_parquet
from opentau_prep.metadata.info import (
    INFO,
    check_own,
    parse_dtypes,
    parse_features,
    parse_fps,
    parse_version,
)
from opentau_prep.metadata.jsonread import read_json_object
from opentau_prep.metadata.statsread import STATS, pool_stats, read_stats, read_stats_of
from opentau_prep.notices import collect_notices, emit, warn
from opentau_prep.storage import Storage, is_remote, open_storage
from opentau_prep.storage.look import current_look
from opentau_prep.storage.urls import shell_command

if TYPE_CHECKING:
    import numpy.typing as npt

    from opentau_prep.metadata.records import EpisodesStats, EpisodeTable, Feature, Stats, StatsView

__all__ = ["Dataset", "DatasetMetadata", "Extent", "load_dataset_metadata"]


_FIRST_TABLE = "meta/episodes/chunk-000/file-000.parquet"


class DatasetMetadata:
    """What lies under a dataset's `meta/`, the same for v2.0, v2.1 and v3.0.

    `info` is read at once; `episodes`, `tasks`, `stats` and `episodes_stats` when they are first
    asked for, and then kept. Nothing here reads frames.

    Attributes:
        repo_id: The dataset's hub id, or its folder's name.
        root: The dataset's folder, as given.
        storage: The way to its files.
        info: `meta/info.json` as it is.
        version: `"v2.0"`, `"v2.1"` or `"v3.0"`: what the files are, which is not always what
            info.json says.
    """

    def __init__(self, storage: Storage, *, repo_id: str | None = None) -> None:
        self.storage = storage
        self.root = storage.url
        self.repo_id = repo_id or os.path.basename(os.path.abspath(storage.url)) or storage.url
        self.info: dict[str, Any] = read_json_object(storage, INFO)
        check_own(self.info, self.info_path)
        self.version = _version(storage, self.info)
        if storage.folder is not None:
            warn_of_update(storage.folder / "meta", self.repo_id)

    def __repr__(self) -> str:
        return f"DatasetMetadata({self.repo_id!r}, {self.version}, root={self.root!r})"

    @property
    def info_path(self) -> str:
        """Where info.json is, for messages."""
        return f"{self.root}/{INFO}"

    @property
    def is_v3(self) -> bool:
        """Whether several episodes share a data file and the tables are parquet."""
        return self.version == "v3.0"

    @property
    def fps(self) -> int | float:
        """Frames a second; raises `MetadataError` when info.json does not say."""
        return parse_fps(self.info, self.info_path)

    @cached_property
    def features(self) -> dict[str, Feature]:
        """The features that info.json declares, in its order."""
        return parse_features(self.info, self.info_path)

    @cached_property
    def inferred_columns(self) -> dict[str, str]:
        """Standard feature name -> column, as far as usual names and dtypes tell."""
        return infer_columns(parse_dtypes(self.info, self.info_path))

    @cached_property
    def episodes(self) -> EpisodeTable:
        """The episodes table; raises `MetadataError` when it is missing or malformed."""
        try:
            if self.is_v3:
                from opentau_prep.metadata import v3

                return v3.read_episodes(self.storage)
            return v2.read_episodes(self.storage)
        except MetadataError as error:
            self._check_not_aborted(error)
            raise

    @cached_property
    def tasks(self) -> dict[int, str]:
        """task_index -> task; raises `MetadataError` when the table is missing or malformed."""
        if self.is_v3:
            from opentau_prep.metadata import v3

            return v3.read_tasks(self.storage)
        return v2.read_tasks(self.storage)

    @cached_property
    def stacked_stats(self) -> EpisodesStats | None:
        """The episodes' stats in blocks, one a stat; None when the dataset keeps none."""
        if self.is_v3:
            from opentau_prep.metadata import v3

            found = v3.read_episodes_stats(self.storage)
        elif self.storage.exists(v2.EPISODES_STATS):
            found = v2.read_episodes_stats(self.storage)
        else:
            return None
        return found if found.blocks else None

    @cached_property
    def episodes_stats(self) -> dict[int, Stats]:
        """episode_index -> feature -> stat -> array; empty when the dataset keeps none."""
        return self.stacked_stats.by_episode() if self.stacked_stats is not None else {}

    @cached_property
    def stats(self) -> Stats:
        """What training uses as the dataset's stats: feature -> stat -> array.

        `meta/stats.json` for v2.0 and v3.0; for v2.1 the aggregate of the episodes' stats weighted
        by their `count`. When that source is missing the other one is used, with a notice.

        Raises:
            MetadataError: The dataset has neither, or it is malformed.
        """
        return self._read_stats()

    def stats_of(self, columns: Collection[str]) -> StatsView:
        """Return `stats` of some columns only, without the cost of the others and without keeping.

        Raises:
            MetadataError: See `stats`.
        """
        known: Stats | None = self.__dict__.get("stats")
        found = self._read_some(columns) if known is None else known
        return {column: found[column] for column in columns if column in found}

    def _read_some(self, columns: Collection[str]) -> StatsView:
        """Return stats in the cheapest way that has those of all columns, if they are there."""
        if self.version != "v2.1":
            try:  # without asking first whether it is there
                return read_stats_of(self.storage, columns)
            except MetadataError:
                if self.storage.exists(STATS):
                    raise
        elif "stacked_stats" not in self.__dict__ and self.storage.exists(v2.EPISODES_STATS):
            some = v2.read_episodes_stats(self.storage, columns)
            if set(some.blocks) == set(columns):
                return pool_stats(some, self.repo_id)
        return self._read_stats()

    def _read_stats(self) -> Stats:
        whole = self.storage.exists(STATS)
        if self.version != "v2.1" and whole:
            return read_stats(self.storage)
        if self.stacked_stats is not None:
            if self.version != "v2.1":
                self._stand_in(STATS, "the aggregate of the episodes' stats")
            return pool_stats(self.stacked_stats, self.repo_id)
        if whole:
            self._stand_in(v2.EPISODES_STATS, STATS)
            return read_stats(self.storage)
        missing = v2.EPISODES_STATS if self.version == "v2.1" else STATS
        error = MetadataError(
            "the dataset has no stats",
            where=f"{self.root}/{missing}",
            hint=f"Compute them: `{shell_command('stats', [self.root])}`.",
        )
        self._check_not_aborted(error)
        raise error

    def _check_not_aborted(self, error: MetadataError) -> None:
        """Raise what a missing file follows from, in a dataset that never had an episode."""
        if self.info.get("total_episodes") == 0:
            raise MetadataError(
                "holds no episode: the recording ended before the first one was saved",
                where=self.root,
                hint="Remove the dataset, and record again: there is nothing to restore.",
            ) from error

    @cached_property
    def data_paths(self) -> Sequence[str]:
        """The data file of each episode, in the order of `episodes`; files need not exist."""
        if self.is_v3:
            from opentau_prep.metadata import v3

            return v3.data_paths(self.storage, self.info, self.episodes)
        return v2.data_paths(self.storage, self.info, self.episodes)

    def _stand_in(self, missing: str, source: str) -> None:
        warn(
            "stats_stand_in",
            f"{self.root}/{missing} is missing: using {source} instead",
            dataset=self.repo_id,
        )


@dataclass(frozen=True)
class Extent:
    """How much of a dataset there is.

    Attributes:
        episodes: How many episodes.
        frames: How many frames they have.
    """

    episodes: int
    frames: int


@dataclass(frozen=True, eq=False)
class Dataset:
    """One folder or URL that holds `meta/info.json`, however many entries of a mixture name it.

    Attributes:
        root: The folder or URL, as it was found.
        repo_id: The id by which the first entry names it.
        artifact_name: What its folder below `--artifact-root` is called: the repo id, or the first
            entry's mixture-level name where datasets in different folders have one id.
        opened: Its metadata, or why that cannot be opened.
    """

    root: str
    repo_id: str
    artifact_name: str
    opened: DatasetMetadata | PrepError

    @property
    def fault(self) -> PrepError | None:
        """Why the metadata cannot be opened; None for a dataset that can be used."""
        return self.opened if isinstance(self.opened, PrepError) else None

    @property
    def meta(self) -> DatasetMetadata:
        """The metadata; raises the `PrepError` of a dataset that cannot be opened."""
        if isinstance(self.opened, PrepError):
            raise self.opened
        return self.opened

    @cached_property
    def storage(self) -> Storage:
        """The way to its files."""
        return open_storage(self.root) if self.fault is not None else self.meta.storage

    @cached_property
    def extent(self) -> Extent:
        """What the episodes table holds: the one count of a dataset's episodes and frames.

        What pools a head is `info["total_frames"]`, since training weighs by it; it is a weight
        there, not a count.

        Raises:
            MetadataError: The table is missing or malformed.
        """
        table = self.meta.episodes
        return Extent(len(table), table.total_frames)

    @cached_property
    def declared(self) -> Extent:
        """What info.json or the episodes table promises, whichever is more."""
        counts = []
        for key, found in (
            ("total_episodes", self.extent.episodes),
            ("total_frames", self.extent.frames),
        ):
            value = self.meta.info.get(key)
            counts.append(max(found, value) if type(value) is int else found)
        return Extent(*counts)

    @cached_property
    def present(self) -> Extent:
        """The part of the episodes table whose data files are there; no file is opened.

        Raises:
            PrepError: The table is missing or malformed, or the files cannot be listed.
        """
        has_file = self.has_data_file
        lengths = self.meta.episodes.length[has_file]
        return Extent(int(has_file.sum()), int(lengths.sum()))

    @cached_property
    def has_data_file(self) -> npt.NDArray[np.bool_]:
        """Whether the data file of each episode is there, (E,) bool, in the table's order."""
        paths = self.meta.data_paths
        folders = sorted({rel.rpartition("/")[0].partition("/")[0] for rel in paths} - {""})
        listed = {rel for folder in folders for rel in self.storage.list_files(folder, "")}
        there = [rel in listed or ("/" not in rel and self.storage.exists(rel)) for rel in paths]
        return np.array(there, dtype=np.bool_)

    @property
    def is_partial(self) -> bool:
        """Whether episodes are promised that are not there."""
        return self.present.episodes < self.declared.episodes

    def check_not_empty(self) -> None:
        """Raise a `MetadataError` where there is no frame to read.

        The episodes table is missing, malformed or empty, or the frames are no parquet files.
        """
        check_parquet(self.meta)
        if not self.extent.episodes:
            table = "meta/episodes" if self.meta.is_v3 else v2.EPISODES
            raise MetadataError(
                "the episodes table is empty",
                where=f"{self.root}/{table}",
                hint="Remove the dataset from the mixture, or download it whole.",
            )


def load_dataset_metadata(
    root: str | os.PathLike[str], *, repo_id: str | None = None
) -> DatasetMetadata:
    """Open a dataset's metadata.

    Args:
        root: The folder that holds `meta/` and `data/`.
        repo_id: The dataset's hub id; by default the folder's name.

    Returns:
        The metadata; everything but info.json is read lazily. Within a run (`one_look`) the same
        object, until something is written into the dataset.

    Raises:
        MetadataError: There is no `meta/info.json`, or it is not a JSON object of LeRobot's.
        ConfigError: The root is of a kind that cannot be read.
    """
    look = current_look()
    if look is None:
        return DatasetMetadata(open_storage(root), repo_id=repo_id)
    key = os.fspath(root) if is_remote(root) else os.path.abspath(root)
    known = look.opened.setdefault(key, {})
    if repo_id not in known:
        with collect_notices() as notices:
            known[repo_id] = DatasetMetadata(open_storage(root), repo_id=repo_id), tuple(notices)
    meta, said_then = known[repo_id]
    for notice in said_then:
        emit(notice)
    found: DatasetMetadata = meta
    return found


def _version(storage: Storage, info: dict[str, Any]) -> str:
    """Tell the version from the files, which are right when info.json is missing it or wrong."""
    declared = parse_version(info)
    # What is declared is looked for first: nearly always that is the only look.
    if declared == (3, 0) and _has_v3_table(storage):
        return "v3.0"
    v2_table = storage.exists(v2.EPISODES)
    if v2_table and declared in ((2, 0), (2, 1)):
        return f"v2.{declared[1]}"
    says_v3 = declared is not None and declared[0] == 3
    # Without a table of either kind, what is declared is all that there is to go by.
    if not v2_table and (says_v3 or _has_v3_table(storage)):
        found = "v3.0"
    elif declared in ((2, 0), (2, 1)):
        found = f"v2.{declared[1]}"
    else:
        found = "v2.1" if storage.exists(v2.EPISODES_STATS) else "v2.0"
    if declared != (int(found[1]), int(found[3])):
        written = info.get("codebase_version")
        warn(
            "version_mismatch",
            f"{storage.url}/{INFO}: codebase_version is {written!r}, but the files are {found}'s:"
            f" reading them as {found}",
            dataset=storage.url,
        )
    return found


def _has_v3_table(storage: Storage) -> bool:
    # Listing a folder costs more than asking for the file that nearly always is there.
    return storage.exists(_FIRST_TABLE) or bool(storage.list_files("meta/episodes", ".parquet"))
