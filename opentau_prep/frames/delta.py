"""Delta actions: which action dim is relative to which state dim.

Two index spaces meet here. A mixture's `state_index`, `action_index` and `delta_action_state_map`
are written in parquet space: columns of the vectors on disk. What training sees are emitted
vectors, after the index selections; `resolve_delta_map` is the one translation from the first to
the second.

A policy undoes one map for all that it emits, so the robot datasets of a mixture must agree on
theirs: `mixture_delta_map`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from opentau_prep.errors import ConfigError
from opentau_prep.notices import some_names

if TYPE_CHECKING:
    from opentau_prep.config.schema import DatasetEntry

__all__ = ["entry_delta_map", "mixture_delta_map", "resolve_delta_map"]


def mixture_delta_map(entries: Iterable[tuple[str, DatasetEntry]]) -> dict[int, int] | None:
    """Return the one delta map of a mixture, or None when its actions are absolute.

    Args:
        entries: Mixture-level name and entry; vqa entries have no actions and are passed over.

    Returns:
        Position among the emitted actions -> position in the emitted state.

    Raises:
        ConfigError: Some robot datasets use delta actions and others do not, or their maps differ
            once columns are selected; or see `resolve_delta_map`.

    Source: OpenTau 0b153a9, `DatasetMixtureMetadata`, which refuses the same before training.
    """
    maps = {name: entry_delta_map(config) for name, config in entries if not config.is_vqa}
    relative = {name: found for name, found in maps.items() if found}
    if not relative:
        return None
    absolute = [name for name in maps if name not in relative]
    if absolute:
        raise ConfigError(
            f"{len(relative)} datasets use delta actions ({some_names(relative)}) and"
            f" {len(absolute)} do not ({some_names(absolute)}): a policy cannot know which of the"
            " two it emits, and training refuses the mixture",
            hint="Set use_delta_joint_actions on all robot datasets, or on none.",
        )
    first, expected = next(iter(relative.items()))
    others = [f"{name} {found}" for name, found in relative.items() if found != expected]
    if others:
        raise ConfigError(
            "the datasets' delta maps differ after state_index and action_index: expected"
            f" {expected}, as {first} has, found {some_names(others)}; training refuses the"
            " mixture, since a policy undoes one map",
            hint="Select columns so that all datasets have the same layout.",
        )
    return expected


def entry_delta_map(config: DatasetEntry) -> dict[int, int]:
    """Return an entry's delta map in the emitted vectors, empty when its actions are absolute.

    Raises:
        ConfigError: See `resolve_delta_map`.
    """
    given = config.delta_action_state_map if config.use_delta_joint_actions else None
    return resolve_delta_map(
        given or {},
        action_index=config.action_index,
        state_index=config.state_index,
        where=config.where(),
    )


def resolve_delta_map(
    parquet_map: Mapping[int, int],
    *,
    action_index: Sequence[int] | None,
    state_index: Sequence[int] | None,
    where: str,
) -> dict[int, int]:
    """Translate action dim -> state dim from parquet space to positions in the emitted vectors.

    Args:
        parquet_map: Action column -> state column, as the mixture gives it.
        action_index: The selected action columns in order, or None for all.
        state_index: The selected state columns in order, or None for all.
        where: The entry's place, for errors.

    Returns:
        Position among the emitted actions -> position in the emitted state, by action column.

    Raises:
        ConfigError: A mapped column is not among the selected ones: that dim would silently train
            on absolute actions.

    Source: OpenTau, datasets/action_indexing.py (the two index spaces and their translation).
    """
    actions = _positions(action_index)
    states = _positions(state_index)
    resolved: dict[int, int] = {}
    for action, state in sorted(parquet_map.items()):
        for what, column, positions in (("action", action, actions), ("state", state, states)):
            if positions is not None and column not in positions:
                raise ConfigError(
                    f"delta_action_state_map uses {what} column {column}, which {what}_index drops",
                    where=where,
                    hint=f"Add {column} to {what}_index, or remove it from the map.",
                )
        resolved[actions[action] if actions is not None else action] = (
            states[state] if states is not None else state
        )
    return resolved


def _positions(index: Sequence[int] | None) -> dict[int, int] | None:
    return None if index is None else {column: i for i, column in enumerate(index)}
