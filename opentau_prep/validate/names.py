"""The names of a feature's dims, however they are nested."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["flat_names"]


def flat_names(names: object) -> list[object]:
    """Return the names of a list, a list of lists or an object of lists, in order."""
    if isinstance(names, Mapping):
        return [leaf for value in names.values() for leaf in flat_names(value)]
    if isinstance(names, list):
        return [leaf for value in names for leaf in (flat_names(value) or [value])]
    return []
