"""Adapters for OpenTau's own calling conventions, where they differ from this package's.

Most functions here can take the place of OpenTau's as they are. These are for those that cannot:
methods, and functions that take torch modules. Nothing imports OpenTau or torch: what is needed of
their objects is asked of the objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.config.names import make_dataset_names as _make_dataset_names
from opentau_prep.normalization import Convention
from opentau_prep.pooling import aggregate_stats

__all__ = [
    "aggregate_feature_stats",
    "make_dataset_names",
    "normalize_batch",
    "unnormalize_batch",
    "widths",
]


def aggregate_feature_stats(
    stats_ft_list: Sequence[Mapping[str, NDArray[Any]]],
    weights: Sequence[float] | None = None,
    contributor_names: Sequence[str] | None = None,
    context: str | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the pooled stats of one feature: `aggregate_stats` without the feature's name."""
    feature = context or "feature"
    entries = [{feature: stats} for stats in stats_ft_list]
    return aggregate_stats(entries, weights, contributor_names, context)[feature]


def make_dataset_names(
    cfg: Any, datasets: Sequence[Any], *, otherwise: Callable[[Any, Sequence[Any]], list[str]]
) -> list[str]:
    """Return the mixture-level names of a training config's datasets.

    Args:
        cfg: Has `.dataset_mixture.datasets`, of configs with `.repo_id` and `.vqa`.
        datasets: The datasets, parallel to the configs.
        otherwise: Names datasets for which there are no configs.
    """
    configs = getattr(getattr(cfg, "dataset_mixture", None), "datasets", None)
    if configs is None or len(configs) != len(datasets):
        return otherwise(cfg, datasets)
    pairs = zip(configs, datasets, strict=True)
    return _make_dataset_names([c.repo_id or c.vqa or type(d).__name__ for c, d in pairs])


def widths(cfg: Any) -> dict[str, int]:
    """Return what `standardize_stats` needs of a training config."""
    return {name: getattr(cfg, name) for name in ("max_state_dim", "max_action_dim", "num_cams")}


def normalize_batch(
    module: Any, batch: Mapping[str, Any], dataset_index: Any, checked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a batch normalized with the stats rows that a policy's `Normalize` module holds.

    Args:
        module: Has `.features`, `.norm_map`, `.eps`, `.zero_range_center` and the stats' buffers.
        batch: Feature -> (B, ...) tensor.
        dataset_index: (B,) rows.
        checked: The module's own result: which features it normalizes, as what kind of tensors.
    """
    return _apply(Convention.normalize, module, batch, dataset_index, checked)


def unnormalize_batch(
    module: Any, batch: Mapping[str, Any], dataset_index: Any, checked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the inverse of `normalize_batch`."""
    return _apply(Convention.unnormalize, module, batch, dataset_index, checked)


def _apply(
    do: Callable[..., Any],
    module: Any,
    batch: Mapping[str, Any],
    dataset_index: Any,
    checked: Mapping[str, Any],
) -> dict[str, Any]:
    out = dict(checked)
    rows = np.asarray(dataset_index)
    for name, feature in module.features.items():
        buffer = getattr(module, "buffer_" + name.replace(".", "_"), None)
        if name not in batch or buffer is None or batch[name].numel() == 0:
            continue
        mode: Any = str(module.norm_map[feature.type].value)
        convention = Convention(mode, module.eps, module.zero_range_center)
        values = np.asarray(batch[name])
        stats = [_rows(buffer[stat], rows, values.ndim) for stat in convention.stat_names]
        numbers = do(convention, values, *stats)
        out[name] = checked[name].new_tensor(numbers)
    return out


def _rows(stat: Any, rows: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Return each sample's stats, with axes of 1 between the sample's and the feature's."""
    found: NDArray[Any] = np.asarray(stat.detach())[rows]
    return found.reshape(len(found), *(1,) * (ndim - found.ndim), *found.shape[1:])
