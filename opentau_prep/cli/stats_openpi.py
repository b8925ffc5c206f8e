"""The openpi half of `opentau-prep stats`."""

from __future__ import annotations

from collections.abc import Mapping

from opentau_prep.errors import ConfigError

__all__ = ["refuse_options"]


def refuse_options(given: Mapping[str, object]) -> None:
    """Refuse options that only the openpi format has.

    Raises:
        ConfigError: One was given.
    """
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ConfigError(
            f"{', '.join(names)} belong to the openpi format",
            hint="Add --format openpi, or leave them out.",
        )
