"""A mixture together with the datasets it names: what every verb of the library works on."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import orjson

from opentau_prep.collecting import paused_collection
from opentau_prep.engine import Failure
from opentau_prep.errors import MetadataError, PrepError, join_errors
from opentau_prep.metadata.dataset import DatasetMetadata, load_dataset_metadata
from opentau_prep.metadata.features import NameMap, name_map_of
from opentau_prep.metadata.info import shown
from opentau_prep.metadata.locate import LocateOptions, locate_dataset
from opentau_prep.metadata.select import select_episodes, selected_stats
from opentau_prep.notices import some_names, warn

if TYPE_CHECKING:
    from opentau_prep.config.schema import DatasetEntry, Mixture
    from opentau_prep.metadata.records import IntArray, Stats, StatsView

__all__ = ["ResolvedEntry", "ResolvedMixture", "resolve_mixture", "warn_vqa"]


@dataclass(frozen=True)
class ResolvedEntry:
    """One robot dataset of a mixture.

    Attributes:
        index: Its position among all entries of the mixture.
        name: Its mixture-level name, with `#N` where the id occurs more than once.
        config: The entry as written.
        meta: The dataset's metadata; entries of one root share it.
        artifact_name: What its folder below `--artifact-root` is called: the repo id, or the name
            where datasets in different folders have one id.
    """

    index: int
    name: str
    config: DatasetEntry
    meta: DatasetMetadata
    artifact_name: str

    @property
    def is_subset(self) -> bool:
        """Whether the entry selects among the dataset's episodes."""
        return self.config.episodes is not None or bool(self.config.excluded_episodes)

    @cached_property
    def episodes(self) -> IntArray:
        """The selected episodes, (E,) int64, sorted; see `select_episodes`."""
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

    @property
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
        entries: The robot datasets, in mixture order.
        vqa: The names of the entries that carry no robot data.
        lost: The entries that could not be opened, where that was no reason to stop.
    """

    mixture: Mixture
    entries: Sequence[ResolvedEntry]
    vqa: Sequence[str]
    lost: Sequence[Failure] = ()


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
    """Find every dataset of a mixture and open its metadata, each root once.

    Args:
        mixture: The mixture.
        options: Where to look.
        keep_going: Put datasets that cannot be opened into `lost`, as long as there are others.

    Raises:
        MetadataError: Datasets were not found or have no usable info.json; all of them are listed.
        ConfigError: A repo id would leave a cache folder.
    """
    opened: dict[str, DatasetMetadata] = {}
    found: list[tuple[int, str, DatasetEntry, DatasetMetadata]] = []
    vqa: list[str] = []
    lost: list[Failure] = []
    declared: dict[bytes, DatasetMetadata] = {}
    named = zip(mixture.dataset_names, mixture.datasets, strict=True)
    times = Counter(config.repo_id for config in mixture.datasets)
    options = options or LocateOptions()
    with paused_collection():
        for index, (name, config) in enumerate(named):
            if config.is_vqa:
                vqa.append(name)
                continue
            try:
                root = _locate(config, options)
                # Only entries of one id can share what is opened.
                key = f"{_identity(root)}\0{config.repo_id}" if times[config.repo_id] > 1 else name
                if key not in opened:
                    opened[key] = load_dataset_metadata(root, repo_id=config.repo_id)
                    _share_features(opened[key], declared)
            except PrepError as fault:
                lost.append(Failure(name, fault))
            else:
                found.append((index, name, config, opened[key]))
    if lost and not (keep_going and found):
        raise join_errors([(f.label, f.error) for f in lost], "datasets cannot be opened")
    roots = {(meta.repo_id, meta.root) for *_, meta in found}
    shared = Counter(repo_id for repo_id, _ in roots)
    entries = [
        ResolvedEntry(i, name, config, meta, name if shared[meta.repo_id] > 1 else meta.repo_id)
        for i, name, config, meta in found
    ]
    return ResolvedMixture(mixture, tuple(entries), tuple(vqa), tuple(lost))


def _share_features(meta: DatasetMetadata, declared: dict[bytes, DatasetMetadata]) -> None:
    """Let datasets that declare the same features hold one copy: most of what info.json takes."""
    features = meta.info.get("features")
    if type(features) is not dict:
        return
    with contextlib.suppress(orjson.JSONEncodeError):  # damage, which is told where it matters
        first = declared.setdefault(orjson.dumps(features), meta)
        if first is not meta and first.info["features"] == features:  # a NaN is written as null
            meta.info["features"] = first.info["features"]
            meta.derived = first.derived


def _locate(config: DatasetEntry, options: LocateOptions) -> str | os.PathLike[str]:
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
        found = os.stat(root)
    except (OSError, ValueError):
        return os.fspath(root)
    return f"{found.st_dev}:{found.st_ino}"
