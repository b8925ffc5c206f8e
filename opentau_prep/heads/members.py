"""The entries of a mixture as members of heads: their stats in the policy's names and widths.

Training gives vqa entries a norm head each, too, though they have no robot data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import MetadataError, PrepError, join_errors
from opentau_prep.frames.delta import mixture_delta_map
from opentau_prep.heads.build import head_weight
from opentau_prep.heads.keys import check_required_tags, compute_norm_key
from opentau_prep.heads.standardize import (
    RECOMPUTE,
    imagenet_stats,
    native_stats,
    native_width,
    standardize_native,
)
from opentau_prep.metadata.features import warn_inferred
from opentau_prep.metadata.info import parse_dtypes
from opentau_prep.metadata.records import CAMERA_DTYPES
from opentau_prep.notices import shorten_names, some_names, warn
from opentau_prep.storage import shell_command

if TYPE_CHECKING:
    from opentau_prep.config.schema import DatasetEntry, Mixture
    from opentau_prep.heads.options import HeadOptions
    from opentau_prep.metadata.records import StatsView
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.stats.delta import DeltaStats

__all__ = [
    "VECTOR_FEATURES",
    "HeadMember",
    "VqaMember",
    "dim_names",
    "gripper_dims",
    "read_members",
    "vqa_members",
]

VECTOR_FEATURES = ("state", "actions")
_GRIPPER_WORDS = ("grip", "finger", "thumb", "index", "middle", "ring", "pinky", "claw", "jaw")


@dataclass(frozen=True, slots=True)
class HeadMember:
    """One dataset of a mixture, as its head sees it.

    Attributes:
        entry: The dataset.
        info: `robot_type` and `control_mode` after overrides, `total_frames`, `total_episodes`.
        norm_key: Its head's key.
        is_fallback: Whether that is its own name, for lack of a tag.
        weight: What it weighs in a shared head.
        stats: Its standardized stats.
        raw_dims: Width of state and actions before padding or cutting.
        delta: The stats of its delta actions, if it is trained on those: `stats` has them already.
    """

    entry: ResolvedEntry
    info: Mapping[str, Any]
    norm_key: str
    is_fallback: bool
    weight: float
    stats: StatsView
    raw_dims: tuple[int, int]
    delta: DeltaStats | None = None

    @property
    def index(self) -> int:
        """The entry's position among all entries of the mixture."""
        return self.entry.index

    @property
    def name(self) -> str:
        """The dataset's mixture-level name."""
        return self.entry.name

    def kept_dims(self, feature: str) -> int:
        """Return how many dims of `state` or `actions` hold data; those beyond are padding."""
        width = self.raw_dims[VECTOR_FEATURES.index(feature)]
        return min(width, len(self.stats[feature]["mean"]))


def read_members(
    resolved: ResolvedMixture, options: HeadOptions, *, artifact_root: Path | None = None
) -> list[HeadMember]:
    """Return every robot dataset of a mixture with its standardized stats, in mixture order.

    Notices: `inferred_columns`, `truncated_dims`, and those of the stats.

    Args:
        resolved: The mixture.
        options: Widths.
        artifact_root: Where artifacts of `stats` lie when not in the datasets.

    Raises:
        ConfigError: A required tag is empty (every offender is listed), or the datasets' delta
            maps do not go together: before any stats are read.
        PrepError: Datasets whose stats cannot be used; every one of them is listed.
    """
    infos = _infos(resolved)
    mixture = resolved.mixture
    silent = dict(zip(mixture.dataset_names, mixture.datasets, strict=True))
    vqa = [silent[name] for name in resolved.vqa]
    check_required_tags(
        [*(entry.name for entry in resolved.entries), *resolved.vqa],
        [*infos, *({"robot_type": e.robot_type, "control_mode": e.control_mode} for e in vqa)],
        require_non_empty_robot_type=mixture.require_non_empty_robot_type,
        require_non_empty_control_mode=mixture.require_non_empty_control_mode,
    )
    mixture_delta_map((entry.name, entry.config) for entry in resolved.entries)
    members: list[HeadMember] = []
    faults: list[tuple[str, PrepError]] = []
    for entry, info in zip(resolved.entries, infos, strict=True):
        try:
            delta = _delta_stats(entry, mixture, options, artifact_root)
            members.append(_member(entry, info, options, delta))
        except PrepError as fault:
            faults.append((entry.name, _with_command(fault, entry)))
    if faults:
        raise join_errors(faults, "datasets have no usable stats")
    warn_inferred((member.name, member.entry.name_map) for member in members)
    if options.truncate_dims:
        _say_truncated(members)
    return members


