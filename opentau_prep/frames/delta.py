"""Delta actions: which action dim is relative to which state dim.

Two index spaces meet here. A mixture's `state_index`, `action_index` and `delta_action_state_map`
are written in parquet space: columns of the vectors on disk. What training sees are emitted
vectors, after the index selections; `resolve_delta_map` is the one translation from the first to
the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentau_prep.errors import ConfigError

__all__ = ["resolve_delta_map"]


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
