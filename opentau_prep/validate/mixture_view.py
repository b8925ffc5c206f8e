"""The mixture as the rules see it: its file, its faults, and its datasets as members of heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentau_prep.errors import PrepError
from opentau_prep.metadata.info import as_integer
from opentau_prep.notices import collect_notices

if TYPE_CHECKING:
    from pathlib import Path

    from opentau_prep.config.salvage import Salvage
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.heads.members import HeadMember
    from opentau_prep.metadata.records import StatsView
    from opentau_prep.metadata.resolve import ResolvedEntry
    from opentau_prep.validate.view import CheckOptions, DatasetView

__all__ = ["MAX_DIM", "MixtureView", "members_of", "tags_of"]

MAX_DIM = 32
_TAGS = ("robot_type", "control_mode")


@dataclass(frozen=True)
class MixtureView:
    """What rules on a mixture may look at.

    Attributes:
        subject: The mixture, or what is left of it, and what is wrong with its file.
        lost: (entry name, why) of the datasets that were not found.
        members: Those that were, in mixture order. One whose stats cannot be used has none; one
            of which not even the widths are known has the widths 0.
        options: What is looked for.
        context: Where the mixture's own outputs are.
    """

    subject: Salvage
    lost: Sequence[tuple[str, PrepError]]
    members: Sequence[HeadMember]
    options: CheckOptions
    context: RunContext

    @property
    def mixture(self) -> Mixture | None:
        """As written, or what is left of it."""
        return self.subject.mixture

    def output(self, artifact: str) -> Path | None:
        """Return where something made for a mixture file is; see `RunContext.prep_path`."""
        if self.mixture is None or self.subject.path is None:
            return None
        return self.context.prep_path(self.mixture, artifact)


def tags_of(member: HeadMember) -> tuple[str, str]:
    """Return robot_type and control_mode, stripped; empty where missing or `unknown`."""
    texts = [str(member.info.get(name) or "").strip() for name in _TAGS]
    robot, mode = ("" if text.lower() == "unknown" else text for text in texts)
    return robot, mode


def members_of(view: DatasetView) -> list[HeadMember]:
    """Return each entry that names a dataset as a member of a head; what is broken is left out."""
    with collect_notices():
        pairs = zip(view.entries, view.named_by, strict=True)
        # The entry goes back without the tables that were read through it.
        return [_member(view, own, entry) for own, entry in pairs]


def _member(view: DatasetView, own: ResolvedEntry, entry: ResolvedEntry) -> HeadMember:
    from opentau_prep.heads.keys import compute_norm_key
    from opentau_prep.heads.members import HeadMember

    info: dict[str, Any] = {"total_frames": as_integer((view.info or {}).get("total_frames"))}
    for tag in _TAGS:
        override = getattr(own.config, tag)
        value = override if override is not None else (view.info or {}).get(tag)
        info[tag] = value if isinstance(value, str) else None
    key, is_fallback = compute_norm_key(info["robot_type"], info["control_mode"], own.name)
    dims, stats = _standardized(view, own)
    weight = float(info["total_frames"] or 1)
    return HeadMember(entry, info, key, is_fallback, weight, stats, dims)


def _standardized(view: DatasetView, entry: ResolvedEntry) -> tuple[tuple[int, int], StatsView]:
    if view.stats is None or not view.features:
        return (0, 0), {}
    options: Mapping[str, Any] = {
        "name_map": entry.name_map.columns,
        "state_index": entry.config.state_index,
        "action_index": entry.config.action_index,
        "repo_id": entry.name,
    }
    from opentau_prep.heads.standardize import raw_dims, standardize_stats

    dims = (0, 0)
    try:
        dims = raw_dims(entry.stats, **options)
        widest = max(MAX_DIM, *dims)
        return dims, standardize_stats(
            entry.stats, max_state_dim=widest, max_action_dim=widest, **options
        )
    except PrepError:
        return dims, {}
