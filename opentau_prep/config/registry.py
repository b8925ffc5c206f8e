"""Known public datasets: which column holds what."""

from __future__ import annotations

import functools
import json
from importlib import resources

__all__ = ["known_name_map"]


def known_name_map(repo_id: str) -> dict[str, str] | None:
    """Return standard feature name -> column of a known dataset, or None if it is not known.

    The table is package data (`feature_registry.json`); an entry's own
    `data_features_name_mapping` goes before it. The returned mapping is the caller's to keep.

    Args:
        repo_id: The hub id, exactly as published, such as `"lerobot/droid_100"`.
    """
    known = _registry().get(repo_id)
    return dict(known) if known is not None else None


@functools.cache
def _registry() -> dict[str, dict[str, str]]:
    file = resources.files("opentau_prep.config").joinpath("feature_registry.json")
    table: dict[str, dict[str, str]] = json.loads(file.read_text("utf-8"))
    return table
