"""A mixture together with the datasets it names: what every verb of the library works on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from opentau_prep.engine import Failure
from opentau_prep.errors import EngineError, MetadataError, PrepError, join_errors
from opentau_prep.metadata.dataset import Dataset, DatasetMetadata, load_dataset_metadata
from opentau_prep.metadata.features import NameMap, name_map_of
from opentau_prep.metadata.info import shown
from opentau_prep.metadata.locate import LocateOptions, locate_dataset
from opentau_prep.metadata.select import select_episodes, selected_stats
from opentau_prep.notices import some_names, warn
from opentau_prep.storage import is_remote
from opentau_prep.storage.look import current_look, file_stat

if TYPE_CHECKING:
    from opentau_prep.config.schema import DatasetEntry, Mixture
    from opentau_prep.metadata.records import IntArray, Stats, StatsView
    from opentau_prep.shard import Shard

__all__ = [
    "ResolvedEntry",
    "ResolvedMixture",
    "located_roots",
    "resolve_mixture",
    "warn_vqa",
]


@dataclass(frozen=True)
class ResolvedEntry:
    """One robot dataset of a mixture.

    Attributes:
        index: Its position among all entries of the mixture.
        name: Its mixture-level name, with `#N` where the id occurs more than once.
        config: The entry as written.
        dataset: The dataset that it names.
    """

    index: int
    name: str
    config: DatasetEntry
    dataset: Dataset

    @property
    def meta(self) -> DatasetMetadata:
        """The dataset's metadata; raises the `PrepError` of a dataset that cannot be opened."""
        return self.dataset.meta

    @property
    def artifact_name(self) -> str:
        """What the dataset's folder below `--artifact-root` is called; see `Dataset`."""
        return self.dataset.artifact_name

    @property
    def is_subset(self) -> bool:
        """Whether the entry selects among the dataset's episodes."""
        return self.config.episodes is not None or bool(self.config.excluded_episodes)

    def of_whole_dataset(self) -> ResolvedEntry:
        """Return this entry without its selection: for what belongs to the dataset as it is."""
        if not self.is_subset:
            return self
        whole = replace(self.config, episodes=None, excluded_episodes=None)
        return replace(self, config=whole)

    @cached_property
    def episodes(self) -> IntArray:
        """The selected episodes, (E,) int64, sorted, at least one; see `select_episodes`."""
        self.dataset.check_not_empty()
        return select_episodes(
            self.meta.episodes,
            episodes=self.config.episodes,
            excluded_episodes=self.config.excluded_episodes,
            where=self.config.where(),
        )

    @cached_property
    def stats(self) -> Stats:
        """The stats that training uses for the selected episodes, under the columns' own names."""
        if self.config.stats is not None:
            from opentau_prep.metadata.statsread import parse_stats

            return parse_stats(self.config.stats, self.config.where("stats"))
        return selected_stats(self.meta, self.episodes if self.is_subset else None)

    def stats_of(self, columns: Collection[str]) -> StatsView:
        """Return `stats` of some columns (others may be there too), without keeping them.

        Raises:
            MetadataError: The stats are missing or malformed.
        """
        if self.config.stats is not None or "stats" in self.__dict__:
            return self.stats
        if self.is_subset:
            return selected_stats(self.meta, self.episodes)
        return self.meta.stats_of(columns)

    @cached_property
    def name_map(self) -> NameMap:
        """Standard feature name -> column, and where that is known from."""
        return name_map_of(self.meta, self.config.data_features_name_mapping)

    @property
    def robot_type(self) -> str | None:
        """The entry's, or else what info.json says; None when neither does."""
        return self._tag("robot_type", self.config.robot_type)

    @property
    def control_mode(self) -> str | None:
        """The entry's, or else what info.json says; None when neither does."""
        return self._tag("control_mode", self.config.control_mode)

    def _tag(self, field: str, override: str | None) -> str | None:
        if override is not None:
            return override
        value = self.meta.info.get(field)
        if value is None or isinstance(value, str):
            return value
        raise MetadataError(
            f"field `{field}` is {shown(value)}; expected a string or null",
            where=self.meta.info_path,
            hint=f"Correct it, or set {field} in the mixture.",
        )


