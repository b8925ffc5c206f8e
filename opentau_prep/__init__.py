"""Prepare LeRobot dataset mixtures for training: stats, norm heads, speed buckets, tokenizer, checks.

Everything public is importable from here and loaded on first use, so that `import opentau_prep` costs
next to nothing.
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
    "MetadataError": "opentau_prep.errors",
    "PrepError": "opentau_prep.errors",
    "RunningStats": "opentau_prep.stats.histogram",
}

__all__ = sorted([*_PUBLIC, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
