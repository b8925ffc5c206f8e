"""What a training config says of sizes, where the mixture is part of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

__all__ = ["SEED_OF_NULL", "TRAINING_SEED", "training_settings"]

# OpenTau's default seed (configs/train.py), and what it seeds the split between training and
# validation with where the config's seed is null (datasets/factory.py), commit 0b153a9.
TRAINING_SEED: Final = 1000
SEED_OF_NULL: Final = 8_675_309

# Key of OpenTau's TrainPipelineConfig (0b153a9) -> the option that it decides here.
_KEYS = MappingProxyType(
    {
        "max_state_dim": "max_state_dim",
        "max_action_dim": "max_action_dim",
        "num_cams": "num_cams",
        "action_chunk": "chunk_size",
        "seed": "seed",
    }
)


def training_settings(file: Path) -> Mapping[str, int]:
    """Return the sizes that a training config states, by option name; those it leaves out are not.

    Only whole numbers at the top level of the file count: a `$ref` next to the mixture may lead to
    files of another machine, and is not followed. A seed that is null is 8675309, as in training.

    Args:
        file: A file that `load_mixture` has read, so that it is known to be a JSON object.
    """
    document = json.loads(file.read_bytes())
    settings = {
        option: document[key]
        for key, option in _KEYS.items()
        if type(document.get(key)) is int and document[key] >= 0
    }
    if "seed" in document and document["seed"] is None:
        settings["seed"] = SEED_OF_NULL
    return settings
