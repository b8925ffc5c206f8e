"""The files of a tokenizer folder, as bytes: what `transformers.AutoProcessor` needs to load it.

They are written here, without transformers, so that fitting does not depend on its version.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from importlib import resources
from typing import Any

import orjson
from tokenizers import Tokenizer

from opentau_prep.errors import ConfigError, DataError

__all__ = ["ProcessorSettings", "load_tokenizer", "processor_files", "read_settings"]

_SOURCE = "processing_action_tokenizer.py"
_CLASS = "UniversalActionProcessor"
_TOKENIZER_CONFIG = {
    "added_tokens_decoder": {},
    "clean_up_tokenization_spaces": False,
    "extra_special_tokens": {},
    "model_max_length": 1000000000000000019884624838656,
    "processor_class": _CLASS,
    "tokenizer_class": "PreTrainedTokenizerFast",
}


@dataclass(frozen=True)
class ProcessorSettings:
    """The constructor arguments of the processor.

    Attributes:
        scale: Quantization steps a unit of DCT coefficient.
        vocab_size: Vocabulary asked for; the tokenizer may hold fewer tokens.
        min_token: The quantized number that has code point 0.
        action_dim: D of the chunks.
        time_horizon: T of the chunks.
    """

    scale: float
    vocab_size: int
    min_token: int
    action_dim: int
    time_horizon: int

    def __post_init__(self) -> None:
        for name in ("scale", "vocab_size", "action_dim", "time_horizon"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"must be positive, not {getattr(self, name)!r}", where=name)


def processor_files(tokenizer: Tokenizer, settings: ProcessorSettings) -> dict[str, bytes]:
    """Return file name -> content of the folder that `AutoProcessor.from_pretrained` loads.

    The same tokenizer and settings give the same bytes.
    """
    processor_config = {
        "auto_map": {"AutoProcessor": f"{_SOURCE.removesuffix('.py')}.{_CLASS}"},
        "processor_class": _CLASS,
        **asdict(settings),
    }
    return {
        "tokenizer.json": (tokenizer.to_str(pretty=True) + "\n").encode(),
        "tokenizer_config.json": _as_json(_TOKENIZER_CONFIG),
        "special_tokens_map.json": _as_json({}),
        "processor_config.json": _as_json(processor_config),
        _SOURCE: (resources.files(__package__) / "assets" / _SOURCE).read_bytes(),
    }


def read_settings(processor_config: bytes) -> ProcessorSettings:
    """Return the settings in the bytes of a folder's `processor_config.json`.

    Raises:
        DataError: Not JSON, or a setting that is missing.
    """
    try:
        stored = orjson.loads(processor_config)
        return ProcessorSettings(**{name: stored[name] for name in _SETTING_NAMES})
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f"not the settings of an action tokenizer: {error}", where="processor_config.json"
        ) from error


def load_tokenizer(tokenizer_json: bytes) -> Tokenizer:
    """Return the tokenizer in the bytes of a folder's `tokenizer.json`.

    Raises:
        DataError: The tokenizers library cannot read it.
    """
    try:
        return Tokenizer.from_buffer(tokenizer_json)
    except ValueError as error:
        raise DataError(f"not a tokenizer: {error}", where="tokenizer.json") from error


_SETTING_NAMES = tuple(field.name for field in fields(ProcessorSettings))


def _as_json(value: dict[str, Any]) -> bytes:
    # Not orjson: model_max_length does not fit into 64 bits.
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
