"""A pytest plugin that runs OpenTau's own tests on the functions of this package.

    cd PATH_TO_OPENTAU
    PYTHONPATH=src:PATH_TO_THIS_REPO:PATH_TO_THIS_REPO/scripts \
        python -m pytest -p opentau_forwarders tests/datasets tests/policies ...

Each function of OpenTau that has a twin here is replaced, in every module that imported it, by a
forwarder of one call; `docs/parity.md` lists the results. Nothing of OpenTau is copied: it is
imported from where it lies. Guards that belong to the policy (assertions on buffers that were never
filled, the warning about snapped dims) stay OpenTau's own; the numbers are ours.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import opentau_prep
from opentau_prep import opentau as adapters


def pytest_collection_modifyitems(session: Any, config: Any, items: Any) -> None:
    """Swap once every test module is imported, so that names they imported are replaced too."""
    swap()


def swap() -> None:
    """Replace OpenTau's functions by ours, wherever a module holds them."""
    import opentau.datasets.compute_stats as compute_stats
    import opentau.datasets.dataset_mixture as mixture
    import opentau.datasets.speed_percentiles as speed
    import opentau.policies.normalize as policy

    _everywhere(mixture.compute_norm_key, opentau_prep.compute_norm_key)
    _everywhere(compute_stats.aggregate_stats, opentau_prep.aggregate_stats)
    _everywhere(compute_stats.aggregate_feature_stats, adapters.aggregate_feature_stats)
    _everywhere(speed.compute_task_percentiles, opentau_prep.compute_task_percentiles)
    _everywhere(speed.bucket_episode_length, opentau_prep.bucket_episode_length)
    _everywhere(
        speed.load_or_compute_speed_percentiles, opentau_prep.load_or_compute_speed_percentiles
    )

    names = mixture.WeightedDatasetMixture._make_dataset_names
    mixture.WeightedDatasetMixture._make_dataset_names = staticmethod(
        lambda cfg, datasets: adapters.make_dataset_names(cfg, datasets, otherwise=names)
    )
    mixture.DatasetMixtureMetadata._build_norm_heads = lambda self, metadatas, raw_dims: tuple(
        opentau_prep.build_norm_heads(
            dataset_names=self.dataset_names,
            per_dataset_stats=self.per_dataset_stats,
            metadatas=metadatas,
            raw_dims=raw_dims,
        )
    )

    def standardize(self: Any, repo_id: str, stats: Any, mode: Any = None, **given: Any) -> Any:
        key = mixture.feature_mapping_key(repo_id, given.pop("control_mode", mode))
        own, registry = given.pop("name_map", None), mixture.DATA_FEATURES_NAME_MAPPING
        name_map = own if own is not None else registry[key if key in registry else repo_id]
        return opentau_prep.standardize_stats(
            stats, name_map=name_map, repo_id=repo_id, **adapters.widths(self.cfg), **given
        )

    mixture.DatasetMixtureMetadata._to_standard_data_format = standardize
    for module, ours in (
        (policy.Normalize, adapters.normalize_batch),
        (policy.Unnormalize, adapters.unnormalize_batch),
    ):
        module.forward = _numbers_of(ours, module.forward)


def _everywhere(theirs: Callable[..., Any], ours: Callable[..., Any]) -> None:
    """Put a forwarder in the place of a function, in every module that holds it."""

    @functools.wraps(theirs)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is theirs and module.__name__.startswith(("opentau.", "tests.", "test_")):
                setattr(module, name, forward)


def _numbers_of(ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `forward` with OpenTau's guards and our numbers."""

    def forward(self: Any, batch: Any, dataset_index: Any) -> Any:
        checked = theirs(self, batch, dataset_index)
        return ours(self, batch, dataset_index, checked)

    return forward
