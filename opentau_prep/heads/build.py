"""Build the norm heads of a mixture from its datasets' standardized stats."""

from __future__ import annotations

import logging
import numbers
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.heads.keys import group_by_key
from opentau_prep.heads.standardize import is_camera_placeholder
from opentau_prep.notices import shorten_names, some_names, warn
from opentau_prep.pooling import aggregate_stats

__all__ = ["HasInfo", "NormHeads", "build_norm_heads", "head_weight"]

Stats = dict[str, dict[str, NDArray[Any]]]

_logger = logging.getLogger(__name__)


class HasInfo(Protocol):
    """Anything with a dataset's info.json, overrides applied, as the mapping `.info`."""

    @property
    def info(self) -> Mapping[str, Any]: ...  # noqa: D102


class NormHeads(NamedTuple):
    """The norm heads of a mixture.

    Attributes:
        norm_keys: Key of each head, by row, in order of first appearance.
        per_norm_key_stats: `feature -> stat -> array` of each head, by row.
        norm_key_to_index: Key -> row.
        dataset_to_norm_index: Dataset name -> row.
        norm_key_to_dataset_names: Key -> its datasets, in mixture order.
    """

    norm_keys: list[str]
    per_norm_key_stats: list[Stats]
    norm_key_to_index: dict[str, int]
    dataset_to_norm_index: dict[str, int]
    norm_key_to_dataset_names: dict[str, list[str]]


def build_norm_heads(
    *,
    dataset_names: Sequence[str],
    per_dataset_stats: Sequence[Mapping[str, Mapping[str, NDArray[Any]]]],
    metadatas: Sequence[HasInfo],
    raw_dims: Sequence[tuple[int, int]],
) -> NormHeads:
    """Return the heads that training would normalize with, bit for bit.

    A head of one dataset has that dataset's standardized stats as they are. A shared head is pooled
    with `aggregate_stats`, weighted by `info["total_frames"]` (1 when missing, null or 0), never by
    the mixture's sampling weights. Placeholders of missing cameras are pooled like data, as
    training does; a `placeholder_pooled` notice says so.

    Args:
        dataset_names: Unique mixture-level names, in mixture order; the others are parallel to it.
        per_dataset_stats: Each dataset's stats from `standardize_stats`.
        metadatas: Anything with `.info`, a mapping (or None) with `robot_type`, `control_mode` and
            `total_frames` after overrides.
        raw_dims: Each dataset's (state width, action width) before padding, from `raw_dims`.

    Raises:
        ConfigError: Arguments are not parallel; names collide; members of a head differ in their
            widths before padding (every member is listed).
        MetadataError: A tag is not a string, or `total_frames` is not a number >= 0; or stats of
            members cannot be pooled (see `aggregate_stats`).

    Source: OpenTau 0b153a9, `DatasetMixtureMetadata`, pinned by recorded values.
    """
    _check_parallel(dataset_names, per_dataset_stats, metadatas, raw_dims)
    infos = [metadata.info or {} for metadata in metadatas]
    groups = group_by_key(dataset_names, infos)
    position = {name: i for i, name in enumerate(dataset_names)}
    rows = {key: [position[name] for name in names] for key, names in groups.members.items()}
    for key, members in rows.items():
        _check_widths(key, {dataset_names[i]: raw_dims[i] for i in members})
    stats: list[Stats] = []
    for key, members in rows.items():
        entries = [per_dataset_stats[i] for i in members]
        names = [dataset_names[i] for i in members]
        weights = [head_weight(infos[i], dataset_names[i]) for i in members]
        _warn_pooled_placeholders(key, names, entries)
        stats.append(_head_stats(key, names, entries, weights))
    _log_heads(groups.members, len(position))
    return NormHeads(
        norm_keys=list(rows),
        per_norm_key_stats=stats,
        norm_key_to_index={key: row for row, key in enumerate(rows)},
        dataset_to_norm_index=_rows_of_datasets(dataset_names, groups.members),
        norm_key_to_dataset_names={key: list(names) for key, names in groups.members.items()},
    )


def _log_heads(members: Mapping[str, Sequence[str]], n_datasets: int) -> None:
    """Log at INFO which datasets share a head: what a training log should show."""
    if _logger.isEnabledFor(logging.INFO):
        lines = [f"\n  - {key}: {some_names(names)}" for key, names in sorted(members.items())]
        summary = f"Norm-head aggregation: {len(members)} heads over {n_datasets} datasets."
        _logger.info("%s%s", summary, "".join(lines))


def head_weight(info: Mapping[str, Any], dataset: str = "") -> float:
    """Return what a dataset weighs in its head: `total_frames`, or 1 when missing, null or 0.

    Raises:
        MetadataError: `total_frames` is not a finite number >= 0.
    """
    frames = info.get("total_frames") or 1
    is_number = isinstance(frames, numbers.Real) and not isinstance(frames, bool)
    # A whole number beyond every float is compared here, since isfinite would overflow.
    if not is_number or not 0 <= frames <= sys.float_info.max:
        raise MetadataError(
            f"total_frames in info.json is {frames!r}, not a number of frames",
            where=dataset or None,
            hint="Fix meta/info.json.",
        )
    return float(frames)


def _head_stats(
    key: str,
    names: Sequence[str],
    entries: Sequence[Mapping[str, Mapping[str, NDArray[Any]]]],
    weights: Sequence[float],
) -> Stats:
    if len(entries) == 1:
        return {feature: dict(entry) for feature, entry in entries[0].items()}
    return aggregate_stats(
        entries, weights=weights, contributor_names=names, context=f"norm head {key!r}"
    )


def _rows_of_datasets(names: Sequence[str], members: Mapping[str, Sequence[str]]) -> dict[str, int]:
    row_of = {name: row for row, group in enumerate(members.values()) for name in group}
    return {name: row_of[name] for name in names}


def _check_parallel(names: Sequence[str], *others: Sequence[Any]) -> None:
    labels = ("per_dataset_stats", "metadatas", "raw_dims")
    for label, values in zip(labels, others, strict=True):
        if len(values) != len(names):
            raise ConfigError(
                f"{len(values)} {label} for {len(names)} dataset_names: give one for each"
            )


def _check_widths(key: str, dims: Mapping[str, Sequence[int]]) -> None:
    if len({tuple(pair) for pair in dims.values()}) <= 1:
        return
    found = "; ".join(f"{name} (state {state}, actions {a})" for name, (state, a) in dims.items())
    raise ConfigError(
        "its datasets have incompatible raw widths of state or actions (before padding), so they"
        f" cannot share a head: {found}",
        where=f"norm key {key!r}",
        hint="Override robot_type or control_mode of some, or select columns with state_index and "
        "action_index.",
    )


def _warn_pooled_placeholders(
    key: str, names: Sequence[str], entries: Sequence[Mapping[str, Mapping[str, NDArray[Any]]]]
) -> None:
    cameras = sorted({f for entry in entries for f in entry if f.startswith("camera")})
    for camera in cameras:
        having = [(n, e[camera]) for n, e in zip(names, entries, strict=True) if camera in e]
        lacking = [name for name, entry in having if is_camera_placeholder(entry)]
        if lacking and len(lacking) < len(having):
            shown, suffix = shorten_names(lacking)
            warn(
                "placeholder_pooled",
                f"{key}: {len(lacking)} of {len(having)} datasets have no {camera}; placeholders "
                "take the place of its stats and are pooled with the others', as in training "
                f"({', '.join(shown)}{suffix})",
                feature=camera,
                context=key,
                n_missing=len(lacking),
                n_contributors=len(having),
                missing=shown,
                suffix=suffix,
            )
