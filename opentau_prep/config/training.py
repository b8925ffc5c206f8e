"""What a training config says of sizes, where the mixture is part of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

__all__ = ["training_settings"]

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
    files of another machine, and is not followed.

    Args:
        file: A file that `load_mixture` has read, so that it is known to be a JSON object.
    """
    document = json.loads(file.read_bytes())
    return {
        option: document[key]
        for key, option in _KEYS.items()
        if type(document.get(key)) is int and document[key] >= 0
    }