def _with_command(fault: PrepError, entry: ResolvedEntry) -> PrepError:
    """Return an error whose advice to recompute the stats says how, for this dataset."""
    if fault.hint is not None and fault.hint.endswith(RECOMPUTE):
        command = shell_command("stats", [entry.meta.root], "--force")
        fault.hint = fault.hint.replace(RECOMPUTE, f"Recompute the stats: `{command}`.")
    return fault


def _infos(resolved: ResolvedMixture) -> list[dict[str, Any]]:
    infos: list[dict[str, Any]] = []
    faults = []
    for entry in resolved.entries:
        info = entry.meta.info
        try:
            infos.append(
                {
                    "robot_type": entry.robot_type,
                    "control_mode": entry.control_mode,
                    "total_frames": info.get("total_frames"),
                    "total_episodes": info.get("total_episodes"),
                }
            )
        except PrepError as fault:
            faults.append((entry.name, fault))
    if faults:
        raise join_errors(faults, "datasets have unusable tags")
    return infos


def _member(
    entry: ResolvedEntry,
    info: Mapping[str, Any],
    options: HeadOptions,
    delta: DeltaStats | None,
) -> HeadMember:
    config = entry.config
    columns = entry.name_map.columns
    if not columns and not entry.meta.features:
        raise MetadataError(
            "has no usable features",
            where=entry.meta.info_path,
            hint="Write name, dtype, shape and names of each column.",
        )
    imagenet = _imagenet_columns(entry, options)
    source = _column_stats(entry, options, imagenet)
    native = native_stats(
        source,
        name_map=columns,
        num_cams=options.num_cams,
        state_index=config.state_index,
        action_index=config.action_index,
        repo_id=entry.name,
        delta_stats=None if delta is None else delta.stats,
        imagenet=imagenet,
    )
    stats = standardize_native(
        native,
        max_state_dim=options.max_state_dim,
        max_action_dim=options.max_action_dim,
        num_cams=options.num_cams,
        truncate_dims=options.truncate_dims,
        repo_id=entry.name,
    )
    key, is_fallback = compute_norm_key(info["robot_type"], info["control_mode"], entry.name)
    weight = head_weight(info, entry.name)
    dims = (native_width(native["state"]), native_width(native["actions"]))
    return HeadMember(entry, info, key, is_fallback, weight, stats, dims, delta)


def _delta_stats(
    entry: ResolvedEntry, mixture: Mixture, options: HeadOptions, artifact_root: Path | None
) -> DeltaStats | None:
    if not entry.config.use_delta_joint_actions:
        return None
    from opentau_prep.stats.delta import load_delta_stats

    return load_delta_stats(
        entry, mixture, chunk_size=options.chunk_size, artifact_root=artifact_root
    )


def _column_stats(
    entry: ResolvedEntry, options: HeadOptions, imagenet: Collection[str]
) -> StatsView:
    columns = entry.name_map.columns
    names = (*VECTOR_FEATURES, *(f"camera{i}" for i in range(options.num_cams)))
    wanted = {columns[name]: None for name in names if name in columns}
    found = entry.stats_of(list(wanted))
    # The error about a missing column lists all that there are.
    return found if wanted.keys() <= {*found, *imagenet} else entry.stats


def _imagenet_columns(entry: ResolvedEntry, options: HeadOptions) -> Collection[str]:
    """Return the cameras whose own stats training replaces: columns that info.json calls so.

    Source: OpenTau 0b153a9, `make_dataset`: a repo id with "dummy" in it is exempt.
    """
    if not (options.num_cams and entry.config.use_imagenet_stats) or "dummy" in entry.config.id:
        return ()
    dtypes = parse_dtypes(entry.meta.info, entry.meta.info_path)
    return {column for column, dtype in dtypes.items() if dtype in CAMERA_DTYPES}


