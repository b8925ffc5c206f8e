"""The norm heads' part of the report: each dim's range, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.heads.audit import AuditReport
from opentau_prep.heads.compute import summarize_heads
from opentau_prep.normalization import Convention
from opentau_prep.text import several
from opentau_prep.verdict.details import DimFacts, HeadFacts, HeadsFacts

if TYPE_CHECKING:
    from opentau_prep.heads.members import HeadMember
    from opentau_prep.heads.mixture import MixtureHeads
    from opentau_prep.heads.options import HeadOptions
    from opentau_prep.heads.report import HeadSummary

__all__ = ["heads_facts", "off_heads"]

_ZERO_RANGE = Convention.of("MIN_MAX").epsilon


def heads_facts(built: MixtureHeads, options: HeadOptions, audit: AuditReport) -> HeadsFacts:
    """Return the heads with every dim that holds data."""
    members = {member.name: member for member in built.members}
    heads = []
    for summary in summarize_heads(built):
        robots = [members[name] for name in summary.members if name in members]
        first = robots[0] if robots else None  # a head of vqa entries only
        stats = built.heads.per_norm_key_stats[summary.row]
        heads.append(
            HeadFacts(
                summary.key,
                summary.row,
                summary.members,
                summary.frames,
                summary.is_fallback,
                any(member.entry.is_subset for member in robots),
                _dims(summary, first, "state", stats["state"], summary.state_dim),
                _dims(summary, first, "actions", stats["actions"], summary.action_dim),
            )
        )
    return HeadsFacts(
        heads,
        options.as_json(),
        [finding.message for finding in audit.findings],
        {head.norm_key: head.tests for head in audit.heads},
    )


def off_heads(facts: HeadsFacts) -> list[str]:
    """Return the heads that have a pooled quantile which is not what its name claims, in words."""
    words = []
    for head in facts.heads:
        off = sum(bool(dim.notes) for dim in (*head.state, *head.actions))
        if off:
            words.append(f"{head.key}: {several(off, 'dim')}")
    return words


def _dims(
    summary: HeadSummary,
    first: HeadMember | None,
    feature: str,
    stats: Mapping[str, Any],
    width: int,
) -> list[DimFacts]:
    names = () if first is None else _names(first, feature)
    notes: dict[int, list[str]] = {}
    for each in summary.ranks:
        if each.feature == feature:
            for dim in each.dims_off:
                words = f"{each.quantile} lies at {each.ranks[dim]:.1%} of the frames"
                notes.setdefault(dim, []).append(words)
    found = []
    for dim in range(width):
        low, high = float(stats["min"][dim]), float(stats["max"][dim])
        found.append(
            DimFacts(
                dim,
                names[dim] if dim < len(names) else "",
                low,
                high,
                float(stats["mean"][dim]),
                float(stats["std"][dim]),
                _at(stats, "q01", dim),
                _at(stats, "q99", dim),
                bool(np.abs(high - low) < _ZERO_RANGE),
                notes.get(dim, ()),
            )
        )
    return found


def _at(stats: Mapping[str, Any], name: str, dim: int) -> float | None:
    return float(stats[name][dim]) if name in stats else None


def _names(member: HeadMember, feature: str) -> Sequence[str]:
    """Return what the member's info.json calls the dims that are kept."""
    entry = member.entry
    declared = entry.meta.features.get(entry.name_map.columns[feature])
    names = () if declared is None else declared.names
    index = entry.config.state_index if feature == "state" else entry.config.action_index
    if index is None:
        return names
    return [names[i] if i < len(names) else "" for i in index]
