"""Mixture-level dataset names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["make_dataset_names"]


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
