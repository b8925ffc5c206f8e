"""Mixture-level dataset names, and the column names that OpenTau knows by repo id."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["known_name_map", "make_dataset_names"]


def make_dataset_names(ids: Sequence[str]) -> list[str]:
    """Return a name for each dataset of a mixture, in order.

    An id that occurs once is the name; one that occurs more often gets `#0`, `#1`, ... in order.
    Names can still collide when an id itself ends like that (`A`, `A`, `A#0`): they are returned
    as training makes them, and refused where heads are built from them.

    Args:
        ids: The `repo_id` (or `vqa`) of each dataset, in mixture order.

    Example:
        >>> make_dataset_names(["org/x", "org/y", "org/x"])
        ['org/x#0', 'org/y', 'org/x#1']
    """
    total = Counter(ids)
    seen: Counter[str] = Counter()
    names = []
    for id_ in ids:
        names.append(f"{id_}#{seen[id_]}" if total[id_] > 1 else id_)
        seen[id_] += 1
    return names


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
    file = Path(__file__).with_name("feature_registry.json")
    table: dict[str, dict[str, str]] = json.loads(file.read_text("utf-8"))
    return table
