"""Rooms whose public names are imported when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["names_of"]


def names_of(room: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a room: it imports a name from its module.

    Args:
        room: The room's `__name__`.
        homes: Public name -> the module that has it; within the room where it begins with a dot.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name], room), name)

    return load
