"""A dataset's own stats in the names and widths that the policy uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from opentau_prep.errors import ColumnIndexError, ConfigError, MetadataError
from opentau_prep.notices import warn

__all__ = [
    "RECOMPUTE",
    "imagenet_stats",
    "is_camera_placeholder",
    "native_stats",
    "native_width",
    "raw_dims",
    "standardize_native",
    "standardize_stats",
]

_REQUIRED = ("mean", "std", "min", "max")
RECOMPUTE = "Recompute the stats of this dataset."
"""Advice that a caller who knows the folder completes with the command."""
_VECTORS = {"state": "state_index", "actions": "action_index"}
_CAMERA_SHAPE = (3, 1, 1)
_PLACEHOLDER = {"min": 0.0, "max": 1.0, "mean": 0.0, "std": 0.0}

# Source: OpenTau 0b153a9, datasets/factory.py: replaced are min and max too.
IMAGENET = MappingProxyType(
    {
        "min": (0.0, 0.0, 0.0),
        "max": (1.0, 1.0, 1.0),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
)
"""Stat -> its value per channel: what training puts in the place of a camera's own stats."""

Array = NDArray[Any]
FeatureStats = Mapping[str, Any]


def standardize_stats(  # noqa: PLR0913 - a public signature
    stats: Mapping[str, FeatureStats],
    *,
    name_map: Mapping[str, str],
    max_state_dim: int,
    max_action_dim: int,
    num_cams: int = 0,
    state_index: Sequence[int] | None = None,
    action_index: Sequence[int] | None = None,
    repo_id: str = "",
    delta_stats: Mapping[str, FeatureStats] | None = None,
    use_imagenet_stats: bool = False,
) -> dict[str, dict[str, Array]]:
    """Return `state`, `actions` and `camera0` ... `camera<num_cams - 1>` of one dataset's stats.

    Columns are selected, then state and actions are padded with zeros along their last axis, every
    stat alike (`count` is left alone). A camera that the dataset does not have gets min 0, max 1,
    mean 0, std 0 of shape (3, 1, 1) float32, and the state's `count` if there is one. Dtypes are
    kept. Non-finite values of state and actions are kept too, with one `non_finite` notice per
    stat.

    Args:
        stats: Column -> stat -> array of shape (D,), or (T, D) with one row per step of a chunk;
            cameras (3, 1, 1).
        name_map: Standard name -> column. Names without stats (`prompt` and its like) are ignored.
        max_state_dim: Width of the standardized state.
        max_action_dim: Width of the standardized actions.
        num_cams: Cameras to keep; those beyond are left out.
        state_index: Columns of the state to keep, in that order; None keeps all.
        action_index: The same for the actions.
        repo_id: The dataset, for messages.
        delta_stats: `actions` and, if wanted, `state` -> stats that replace the dataset's own,
            after column selection: of actions that are relative to the state.
        use_imagenet_stats: Replace min, max, mean and std of every mapped camera by ImageNet's,
            (3, 1, 1) float32, whether it has stats or not.

    Raises:
        ConfigError: State or actions are not mapped; an index is negative, repeated or empty;
            state or actions are wider than the maximum.
        ColumnIndexError: An index is out of range.
        MetadataError: A mapped column has no stats, or lacks mean, std, min or max, or its stats
            are not arrays of one shape.

    Source: OpenTau 0b153a9, `DatasetMixtureMetadata`, pinned by recorded values.
    """
    native = native_stats(
        stats,
        name_map=name_map,
        num_cams=num_cams,
        state_index=state_index,
        action_index=action_index,
        repo_id=repo_id,
        delta_stats=delta_stats,
        imagenet=set(name_map.values()) if use_imagenet_stats else (),
    )
    standardized = standardize_native(
        native,
        max_state_dim=max_state_dim,
        max_action_dim=max_action_dim,
        num_cams=num_cams,
        repo_id=repo_id,
    )
    return {feature: dict(entry) for feature, entry in standardized.items()}


def native_stats(
    stats: Mapping[str, FeatureStats],
    *,
    name_map: Mapping[str, str],
    num_cams: int = 0,
    state_index: Sequence[int] | None = None,
    action_index: Sequence[int] | None = None,
    repo_id: str = "",
    delta_stats: Mapping[str, FeatureStats] | None = None,
    imagenet: Collection[str] = (),
) -> dict[str, FeatureStats]:
    """Return what `standardize_stats` works on: standard names, selected columns, not padded.

    Cameras that the dataset does not have are left out. Args and errors are those of
    `standardize_stats`, but for `imagenet`: the columns of the cameras that get ImageNet's stats.
    """
    indices = {"state": state_index, "actions": action_index}
    native = _select_vectors(stats, name_map, indices, repo_id, delta_stats or {})
    for camera in (f"camera{i}" for i in range(num_cams)):
        column = name_map.get(camera)
        if column is None:
            continue
        if column in imagenet:
            native[camera] = {**stats.get(column, {}), **imagenet_stats(np.float32)}
        else:
            native[camera] = _feature_stats(stats, camera, column, repo_id)
    return native


