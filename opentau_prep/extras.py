"""Packages that only some of the commands need: loaded when they are, else how to install them."""

from __future__ import annotations

import importlib
from typing import Any

from opentau_prep.errors import EngineError

__all__ = ["optional_package"]


def optional_package(name: str, *, extra: str, what: str, where: str) -> Any:
    """Return a module of a package that not every installation has.

    Args:
        name: The module.
        extra: Our extra that installs it.
        what: What needs it, as the message begins.
        where: The option or root that asked for that.

    Raises:
        EngineError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            f"{what} needs the package {name.partition('.')[0]}",
            where=where,
            hint=f"Install it: pip install 'opentau-prep[{extra}]'.",
        ) from error
