"""Which column is which: a dataset's columns under the standard feature names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentau_prep.config.names import known_name_map
from opentau_prep.metadata.records import CAMERA_DTYPES
from opentau_prep.notices import some_names, warn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentau_prep.metadata.dataset import DatasetMetadata

__all__ = ["NameMap", "default_columns", "infer_columns", "name_map_of", "warn_inferred"]

_STATE = ("observation.state", "state", "observation.robot_state")
_ACTIONS = ("action", "actions")


@dataclass(frozen=True, slots=True)
class NameMap:
    """Standard feature name (`state`, `actions`, `camera0`, ...) -> column.

    Attributes:
        columns: The mapping.
        source: `entry`, `registry`, or `inferred`.
    """

    columns: Mapping[str, str]
    source: str


def name_map_of(meta: DatasetMetadata, given: Mapping[str, str] | None) -> NameMap:
    """Return the entry's mapping; else the registry's; else one inferred from info.json."""
    if given is not None:
        return NameMap(dict(given), "entry")
    known = known_name_map(meta.repo_id)
    if known is not None:
        return NameMap(known, "registry")
    return NameMap(meta.inferred_columns, "inferred")


def infer_columns(dtypes: Mapping[str, str]) -> dict[str, str]:
    """Return standard feature name -> column, as far as usual names and dtypes tell.

    Args:
        dtypes: Column -> dtype, in info.json's order, which is that of the cameras.
    """
    cameras = [name for name, dtype in dtypes.items() if dtype in CAMERA_DTYPES]
    columns = {f"camera{i}": name for i, name in enumerate(cameras)}
    return {**columns, **default_columns(dtypes)}


def default_columns(present: Collection[str]) -> dict[str, str]:
    """Return `state` and `actions` -> column, of those that usual names are there for."""
    columns = {}
    for standard, candidates in (("state", _STATE), ("actions", _ACTIONS)):
        for column in candidates:
            if column in present:
                columns[standard] = column
                break
    return columns


def warn_inferred(maps: Iterable[tuple[str, NameMap]]) -> None:
    """Say which columns were inferred: one notice for all datasets with the same outcome.

    Args:
        maps: Dataset name and its mapping, in mixture order.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for name, mapping in maps:
        if mapping.source == "inferred":
            pair = (mapping.columns.get("state", "-"), mapping.columns.get("actions", "-"))
            groups.setdefault(pair, []).append(name)
    for (state, actions), names in groups.items():
        warn(
            "inferred_columns",
            f"columns inferred for {some_names(names)}: state = {state}, actions ="
            f" {actions}; cameras in file order. Set data_features_name_mapping to be explicit",
            datasets=names,
            state=state,
            actions=actions,
        )
