"""What the mixture's rules need to know of each dataset: small, and sent between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import PrepError
from opentau_prep.metadata.info import as_integer
from opentau_prep.notices import collect_notices

if TYPE_CHECKING:
    from opentau_prep.config.schema import DatasetEntry
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.metadata.resolve import ResolvedEntry
    from opentau_prep.validate.view import DatasetView

__all__ = ["MAX_DIM", "EntryFacts", "collect_facts"]

MAX_DIM = 32
Stats = Mapping[str, Mapping[str, npt.NDArray[Any]]]


@dataclass(frozen=True)
class EntryFacts:
    """One entry's dataset.

    Attributes:
        index: The entry's position in the mixture.
        name: Its mixture-level name.
        info: `robot_type`, `control_mode` (after overrides) and `total_frames`.
        episodes: The selected episodes; None where the table cannot be read.
        dims: (state width, action width) after column selection; None without usable stats.
        stats: Its standardized stats; None where they cannot be made.
        root: The dataset's folder.
        config: The entry as written.
        layout: The names of the state's and the actions' dims, as info.json gives them.
    """

    index: int
    name: str
    info: Mapping[str, Any]
    episodes: IntArray | None
    dims: tuple[int, int] | None
    stats: Stats | None
    root: str
    config: DatasetEntry
    layout: tuple[tuple[str, ...], ...] = ()

    @property
    def tags(self) -> tuple[str, str]:
        """Return robot_type and control_mode, stripped; empty where missing or `unknown`."""
        texts = [str(self.info.get(n) or "").strip() for n in ("robot_type", "control_mode")]
        robot, mode = ("" if text.lower() == "unknown" else text for text in texts)
        return robot, mode


def collect_facts(view: DatasetView) -> list[EntryFacts]:
    """Return the facts of each entry that names the dataset; what is broken is left out."""
    with collect_notices():
        return [_facts(view, entry) for entry in view.entries]


def _facts(view: DatasetView, entry: ResolvedEntry) -> EntryFacts:
    info: dict[str, Any] = {"total_frames": as_integer((view.info or {}).get("total_frames"))}
    for tag in ("robot_type", "control_mode"):
        override = getattr(entry.config, tag)
        value = override if override is not None else (view.info or {}).get(tag)
        info[tag] = value if isinstance(value, str) else None
    dims, stats = _standardized(view, entry)
    return EntryFacts(
        entry.index,
        entry.name,
        info,
        _selected(view, entry),
        dims,
        stats,
        view.target.root,
        entry.config,
        _layout(view),
    )


def _layout(view: DatasetView) -> tuple[tuple[str, ...], ...]:
    features = view.features or {}
    columns = [view.vectors.get(name) for name in ("state", "actions")]
    found = [features[column].names for column in columns if column is not None]
    return tuple(found) if len(found) == 2 and all(found) else ()


def _selected(view: DatasetView, entry: ResolvedEntry) -> IntArray | None:
    if view.episodes is None:
        return None
    try:
        return entry.episodes
    except PrepError:
        return np.zeros(0, dtype=np.int64)


def _standardized(
    view: DatasetView, entry: ResolvedEntry
) -> tuple[tuple[int, int] | None, Stats | None]:
    if view.stats is None or not view.features:
        return None, None
    options: dict[str, Any] = {
        "name_map": entry.name_map.columns,
        "state_index": entry.config.state_index,
        "action_index": entry.config.action_index,
        "repo_id": entry.name,
    }
    from opentau_prep.heads.standardize import raw_dims, standardize_stats

    dims = None
    try:
        dims = raw_dims(entry.stats, **options)
        widest = max(MAX_DIM, *dims)
        stats = standardize_stats(
            entry.stats, max_state_dim=widest, max_action_dim=widest, **options
        )
    except PrepError:
        return dims, None
    return dims, stats
