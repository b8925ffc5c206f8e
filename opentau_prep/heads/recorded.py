"""The options that a mixture's heads were made with, for a run in which nobody chose any."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from opentau_prep.artifacts import Recipe
from opentau_prep.artifacts.place import file_place
from opentau_prep.artifacts.provenance import describe_changes
from opentau_prep.artifacts.store import inspect
from opentau_prep.errors import ConfigError
from opentau_prep.heads.options import HeadOptions
from opentau_prep.notices import warn

__all__ = ["recorded_head_options"]


def recorded_head_options(out: Path) -> HeadOptions:
    """Return the options on record beside the mixture's file, or the defaults.

    Notice: `kept_options` where they are not the defaults.

    Args:
        out: The mixture's file.
    """
    provenance = inspect(file_place("norm_heads", out), Recipe("heads", {})).provenance
    recorded = {} if provenance is None else provenance.parameters
    try:
        known = [each.name for each in fields(HeadOptions) if each.name in recorded]
        kept = HeadOptions(**{name: recorded[name] for name in known})
    except (ConfigError, TypeError):  # a record that nobody of ours wrote
        return HeadOptions()
    changes = describe_changes(HeadOptions().as_json(), kept.as_json())
    if changes:
        warn(
            "kept_options",
            f"{out} was made with options of its own ({', '.join(changes)}): they are kept;"
            " --force takes the defaults",
            changes=changes,
        )
    return kept
