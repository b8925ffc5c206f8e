"""The rows of vqa entries: training gives each a norm head, though it has no robot data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.heads.keys import compute_norm_key
from opentau_prep.heads.standardize import imagenet_stats, standardize_native
from opentau_prep.notices import some_names, warn

if TYPE_CHECKING:
    from opentau_prep.config.schema import DatasetEntry
    from opentau_prep.heads.options import HeadOptions
    from opentau_prep.metadata.records import StatsView
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = ["VqaMember", "vqa_members"]


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
    return [_member(index, name, config, options) for index, name, config in entries]


def _member(index: int, name: str, config: DatasetEntry, options: HeadOptions) -> VqaMember:
    key, is_fallback = compute_norm_key(config.robot_type, config.control_mode, name)
    info = {"robot_type": config.robot_type, "control_mode": config.control_mode}
    stats = standardize_native(
        _native_stats(config.num_samples or 1, options.num_cams),
        max_state_dim=options.max_state_dim,
        max_action_dim=options.max_action_dim,
        num_cams=options.num_cams,
        repo_id=name,
    )
    return VqaMember(index, name, info, key, is_fallback, stats)


def _native_stats(num_samples: int, num_cams: int) -> dict[str, dict[str, NDArray[Any]]]:
    """Return a vqa dataset's stats, float64 (those of a robot dataset's cameras are float32).

    Source: OpenTau 0b153a9, `VQADataset.create_meta`.
    """
    features = ("state", "actions")
    stats = {f: {s: np.zeros(1) for s in ("min", "max", "mean", "std")} for f in features}
    if num_cams:
        stats["camera0"] = imagenet_stats(np.float64)
    return {f: {**entry, "count": np.array([num_samples])} for f, entry in stats.items()}
