"""What info.json calls the dims: members of a head that declare the same names in another order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentau_prep.heads.members import VECTOR_FEATURES, HeadMember

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedEntry

__all__ = ["Reordered", "dim_names", "gripper_dims", "reordered_names"]

_GRIPPER_WORDS = ("grip", "finger", "thumb", "index", "middle", "ring", "pinky", "claw", "jaw")


@dataclass(frozen=True)
class Reordered:
    """One feature of a member whose dims are declared in another order than most members'.

    Attributes:
        feature: `state` or `actions`.
        own: Its names.
        others: Those of most members that have the same names.
    """

    feature: str
    own: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The dims whose names differ."""
        pairs = zip(self.own, self.others, strict=True)
        return tuple(dim for dim, (own, other) in enumerate(pairs) if own != other)


def reordered_names(group: Sequence[HeadMember]) -> dict[str, list[Reordered]]:
    """Return member -> the features whose dims it declares in another order than the others.

    Only members whose dims have the same names, each once, are compared. What most of them have
    is right; of equally many, what came first.

    Args:
        group: The members of a head.
    """
    found: dict[str, list[Reordered]] = {}
    for feature in VECTOR_FEATURES:
        names = {m.name: dim_names(m.entry, feature, m.kept_dims(feature)) for m in group}
        orders = Counter(own for own in names.values() if own and len(set(own)) == len(own))
        usual: dict[tuple[str, ...], tuple[str, ...]] = {}
        for order, _ in orders.most_common():  # equal counts: in order of appearance
            usual.setdefault(tuple(sorted(order)), order)
        for member, own in names.items():
            others = usual.get(tuple(sorted(own)), own)
            if own in orders and own != others:
                found.setdefault(member, []).append(Reordered(feature, own, others))
    return found


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
