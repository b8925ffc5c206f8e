"""Stats as they stand in files: nested JSON lists, or flattened parquet columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.jsonread import read_json_object
from opentau_prep.metadata.records import Stats

if TYPE_CHECKING:
    from opentau_prep.storage import Storage

__all__ = ["STATS", "parse_stats", "read_stats"]

STATS = "meta/stats.json"


def read_stats(storage: Storage) -> Stats:
    """Read `meta/stats.json`: the whole dataset's stats."""
    return parse_stats(read_json_object(storage, STATS), f"{storage.url}/{STATS}")


def parse_stats(raw: object, where: str) -> Stats:
    """Turn `feature -> stat -> nested lists` into arrays, int64 or float64 as the numbers are.

    Raises:
        MetadataError: The shape is another one, or a stat is ragged or not made of numbers.
    """
    if not isinstance(raw, Mapping):
        raise MetadataError("stats must be an object: feature -> stat -> numbers", where=where)
    stats: Stats = {}
    for feature, entry in raw.items():
        if not isinstance(entry, Mapping):
            raise MetadataError(
                f"stats of {feature!r} must be an object: stat -> numbers", where=where
            )
        stats[str(feature)] = {
            str(stat): _array(value, f"{feature}/{stat}", where) for stat, value in entry.items()
        }
    return stats


def _array(value: object, place: str, where: str) -> npt.NDArray[Any]:
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        array = np.array(None)
    if array.dtype == object and array.size:
        # A null among the numbers is how some writers put NaN.
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            array = np.array(None)
    if array.dtype.kind not in "iuf" and array.size:
        raise MetadataError(
            f"stat `{place}` is not an array of numbers",
            where=where,
            hint="Compute the stats again: `opentau-prep stats`.",
        )
    array.setflags(write=False)
    return array
