"""Where the numbers of a head come from: contributors, weights, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ConfigError
from opentau_prep.heads.build import NormHeads
from opentau_prep.heads.members import VECTOR_FEATURES, HeadMember, VqaMember
from opentau_prep.notices import shorten_names
from opentau_prep.pooling import PooledFeature, is_quantile, pool_feature

if TYPE_CHECKING:
    from opentau_prep.heads.mixture import MixtureHeads

__all__ = ["Contribution", "DimExplanation", "ExplainTarget", "explain", "parse_target"]


@dataclass(frozen=True)
class ExplainTarget:
    """What to explain.

    Attributes:
        dataset: A mixture-level name.
        feature: A feature of its head; None for state and actions.
        dim: A dim of that feature; None for all that hold data.
    """

    dataset: str
    feature: str | None = None
    dim: int | None = None


@dataclass(frozen=True)
class Contribution:
    """What one dataset brings to one dim of a head.

    Attributes:
        dataset: Its mixture-level name.
        source: The column and its dim that the numbers are of; None where they are padding.
        weight: What its mean and variance are weighted with; 1 in a head of one.
        values: Stat -> its value.
        masked: The stats to which it does not contribute, since its value is not finite there.
    """

    dataset: str
    source: str | None
    weight: float
    values: dict[str, float]
    masked: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the contribution JSON-ready."""
        return {
            "dataset": self.dataset,
            "source": self.source,
            "weight": self.weight,
            "values": self.values,
            "masked": list(self.masked),
        }


@dataclass(frozen=True)
class DimExplanation:
    """One dim of one feature of a head.

    Attributes:
        norm_key: The head.
        feature: The feature.
        dim: The dim.
        values: Stat -> the head's number.
        how: `verbatim` (a head of one dataset), `pooled`, or `pooled, quantiles from sketches`.
        contributions: One per member that has the feature, in mixture order.
        dropped_quantiles: Those that some members have and others lack.
    """

    norm_key: str
    feature: str
    dim: int
    values: dict[str, float]
    how: str
    contributions: Sequence[Contribution]
    dropped_quantiles: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the explanation JSON-ready."""
        return {
            "norm_key": self.norm_key,
            "feature": self.feature,
            "dim": self.dim,
            "values": self.values,
            "how": self.how,
            "contributions": [each.as_json() for each in self.contributions],
            "dropped_quantiles": list(self.dropped_quantiles),
        }


def parse_target(text: str, heads: NormHeads) -> ExplainTarget:
    """Return what `DATASET`, `DATASET:feature` or `DATASET:feature:dim` means.

    A name may hold colons itself: the longest that is a dataset of the mixture counts.

    Raises:
        ConfigError: There is no such dataset, feature or dim.
    """
    parts = text.split(":")
    for cut in range(len(parts), max(len(parts) - 3, 0), -1):
        name, rest = ":".join(parts[:cut]), parts[cut:]
        if name in heads.dataset_to_norm_index:
            return _target(name, rest, heads)
    shown, suffix = shorten_names(heads.dataset_to_norm_index)
    raise ConfigError(
        f"there is no dataset {text!r} in the mixture",
        where="--explain",
        hint=f"Name one of {', '.join(shown)}{suffix}, then :feature or :feature:dim.",
    )


def explain(built: MixtureHeads, target: ExplainTarget, *, quantiles: str) -> list[DimExplanation]:
    """Return where each number of the target's dims comes from.

    Args:
        built: The heads with their members.
        target: From `parse_target`.
        quantiles: Where the heads' quantiles come from, `pooled` or `sketch`.
    """
    row = built.heads.dataset_to_norm_index[target.dataset]
    key = built.heads.norm_keys[row]
    members = [member for member in built.everyone if member.norm_key == key]
    features = VECTOR_FEATURES if target.feature is None else (target.feature,)
    found = []
    for feature in features:
        stats = built.heads.per_norm_key_stats[row][feature]
        pooled = _pooled(members, feature)
        dims = _dims(members, feature, stats) if target.dim is None else [target.dim]
        for dim in dims:
            contributions = _contributions(members, feature, dim, pooled)
            how = "verbatim" if pooled is None else "pooled"
            if quantiles == "sketch":
                how += ", quantiles from sketches"
            values = _at(stats, dim)
            dropped = () if pooled is None else pooled.dropped_quantiles
            found.append(DimExplanation(key, feature, dim, values, how, contributions, dropped))
    return found


def _target(name: str, rest: list[str], heads: NormHeads) -> ExplainTarget:
    if not rest:
        return ExplainTarget(name)
    stats = heads.per_norm_key_stats[heads.dataset_to_norm_index[name]]
    if rest[0] not in stats:
        raise ConfigError(
            f"there is no feature {rest[0]!r} in the head of {name}",
            where="--explain",
            hint=f"Name one of {', '.join(stats)}.",
        )
    if len(rest) == 1:
        return ExplainTarget(name, rest[0])
    width = stats[rest[0]]["mean"].size
    if not (rest[1].isascii() and rest[1].isdigit()) or int(rest[1]) >= width:
        raise ConfigError(
            f"{rest[1]!r} is no dim of {rest[0]}",
            where="--explain",
            hint=f"Dims go from 0 to {width - 1}.",
        )
    return ExplainTarget(name, rest[0], int(rest[1]))


def _pooled(members: Sequence[HeadMember | VqaMember], feature: str) -> PooledFeature | None:
    if len(members) == 1:
        return None
    weights = [member.weight for member in members]
    return pool_feature([member.stats for member in members], feature, weights=weights)


def _dims(
    members: Sequence[HeadMember | VqaMember], feature: str, stats: dict[str, NDArray[Any]]
) -> Sequence[int]:
    if feature in VECTOR_FEATURES:
        return range(members[0].kept_dims(feature))
    return range(stats["mean"].size)


def _contributions(
    members: Sequence[HeadMember | VqaMember], feature: str, dim: int, pooled: PooledFeature | None
) -> list[Contribution]:
    positions = (0,) if pooled is None else pooled.contributors
    found = []
    for n, position in enumerate(positions):
        member = members[position]
        masked: tuple[str, ...] = ()
        if pooled is not None:
            flat = {stat: mask[n].reshape(-1) for stat, mask in pooled.masks.items()}
            masked = tuple(stat for stat, mask in flat.items() if not mask[dim])
        weight = 1.0 if pooled is None else float(pooled.weights[n])
        values = _at(member.stats[feature], dim)
        source = _source(member, feature, dim)
        found.append(Contribution(member.name, source, weight, values, masked))
    return found


def _source(member: HeadMember | VqaMember, feature: str, dim: int) -> str | None:
    if isinstance(member, VqaMember):
        return None
    columns = member.entry.name_map.columns
    if feature not in columns:
        return None
    if feature not in VECTOR_FEATURES:
        return f"{columns[feature]}[{dim}]"
    if dim >= member.kept_dims(feature):
        return None
    config = member.entry.config
    index = config.state_index if feature == "state" else config.action_index
    delta = " (delta)" if feature == "actions" and config.use_delta_joint_actions else ""
    return f"{columns[feature]}[{dim if index is None else index[dim]}]{delta}"


def _at(stats: Mapping[str, NDArray[Any]], dim: int) -> dict[str, float]:
    ordered = sorted(stats, key=lambda stat: (is_quantile(stat), stat == "count"))
    return {
        stat: float(np.reshape(stats[stat], -1)[0 if stat == "count" else dim]) for stat in ordered
    }