def imagenet_stats(dtype: npt.DTypeLike) -> dict[str, Array]:
    """Return ImageNet's stats of a camera, each (3, 1, 1)."""
    return {s: np.array(v, dtype=dtype).reshape(_CAMERA_SHAPE) for s, v in IMAGENET.items()}


def standardize_native(
    native: Mapping[str, FeatureStats],
    *,
    max_state_dim: int,
    max_action_dim: int,
    num_cams: int = 0,
    truncate_dims: bool = False,
    repo_id: str = "",
) -> dict[str, FeatureStats]:
    """Return `native_stats` padded to the policy's widths, with placeholders for missing cameras.

    Args:
        native: From `native_stats`.
        max_state_dim: See `standardize_stats`, as for the others.
        max_action_dim: Width of the standardized actions.
        num_cams: Cameras to keep.
        truncate_dims: Cut dims beyond the maximum, rather than raise.
        repo_id: The dataset, for messages.

    Raises:
        ConfigError: State or actions are wider than the maximum and are not to be cut.
    """
    standardized: dict[str, FeatureStats] = {}
    for feature, width in (("state", max_state_dim), ("actions", max_action_dim)):
        entry = native[feature]
        if not truncate_dims:
            _check_width(feature, entry, width, repo_id)
        standardized[feature] = _padded(entry, width)
    count = standardized["state"].get("count")
    for camera in (f"camera{i}" for i in range(num_cams)):
        standardized[camera] = dict(native[camera]) if camera in native else _placeholder(count)
    _warn_non_finite(standardized, repo_id)
    return standardized


def raw_dims(
    stats: Mapping[str, FeatureStats],
    *,
    name_map: Mapping[str, str],
    state_index: Sequence[int] | None = None,
    action_index: Sequence[int] | None = None,
    repo_id: str = "",
) -> tuple[int, int]:
    """Return (state width, action width) after column selection and before padding.

    Args and errors are those of `standardize_stats`.
    """
    indices = {"state": state_index, "actions": action_index}
    native = _select_vectors(stats, name_map, indices, repo_id, {})
    return native_width(native["state"]), native_width(native["actions"])


def native_width(entry: FeatureStats) -> int:
    """Return how many dims the stats of state or actions have."""
    return int(np.shape(entry["mean"])[-1])


def is_camera_placeholder(entry: FeatureStats) -> bool:
    """Return whether these are the stats that replace those of a camera that a dataset lacks."""
    return set(entry) <= {*_PLACEHOLDER, "count"} and all(
        np.shape(entry[stat]) == _CAMERA_SHAPE and bool((np.asarray(entry[stat]) == value).all())
        for stat, value in _PLACEHOLDER.items()
    )


def _select_vectors(
    stats: Mapping[str, FeatureStats],
    name_map: Mapping[str, str],
    indices: Mapping[str, Sequence[int] | None],
    repo_id: str,
    delta_stats: Mapping[str, FeatureStats],
) -> dict[str, FeatureStats]:
    """Return the state's and the actions' stats with the selected columns, not padded."""
    selected: dict[str, FeatureStats] = {}
    for feature, option in _VECTORS.items():
        if feature in delta_stats:  # of selected columns already
            selected[feature] = _feature_stats(delta_stats, feature, feature, repo_id)
            _common_width(selected[feature], feature, repo_id)
            continue
        if feature not in name_map:
            raise ConfigError(
                f"no column is mapped to {feature!r}",
                where=repo_id or None,
                hint=f"Add {feature!r} to data_features_name_mapping of this dataset.",
            )
        column = name_map[feature]
        entry = _feature_stats(stats, feature, column, repo_id)
        width = _common_width(entry, column, repo_id)
        index = indices[feature]
        if index is not None:
            columns = _checked_index(index, width, f"{option} (column {column!r})", repo_id)
            entry = _selected(entry, columns)
        selected[feature] = entry
    return selected


def _feature_stats(
    stats: Mapping[str, FeatureStats], feature: str, column: str, repo_id: str
) -> FeatureStats:
    entry = stats.get(column)
    if entry is None:
        raise MetadataError(
            f"Key {column!r} not found in stats: it is mapped to {feature!r}; there are stats of"
            f" {', '.join(map(repr, stats)) or 'nothing'}",
            where=repo_id or None,
            hint=f"Correct data_features_name_mapping. {RECOMPUTE}",
        )
    lacking = [stat for stat in _REQUIRED if stat not in entry]
    if lacking:
        raise MetadataError(
            f"column {column!r} is missing required statistics: {', '.join(lacking)}",
            where=repo_id or None,
            hint=RECOMPUTE,
        )
    return {stat: _as_numbers(value, stat, column, repo_id) for stat, value in entry.items()}


