"""What a mixture says about its validation samples: sets, heads, weights, control modes.

Metadata alone is read: episode tables and info.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.errors import DataError
from opentau_prep.heads.keys import group_by_key
from opentau_prep.notices import shorten_names
from opentau_prep.val_loss.mixture import ValidationSet
from opentau_prep.val_loss.provenance import Provenance
from opentau_prep.val_loss.samples import Cell

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["MixtureSources", "mixture_sources", "selected_frames", "validation_sets"]


@dataclass(frozen=True)
class MixtureSources:
    """The provenance of a mixture's samples; stands in for `NormHeads` in `GroupedLosses.result`.

    Attributes:
        norm_keys: Norm keys by head row.
        dataset_to_norm_index: Mixture-level name -> head row, in mixture order.
        norm_key_to_dataset_names: Norm key -> its members.
        weights: Mixture-level name -> mixture weight.
        weights_from: `mixture`, or `selected_frames` where the mixture's weights are null.
        control_modes: Mixture-level name -> control mode, after the entry's override.
        headless: Names of the entries without robot data, and so without a head.
    """

    norm_keys: tuple[str, ...]
    dataset_to_norm_index: Mapping[str, int]
    norm_key_to_dataset_names: Mapping[str, Sequence[str]]
    weights: Mapping[str, float]
    weights_from: str
    control_modes: Mapping[str, str | None]
    headless: frozenset[str] = frozenset()

    def check(self, cell: Cell) -> None:
        """Check that a sample's dataset is in the mixture, and its head row that of the dataset.

        Raises:
            DataError: It is not.
        """
        if cell.dataset not in self.dataset_to_norm_index and cell.dataset not in self.headless:
            names = [*self.dataset_to_norm_index, *sorted(self.headless)]
            shown, more = shorten_names(names)
            raise DataError(
                f"dataset {cell.dataset!r} is not in the mixture, which has "
                f"{', '.join(shown)}{more}",
                hint="Pass the mixture that the run was trained on.",
            )
        Provenance.of(self).check([cell])


def mixture_sources(resolved: ResolvedMixture) -> MixtureSources:
    """Return what a mixture says about its samples.

    Head rows and members are those of `build_norm_heads`, from the same rule; no stats are read.
    Null weights stand for the selected frames of each dataset, as in training.

    Raises:
        ConfigError: Names collide, or a selection is faulty.
        MetadataError: A tag in an info.json is not a string.
    """
    entries = resolved.entries
    infos = [{"robot_type": e.robot_type, "control_mode": e.control_mode} for e in entries]
    groups = group_by_key([entry.name for entry in entries], infos)
    row_of = {name: row for row, names in enumerate(groups.members.values()) for name in names}
    written = resolved.mixture.weights
    if written is None:
        weights = {entry.name: float(selected_frames(entry)) for entry in entries}
    else:
        weights = {entry.name: written[entry.index] for entry in entries}
    return MixtureSources(
        norm_keys=tuple(groups.members),
        dataset_to_norm_index={entry.name: row_of[entry.name] for entry in entries},
        norm_key_to_dataset_names=groups.members,
        weights=weights,
        weights_from="selected_frames" if written is None else "mixture",
        control_modes={entry.name: entry.control_mode for entry in entries},
        headless=frozenset(resolved.vqa),
    )


def validation_sets(resolved: ResolvedMixture) -> list[ValidationSet]:
    """Return each robot dataset's part in validation, in mixture order.

    A dataset's ratio is its entry's `val_split_ratio`, or else the mixture's.

    Raises:
        ConfigError: A selection is faulty.
        MetadataError: An episode table is missing or malformed.
    """
    usual = resolved.mixture.val_split_ratio
    return [
        ValidationSet(
            entry.name,
            selected_frames(entry),
            usual if entry.config.val_split_ratio is None else entry.config.val_split_ratio,
        )
        for entry in resolved.entries
    ]


def selected_frames(entry: ResolvedEntry) -> int:
    """Return the number of frames in an entry's selected episodes, by the episodes table."""
    table = entry.meta.episodes
    return int(table.length[np.isin(table.episode_index, entry.episodes)].sum())
