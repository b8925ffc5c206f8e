"""Which episodes an entry selects, and the stats that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.errors import ConfigError
from opentau_prep.metadata.statsread import pool_stats
from opentau_prep.notices import some_names, warn

if TYPE_CHECKING:
    from opentau_prep.metadata.dataset import DatasetMetadata
    from opentau_prep.metadata.records import EpisodeTable, IntArray, Stats

__all__ = ["select_episodes", "selected_stats"]


def select_episodes(
    table: EpisodeTable,
    *,
    episodes: Sequence[int] | None = None,
    excluded_episodes: Sequence[int] | None = None,
    where: str,
) -> IntArray:
    """Return the selected episodes: `episodes` (or all) without the excluded ones, sorted.

    Args:
        table: The dataset's episodes.
        episodes: `episode_index` values; None for all.
        excluded_episodes: Left out; those that do not exist have no effect.
        where: The entry's place, for errors.

    Returns:
        (E,) int64, increasing, at least one.

    Raises:
        ConfigError: An episode does not exist, or nothing is left.
    """
    chosen = set(table.episode_index.tolist()) if episodes is None else {int(e) for e in episodes}
    unknown = sorted(e for e in chosen if e not in table)
    if unknown:
        raise ConfigError(
            f"selects episodes that the dataset does not have: "
            f"{some_names(unknown)} (it has {len(table):,})",
            where=where,
            hint="Correct `episodes`.",
        )
    kept = sorted(chosen.difference(int(e) for e in excluded_episodes or ()))
    if not kept:
        raise ConfigError(
            f"no episode is left of {len(chosen):,} after excluded_episodes",
            where=where,
            hint="Select at least one episode, or remove the entry.",
        )
    return np.array(kept, dtype=np.int64)


def selected_stats(meta: DatasetMetadata, episodes: IntArray | None) -> Stats:
    """Return the stats that training uses for a selection of episodes.

    Args:
        meta: The dataset.
        episodes: The selected `episode_index` values, or None for the whole dataset.

    Returns:
        The dataset's own stats without a selection; with one, the aggregate of the selected
        episodes' stats weighted by their `count`. A dataset without stats an episode (v2.0) gives
        its whole stats instead, with a notice.

    Raises:
        MetadataError: The stats are missing or malformed.
    """
    if episodes is None:
        return meta.stats
    own = meta.stacked_stats
    rows = own.rows_of(episodes) if own is not None else None
    if own is not None and rows is not None:
        return pool_stats(own, meta.repo_id, rows)
    warn(
        "whole_stats_for_selection",
        f"{meta.repo_id}: not all of the {len(episodes):,} selected episodes have stats of their"
        " own; using the whole dataset's stats",
        dataset=meta.repo_id,
    )
    return meta.stats