def _say_truncated(members: Sequence[HeadMember]) -> None:
    cut = {
        member.name: [
            f"{feature} {width} -> {len(member.stats[feature]['mean'])}"
            for feature, width in zip(VECTOR_FEATURES, member.raw_dims, strict=True)
            if width > len(member.stats[feature]["mean"])
        ]
        for member in members
    }
    parts = [f"{name} ({', '.join(dims)})" for name, dims in cut.items() if dims]
    if parts:
        shown, suffix = shorten_names(parts)
        warn(
            "truncated_dims",
            f"dims beyond the maximum are cut off: {', '.join(shown)}{suffix}",
            datasets=[name for name, dims in cut.items() if dims],
        )


@dataclass(frozen=True, slots=True)
class VqaMember:
    """A vqa entry as a member of a head.

    Attributes:
        index: Its position among all entries of the mixture.
        name: Its mixture-level name.
        info: `robot_type` and `control_mode`, where the entry sets them.
        norm_key: Its head's key.
        is_fallback: Whether that is its own name, for lack of a tag.
        stats: Its standardized stats.
        weight: What it weighs in a shared head.
        raw_dims: Width of state and actions before padding.
    """

    index: int
    name: str
    info: Mapping[str, Any]
    norm_key: str
    is_fallback: bool
    stats: StatsView
    weight: float = 1.0  # training has no `total_frames` of these
    raw_dims: tuple[int, int] = (1, 1)

    def kept_dims(self, feature: str) -> int:
        """Return how many dims of `state` or `actions` are not padding."""
        return 1


def vqa_members(resolved: ResolvedMixture, options: HeadOptions) -> list[VqaMember]:
    """Return the vqa entries of a mixture as members of heads, in mixture order.

    Notice: `vqa_num_samples`, when entries do not say how many samples they have.

    Args:
        resolved: The mixture.
        options: Widths and cameras.
    """
    if not resolved.vqa:
        return []
    chosen = set(resolved.vqa)
    named = enumerate(zip(resolved.mixture.dataset_names, resolved.mixture.datasets, strict=True))
    entries = [(index, name, config) for index, (name, config) in named if name in chosen]
    silent = [name for _, name, config in entries if config.num_samples is None]
    if silent:
        warn(
            "vqa_num_samples",
            f"no metadata tells how many samples these vqa entries have: {some_names(silent)}; the"
            " `count` in their stats is 1. Nothing that normalizes reads it; set num_samples in"
            " the entry for the same `count` as training's",
            datasets=silent,
        )
    return [_vqa_member(index, name, config, options) for index, name, config in entries]


def _vqa_member(index: int, name: str, config: DatasetEntry, options: HeadOptions) -> VqaMember:
    key, is_fallback = compute_norm_key(config.robot_type, config.control_mode, name)
    info = {"robot_type": config.robot_type, "control_mode": config.control_mode}
    stats = standardize_native(
        _vqa_stats(config.num_samples or 1, options.num_cams),
        max_state_dim=options.max_state_dim,
        max_action_dim=options.max_action_dim,
        num_cams=options.num_cams,
        repo_id=name,
    )
    return VqaMember(index, name, info, key, is_fallback, stats)


def _vqa_stats(num_samples: int, num_cams: int) -> dict[str, dict[str, NDArray[Any]]]:
    """Return a vqa dataset's stats, float64 (those of a robot dataset's cameras are float32).

    Source: OpenTau 0b153a9, `VQADataset.create_meta`.
    """
    features = ("state", "actions")
    stats = {f: {s: np.zeros(1) for s in ("min", "max", "mean", "std")} for f in features}
    if num_cams:
        stats["camera0"] = imagenet_stats(np.float64)
    return {f: {**entry, "count": np.array([num_samples])} for f, entry in stats.items()}


def dim_names(entry: ResolvedEntry, feature: str, width: int) -> tuple[str, ...]:
    """Return the names that info.json gives the dims which are used; empty unless all have one.

    Args:
        entry: The dataset.
        feature: `state` or `actions`.
        width: How many dims are used, after `state_index` or `action_index`.
    """
    declared = entry.meta.features.get(entry.name_map.columns[feature])
    names = declared.names if declared is not None else ()
    index = entry.config.state_index if feature == "state" else entry.config.action_index
    order = range(len(names)) if index is None else index
    if len(order) < width or max(order, default=0) >= len(names):
        return ()
    return tuple(names[i] for i in order)[:width]


def gripper_dims(names: Sequence[str]) -> tuple[int, ...]:
    """Return the dims whose names are those of grippers or fingers."""
    return tuple(
        i for i, name in enumerate(names) if any(w in name.lower() for w in _GRIPPER_WORDS)
    )
