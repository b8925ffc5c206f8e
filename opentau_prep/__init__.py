"""Prepare LeRobot dataset mixtures for training robot policies.

Everything public is importable from here and loaded on first use, so that `import opentau_prep`
costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that owns it.
_PUBLIC = {
    "ArtifactError": "opentau_prep.errors",
    "ConfigError": "opentau_prep.errors",
    "DataError": "opentau_prep.errors",
    "EngineError": "opentau_prep.errors",
    "GroupedLosses": "opentau_prep.val_loss.losses",
    "MetadataError": "opentau_prep.errors",
    "NormHeads": "opentau_prep.heads.build",
    "PrepError": "opentau_prep.errors",
    "RunningStats": "opentau_prep.stats.histogram",
    "ValidationPlan": "opentau_prep.val_loss.plan",
    "aggregate_stats": "opentau_prep.pooling",
    "bucket_episode_length": "opentau_prep.speed.rows",
    "build_norm_heads": "opentau_prep.heads.build",
    "chunk_rows": "opentau_prep.frames.chunks",
    "compute_norm_key": "opentau_prep.heads.keys",
    "compute_task_percentiles": "opentau_prep.speed.rows",
    "load_dataset_metadata": "opentau_prep.metadata.dataset",
    "load_mixture": "opentau_prep.config.load",
    "load_norm_heads": "opentau_prep.heads.files",
    "load_or_compute_speed_percentiles": "opentau_prep.speed.training",
    "load_validation_plan": "opentau_prep.val_loss.mixture",
    "make_dataset_names": "opentau_prep.config.names",
    "mixture_norm_heads": "opentau_prep.heads.mixture",
    "normalize": "opentau_prep.normalization",
    "normalize_mean_std": "opentau_prep.normalization",
    "plan_validation": "opentau_prep.val_loss.plan",
    "resolve_refs": "opentau_prep.config.refs",
    "standardize_stats": "opentau_prep.heads.standardize",
    "train_val_split": "opentau_prep.metadata.split",
    "unnormalize": "opentau_prep.normalization",
    "unnormalize_mean_std": "opentau_prep.normalization",
    "write_losses": "opentau_prep.val_loss.files",
}

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
