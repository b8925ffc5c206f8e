"""The datasets of a mixture as their policy sees them: which dims, and how they are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import MetadataError, PrepError, join_errors
from opentau_prep.forecast.distribution import Distribution, from_sketch, from_stats
from opentau_prep.heads.keys import compute_norm_key
from opentau_prep.heads.members import VECTOR_FEATURES, dim_names, gripper_dims
from opentau_prep.notices import some_names, warn
from opentau_prep.stats.delta import load_delta_stats
from opentau_prep.stats.load import load_sketches
from opentau_prep.storage.urls import shell_command

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["Member", "MemberFeature", "read_members"]


@dataclass(frozen=True)
class MemberFeature:
    """State or actions of one dataset, after `state_index` or `action_index`; D dims.

    Attributes:
        column: The column they are in.
        index: (D,) which of its dims.
        raw_dims: How many dims the column has.
        names: What info.json calls them, or nothing.
        distribution: Of the values that are trained on.
        is_delta: Whether those are relative to the state at the start of the chunk.
    """

    column: str
    index: NDArray[np.intp]
    raw_dims: int
    names: Sequence[str]
    distribution: Distribution
    is_delta: bool = False

    @property
    def grippers(self) -> tuple[int, ...]:
        """The dims whose names are those of grippers or fingers."""
        return gripper_dims(self.names)


@dataclass(frozen=True)
class Member:
    """One dataset of the mixture.

    Attributes:
        entry: The dataset.
        norm_key: The key of its head.
        features: `state` and `actions`, where it has them.
    """

    entry: ResolvedEntry
    norm_key: str
    features: dict[str, MemberFeature]

    @property
    def name(self) -> str:
        """Its name in the mixture."""
        return self.entry.name


def read_members(
    resolved: ResolvedMixture, *, artifact_root: Path | None = None, chunk_size: int | None = None
) -> list[Member]:
    """Return every robot dataset of a mixture with the distributions of its dims.

    Sketches where `stats` left some, else the stats themselves. No frames are read.

    Raises:
        PrepError: Datasets have no usable stats; all of them are listed.
    """
    members, faults = [], []
    for entry in resolved.entries:
        try:
            members.append(_member(entry, resolved, artifact_root, chunk_size))
        except PrepError as fault:
            faults.append((entry.name, fault))
    if faults:
        raise join_errors(faults, "datasets have no usable stats")
    subsets = [m.name for m in members if m.entry.is_subset and _has_sketch(m)]
    if subsets:
        warn(
            "sketch_of_all_episodes",
            f"sketches are of all episodes, also where a selection is used: {some_names(subsets)}",
            datasets=subsets,
        )
    return members


def _has_sketch(member: Member) -> bool:
    return any(f.distribution.origin == "sketch" for f in member.features.values())


def _member(
    entry: ResolvedEntry,
    resolved: ResolvedMixture,
    artifact_root: Path | None,
    chunk_size: int | None,
) -> Member:
    columns = entry.name_map.columns
    wanted = {f: columns[f] for f in VECTOR_FEATURES if f in columns}
    if not wanted:
        raise MetadataError(
            "has neither state nor actions",
            where=entry.name,
            hint="Map them with data_features_name_mapping.",
        )
    sketches = load_sketches(entry.meta, name=entry.artifact_name, artifact_root=artifact_root)
    stats = entry.stats_of(list(wanted.values()))
    delta = None
    if entry.config.use_delta_joint_actions:
        delta = load_delta_stats(
            entry, resolved.mixture, chunk_size=chunk_size, artifact_root=artifact_root
        )
    features = {}
    for feature, column in wanted.items():
        is_delta = delta is not None and feature == "actions"
        if delta is not None and is_delta:
            own_stats = delta.stats["actions"]
            mean, std = (np.asarray(own_stats[s], np.float64) for s in ("mean", "std"))
            shown = from_sketch(delta.sketch, mean, std)
            index = np.asarray(entry.config.action_index or range(shown.dims), dtype=np.intp)
        else:
            if column not in stats or not {"min", "max", "mean", "std"} <= set(stats[column]):
                raise MetadataError(
                    f"has no stats of {column!r}",
                    where=entry.name,
                    hint=f"Compute them: `{shell_command('stats', [entry.meta.root])}`.",
                )
            numbers = {s: v for s, v in stats[column].items() if s != "count"}
            sketch = (sketches or {}).get(column)
            widths = {np.size(v) for v in numbers.values()} | ({sketch.dims} if sketch else set())
            if len(widths) > 1:
                raise MetadataError(
                    f"the stats and the frames of {column!r} have different widths:"
                    f" {', '.join(map(str, sorted(widths)))}",
                    where=entry.name,
                    hint=f"Recompute: `{shell_command('stats', [entry.meta.root], '--force')}`.",
                )
            own = from_stats(numbers)
            whole = own if sketch is None else from_sketch(sketch, own.mean, own.std)
            index = _index(entry, feature, whole.dims)
            shown = whole.select(index)
        names = dim_names(entry, feature, len(index))
        raw = int(np.prod(entry.meta.features[column].shape))
        features[feature] = MemberFeature(column, index, raw, names, shown, is_delta)
    key, _ = compute_norm_key(entry.robot_type, entry.control_mode, entry.name)
    return Member(entry, key, features)


def _index(entry: ResolvedEntry, feature: str, width: int) -> NDArray[np.intp]:
    config = entry.config
    index = config.state_index if feature == "state" else config.action_index
    chosen = np.arange(width) if index is None else np.asarray(index, dtype=np.intp)
    if len(chosen) and chosen.max() >= width:
        raise MetadataError(
            f"{feature}_index names dim {int(chosen.max())}, the stats have {width}",
            where=entry.name,
        )
    return chosen.astype(np.intp)
