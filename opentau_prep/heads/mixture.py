"""The norm heads of a mixture, from its datasets' metadata alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.rank import Rank, main_rank_notices
from opentau_prep.heads.build import NormHeads, build_norm_heads
from opentau_prep.heads.members import HeadMember, VqaMember, read_members, vqa_members
from opentau_prep.heads.options import HeadOptions
from opentau_prep.heads.sketches import (
    QuantileRanks,
    head_sketches,
    quantile_ranks,
    warn_ranks,
    with_sketch_quantiles,
)
from opentau_prep.metadata.resolve import ResolvedMixture, resolve_mixture
from opentau_prep.storage.look import made_once

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture

__all__ = ["MixtureHeads", "build_mixture_heads", "mixture_norm_heads"]


@dataclass(frozen=True)
class MixtureHeads:
    """The heads of a mixture, and what they were made of.

    Attributes:
        heads: The heads.
        members: The robot datasets, in mixture order.
        vqa: The vqa entries, in mixture order: each has a row, too.
        ranks: Norm key -> which true quantiles its pooled q01 and q99 are, where that is known.
    """

    heads: NormHeads
    members: Sequence[HeadMember]
    ranks: Mapping[str, Sequence[QuantileRanks]]
    vqa: Sequence[VqaMember] = ()

    @property
    def everyone(self) -> list[HeadMember | VqaMember]:
        """All members of heads, in mixture order."""
        return _in_order(self.members, self.vqa)


def mixture_norm_heads(
    mixture: Mixture | ResolvedMixture,
    *,
    max_state_dim: int,
    max_action_dim: int,
    num_cams: int = 0,
    **options: Any,
) -> NormHeads:
    """Return the heads that training would normalize a mixture's datasets with, bit for bit.

    Reads metadata only. See `read_members` and `build_norm_heads` for the notices.

    Args:
        mixture: From `load_mixture`, or with its datasets found already.
        max_state_dim: Width of the state in the policy.
        max_action_dim: Width of the actions in the policy.
        num_cams: Cameras that have stats in the heads.
        **options: `quantiles="sketch"` and `truncate_dims=True`; see `HeadOptions`.

    Raises:
        ConfigError: The mixture requires a tag that is empty, names collide, members of a head
            differ in their widths, an option is not valid, or dims are too many.
        MetadataError: Datasets were not found, or their stats cannot be used (all are listed).
    """
    chosen = HeadOptions(max_state_dim, max_action_dim, num_cams, **options)
    with main_rank_notices(Rank.detect()):
        resolved = mixture if isinstance(mixture, ResolvedMixture) else resolve_mixture(mixture)
        return build_mixture_heads(resolved, chosen).heads


def build_mixture_heads(
    resolved: ResolvedMixture, options: HeadOptions, *, artifact_root: Path | None = None
) -> MixtureHeads:
    """Return the heads of a mixture with their members.

    Notice: `pooled_quantile_rank` where a pooled q01 or q99 is more than 0.5 % off.

    Args:
        resolved: The mixture.
        options: Widths and the source of quantiles.
        artifact_root: Where artifacts of `stats` lie when not in the datasets.

    Raises:
        PrepError: See `mixture_norm_heads`.
    """
    key = ("heads", *map(id, resolved.entries), id(resolved.mixture), options, artifact_root)
    made = made_once(key, lambda: (resolved, _build(resolved, options, artifact_root)))
    return made[1]  # next to what it was made of, so that no other object gets its ids


def _build(
    resolved: ResolvedMixture, options: HeadOptions, artifact_root: Path | None
) -> MixtureHeads:
    members = read_members(resolved, options, artifact_root=artifact_root)
    vqa = vqa_members(resolved, options)
    everyone = _in_order(members, vqa)
    heads = build_norm_heads(
        dataset_names=[member.name for member in everyone],
        per_dataset_stats=[member.stats for member in everyone],
        metadatas=everyone,
        raw_dims=[member.raw_dims for member in everyone],
    )
    from_sketch = options.quantiles == "sketch"
    sketches = head_sketches(members, artifact_root=artifact_root, required=from_sketch)
    ranks: dict[str, Sequence[QuantileRanks]] = {}
    # Sketches are of all episodes: of a head whose members select some, they say nothing.
    selected = {member.norm_key for member in members if member.entry.is_subset}
    delta = {member.norm_key for member in members if member.delta is not None}
    for key, merged in sketches.items():
        if key in selected:
            continue
        stats = heads.per_norm_key_stats[heads.norm_key_to_index[key]]
        ranks[key] = quantile_ranks(stats, merged, binned=key in delta)
    warn_ranks(ranks)
    if from_sketch:
        own = [
            # A head of vqa entries only has no quantiles at all.
            with_sketch_quantiles(pooled, sketches[key]) if key in sketches else pooled
            for key, pooled in zip(heads.norm_keys, heads.per_norm_key_stats, strict=True)
        ]
        heads = heads._replace(per_norm_key_stats=own)
    return MixtureHeads(heads, members, ranks, vqa)


def _in_order(
    members: Sequence[HeadMember], vqa: Sequence[VqaMember]
) -> list[HeadMember | VqaMember]:
    everyone: list[HeadMember | VqaMember] = [*members, *vqa]
    return sorted(everyone, key=lambda member: member.index)