@dataclass(frozen=True)
class ResolvedMixture:
    """A mixture whose datasets have been found.

    Attributes:
        mixture: As written.
        entries: The robot datasets that can be used, in mixture order.
        vqa: The names of the entries that carry no robot data.
        faults: The entries that were not found or cannot be opened, where that was no reason to
            stop.
        broken: Of those, the entries whose folder was found, in mixture order.
    """

    mixture: Mixture
    entries: Sequence[ResolvedEntry]
    vqa: Sequence[str]
    faults: Sequence[Failure] = ()
    broken: Sequence[ResolvedEntry] = ()

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The datasets that can be used, each once, in mixture order."""
        return tuple(dict.fromkeys(entry.dataset for entry in self.entries))

    @property
    def located_datasets(self) -> tuple[Dataset, ...]:
        """All datasets whose folder was found, those that cannot be opened too."""
        found = sorted([*self.entries, *self.broken], key=lambda entry: entry.index)
        return tuple(dict.fromkeys(entry.dataset for entry in found))

    def part(self, shard: Shard | None) -> ResolvedMixture:
        """Return the mixture with one part of its datasets, balanced by their frames.

        Names stay those of the whole mixture. None returns the whole.
        """
        if shard is None:
            return self
        datasets = self.located_datasets
        mine = set(shard.choose(datasets, [_declared_frames(each) for each in datasets]))
        return replace(
            self,
            entries=tuple(entry for entry in self.entries if entry.dataset in mine),
            broken=tuple(entry for entry in self.broken if entry.dataset in mine),
        )

    def entries_of(self, dataset: Dataset) -> tuple[ResolvedEntry, ...]:
        """Return the entries that name a dataset, in mixture order."""
        return self._by_dataset.get(dataset, ())

    @cached_property
    def _by_dataset(self) -> dict[Dataset, tuple[ResolvedEntry, ...]]:
        found: dict[Dataset, tuple[ResolvedEntry, ...]] = {}
        for entry in (*self.entries, *self.broken):
            found[entry.dataset] = (*found.get(entry.dataset, ()), entry)
        return found

    @property
    def first_entries(self) -> tuple[ResolvedEntry, ...]:
        """The first entry of each dataset that can be used: for work done once per dataset."""
        return tuple(self.entries_of(dataset)[0] for dataset in self.datasets)


def _declared_frames(dataset: Dataset) -> int:
    """Return what info.json says, without another file being read."""
    frames = None if dataset.fault else dataset.meta.info.get("total_frames")
    return frames if type(frames) is int else 0


def warn_vqa(names: Sequence[str]) -> None:
    """Say which entries carry no robot data: the same words whoever leaves them out."""
    if names:
        warn(
            "vqa_left_out",
            f"vqa entries carry no robot data and are left out: {some_names(names)}",
            datasets=list(names),
        )


def resolve_mixture(
    mixture: Mixture, options: LocateOptions | None = None, *, keep_going: bool = False
) -> ResolvedMixture:
    """Find every dataset of a mixture and open its metadata, each folder once.

    This alone decides which datasets a mixture has: entries name one dataset when their roots are
    one folder, or one URL.

    Args:
        mixture: The mixture.
        options: Where to look.
        keep_going: Put datasets that cannot be opened into `faults`, as long as there are others
            (with `options.tolerant`, even if there are not).

    Raises:
        MetadataError: Datasets were not found or have no usable info.json; all of them are listed.
        ConfigError: A repo id would leave a cache folder.
        EngineError: A root is a URL whose driver is not installed.
    """
    options = options or LocateOptions()
    look = current_look()
    # Without faults, all ways of going on with them find the same.
    key = ("resolved", id(mixture), options.download and options.frames, options.absolute)
    if look is None:
        return _resolve(mixture, options, keep_going=keep_going)
    found = look.made(key, lambda: _resolve(mixture, options, keep_going=keep_going))
    if found.faults or found.mixture is not mixture:
        return _resolve(mixture, options, keep_going=keep_going)
    return found


def _resolve(mixture: Mixture, options: LocateOptions, *, keep_going: bool) -> ResolvedMixture:
    found: list[_Found] = []
    vqa: list[str] = []
    faults: list[Failure] = []
    if any(map(is_remote, mixture.roots)):
        from opentau_prep.metadata.ahead import read_ahead

        read_ahead(mixture.roots)
    opener = _Opener()
    for index, (name, config) in enumerate(
        zip(mixture.dataset_names, mixture.datasets, strict=True)
    ):
        if config.is_vqa:
            vqa.append(name)
            continue
        try:
            root = _locate(config, options)
        except EngineError:
            raise  # a package to be installed is no fault of the dataset
        except PrepError as fault:
            faults.append(Failure(name, fault))
            continue
        opened = opener.open(root, str(config.repo_id))
        if isinstance(opened.metadata, PrepError):
            faults.append(Failure(name, opened.metadata))
        found.append(_Found(index, name, config, opened))
    entries = _entries(found)
    usable = tuple(entry for entry in entries if entry.dataset.fault is None)
    stop = not keep_going or not (usable or options.tolerant)
    if faults and stop:
        raise join_errors([(f.label, f.error) for f in faults], "datasets cannot be opened")
    broken = tuple(entry for entry in entries if entry.dataset.fault is not None)
    return ResolvedMixture(mixture, usable, tuple(vqa), tuple(faults), broken)


def located_roots(mixture: Mixture, options: LocateOptions) -> list[str]:
    """Return where the datasets of a mixture are, as `resolve_mixture` finds them; none is opened.

    Raises:
        PrepError: See there.
    """
    return [_locate(config, options) for config in mixture.datasets if not config.is_vqa]


@dataclass(frozen=True, eq=False)
class _Opened:
    root: str
    repo_id: str
    metadata: DatasetMetadata | PrepError


@dataclass(frozen=True)
class _Found:
    index: int
    name: str
    config: DatasetEntry
    opened: _Opened


class _Opener:
    """Opens each folder once, whatever the paths that lead to it."""

    def __init__(self) -> None:
        self._by_folder: dict[str, _Opened] = {}

    def open(self, root: str, repo_id: str) -> _Opened:
        key = _identity(root)
        if key not in self._by_folder:
            self._by_folder[key] = _Opened(root, repo_id, self._metadata(root, repo_id))
        return self._by_folder[key]

    def _metadata(self, root: str, repo_id: str) -> DatasetMetadata | PrepError:
        try:
            return load_dataset_metadata(root, repo_id=repo_id)
        except EngineError:
            raise
        except PrepError as fault:
            return fault


def _entries(found: Sequence[_Found]) -> list[ResolvedEntry]:
    distinct = dict.fromkeys(each.opened for each in found)
    folders_of_id = Counter(opened.repo_id for opened in distinct)
    datasets: dict[_Opened, Dataset] = {}
    entries = []
    for each in found:
        opened = each.opened
        if opened not in datasets:
            alone = folders_of_id[opened.repo_id] == 1
            artifact_name = opened.repo_id if alone else each.name
            datasets[opened] = Dataset(opened.root, opened.repo_id, artifact_name, opened.metadata)
        entries.append(ResolvedEntry(each.index, each.name, each.config, datasets[opened]))
    return entries


def _locate(config: DatasetEntry, options: LocateOptions) -> str:
    file = config.root_file
    return locate_dataset(
        repo_id=config.repo_id,
        root=config.root,
        revision=config.revision,
        json_dir=os.path.dirname(file) if file is not None else None,
        options=options,
    )


def _identity(root: str | os.PathLike[str]) -> str:
    """Return what two paths of one folder have in common."""
    try:
        found = None if is_remote(root) else file_stat(root)
    except (OSError, ValueError):
        found = None
    if found is None:
        return os.fspath(root)
    return f"{found.st_dev}:{found.st_ino}"