def _selected(entry: FeatureStats, columns: Sequence[int]) -> FeatureStats:
    return {stat: v if stat == "count" else v[..., columns] for stat, v in entry.items()}


def _as_numbers(value: Any, stat: str, column: str, repo_id: str) -> Array:
    if type(value) is np.ndarray and value.dtype.kind in "biuf":
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise MetadataError(
            f"the stat {stat} of column {column!r} is not an array of numbers",
            where=repo_id or None,
            hint=RECOMPUTE,
        )
    return array


def _common_width(entry: FeatureStats, column: str, repo_id: str) -> int:
    shapes = {stat: value.shape for stat, value in entry.items() if stat != "count"}
    if not shapes["mean"] or len(set(shapes.values())) > 1:
        found = ", ".join(f"{stat} {shape}" for stat, shape in shapes.items())
        raise MetadataError(
            f"the stats of column {column!r} must be arrays of one shape, but are {found}",
            where=repo_id or None,
            hint=RECOMPUTE,
        )
    return int(shapes["mean"][-1])


def _checked_index(index: Sequence[int], width: int, option: str, repo_id: str) -> list[int]:
    columns = list(index)
    outside = [c for c in columns if not _is_int(c) or not 0 <= c < width]
    error = ColumnIndexError if outside else ConfigError
    repeated = sorted({c for c in columns if columns.count(c) > 1}, key=columns.index)
    if outside:
        fault = f"refers to column(s) {outside}, but there are {width} (0 to {width - 1})"
    elif repeated:
        fault = f"names column(s) {repeated} more than once"
    elif not columns:
        fault = "selects no column"
    else:
        return [int(c) for c in columns]
    raise error(
        f"{option} {fault}",
        where=repo_id or None,
        hint="Columns are counted from 0 in the data as stored, each at most once.",
    )


def _is_int(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check_width(feature: str, entry: FeatureStats, limit: int, repo_id: str) -> None:
    width = native_width(entry)
    if width > limit:
        flag = "--max-state-dim"
        if feature == "actions":
            flag = "--max-action-dim (of fit-tokenizer: --action-dim)"
        raise ConfigError(
            f"{feature} has {width} dims, but the maximum is {limit}",
            where=repo_id or None,
            hint=f"Raise {flag}, select columns with {_VECTORS[feature]}, or cut them with "
            "--truncate-dims.",
        )


def _padded(entry: FeatureStats, width: int) -> FeatureStats:
    """Return the stats of one feature cut or padded with zeros to a width, but for `count`."""
    arrays = {stat: values for stat, values in entry.items() if stat != "count"}
    if len({values.dtype for values in arrays.values()}) == 1:
        # One block for all of them costs a fraction of an array each.
        shape = (len(arrays), *next(iter(arrays.values())).shape)
        block = np.concatenate(list(arrays.values())).reshape(shape)  # a stack, at half its cost
        resized = dict(zip(arrays, _resized(block, width), strict=True))
    else:
        resized = {stat: _resized(values, width) for stat, values in arrays.items()}
    return {stat: resized.get(stat, values) for stat, values in entry.items()}


def _resized(values: Array, width: int) -> Array:
    """Return an array cut or padded with zeros along its last axis; always a copy."""
    kept = min(values.shape[-1], width)
    resized = np.zeros((*values.shape[:-1], width), dtype=values.dtype)
    resized[..., :kept] = values[..., :kept]
    return resized


def _placeholder(count: Array | None) -> dict[str, Array]:
    entry = {s: np.full(_CAMERA_SHAPE, v, dtype=np.float32) for s, v in _PLACEHOLDER.items()}
    return entry if count is None else {**entry, "count": count.copy()}


def _warn_non_finite(standardized: Mapping[str, FeatureStats], repo_id: str) -> None:
    for feature in _VECTORS:
        entry = standardized[feature]
        if _is_finite(entry):
            continue
        for stat, values in entry.items():
            broken = ~np.isfinite(values)
            dims = np.flatnonzero(broken.reshape(-1, values.shape[-1]).any(axis=0)).tolist()
            if dims:
                warn(
                    "non_finite",
                    f"{repo_id or 'dataset'}: non-finite {stat} of {feature!r} in dims "
                    f"{', '.join(map(str, dims))}",
                    dataset=repo_id or None,
                    feature=feature,
                    dims=tuple(dims),
                    stat=stat,
                    shape=list(values.shape),
                )


def _is_finite(entry: FeatureStats) -> bool:
    """Return whether everything is, with one look at all of it."""
    return bool(np.isfinite(np.concatenate(list(entry.values()), axis=None)).all())
