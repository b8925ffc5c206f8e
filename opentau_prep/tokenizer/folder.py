"""A tokenizer's folder: its files as bytes, what they are made from, whether they are fresh.

The files are what `transformers.AutoProcessor` needs. They are written here, without transformers,
so that fitting does not depend on its version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import tokenizers
from tokenizers import Tokenizer

from opentau_prep.artifacts import Recipe
from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.artifacts.place import Place, folder_place
from opentau_prep.artifacts.store import Inspection, State, inspect, recorded
from opentau_prep.engine import Failure
from opentau_prep.errors import ArtifactError, ConfigError, DataError, MetadataError, PrepError
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.tokenizer.options import DEFAULT_CHUNK_SIZE, FitOptions
from opentau_prep.tokenizer.recipes import action_heads

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = [
    "COMMAND",
    "REPORT_NAME",
    "FoundTokenizer",
    "ProcessorSettings",
    "inspect_tokenizer",
    "load_tokenizer",
    "mixture_inputs",
    "processor_files",
    "read_report",
    "read_settings",
    "recorded_fit",
    "tokenizer_place",
]

COMMAND = "fit-tokenizer"
REPORT_NAME = "fit_report.json"
_SMALL_MIXTURE = 64
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
        scale: Quantization steps per unit of DCT coefficient.
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


def mixture_inputs(
    resolved: ResolvedMixture, heads_sha256: str, context: RunContext, *, read: bool = True
) -> dict[str, Any]:
    """Return the fingerprint of a mixture's content, JSON-ready.

    A dataset whose files cannot be read has a fingerprint that says so: mending it makes the
    tokenizer stale.

    Args:
        resolved: The mixture.
        heads_sha256: The hash of what its actions are normalized with.
        context: How to run.
        read: Whether data files may be read to hash them; see `describe_inputs`.

    Raises:
        PrepError: A dataset's tables or files cannot be read, and `context.keep_going` is off.
    """
    found = context.map(
        "checking what changed",
        partial(_describe, read=read),
        resolved.first_entries,
        [entry.name for entry in resolved.first_entries],
        items_per_worker=_SMALL_MIXTURE,
    )
    each: list[dict[str, Any]] = [
        {"unreadable": str(f.error)} if isinstance(f, Failure) else f for f in found
    ]
    whole = [one for one in each if "episodes" in one]
    return {
        "mixture": {"count": len(resolved.entries), "sha256": resolved.mixture.sha256},
        "episodes": {
            "count": sum(one["episodes"]["count"] for one in whole),
            "frames": sum(one["episodes"]["frames"] for one in whole),
            "sha256": _hash([one.get("episodes") for one in each]),
        },
        "data": _data(each, whole),
        "heads": {"sha256": heads_sha256},
        "tokenizers": tokenizers.__version__,
    }


def _data(each: list[dict[str, Any]], whole: list[dict[str, Any]]) -> dict[str, Any]:
    files = {"files": sum(one["data"]["files"] for one in whole)}
    if any("sha256" not in one["data"] for one in whole):
        return files
    return {**files, "sha256": _hash([one.get("data", one) for one in each])}


def _describe(entry: ResolvedEntry, *, read: bool) -> dict[str, Any]:
    return describe_inputs(entry.meta, read=read)


def _hash(values: list[Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@dataclass(frozen=True)
class FoundTokenizer:
    """A tokenizer folder as it was found.

    Attributes:
        inspection: Its state.
        options: The options it was fitted with, as its provenance has them; else the defaults.
    """

    inspection: Inspection
    options: FitOptions


def tokenizer_place(folder: Path) -> Place:
    """Return the place of a tokenizer folder; raise `ConfigError` for what was given as a URL."""
    return folder_place("tokenizer", folder, "--out-dir")


def inspect_tokenizer(
    resolved: ResolvedMixture, context: RunContext, folder: Path
) -> FoundTokenizer:
    """Return the state of a tokenizer folder; reads no frames and changes nothing.

    It is compared with what its own options would be fitted on now. Data files are compared by
    content where their hashes are remembered, else by number.

    Args:
        resolved: The mixture.
        context: Where artifacts of `stats` are.
        folder: The folder.

    Raises:
        PrepError: Stats of datasets cannot be used, or it is no folder that can be read.
    """
    place = tokenizer_place(folder)
    found = inspect(place, Recipe(COMMAND, {}))
    options = recorded_fit(folder) or FitOptions(DEFAULT_CHUNK_SIZE)
    if found.state is State.MISSING:
        return FoundTokenizer(found, options)
    heads = action_heads(resolved, options, artifact_root=context.artifact_root)
    # Where nothing is read, processes cost more than they save.
    context = replace(context, workers=1)
    inputs = mixture_inputs(resolved, heads.sha256, context, read=False)
    recipe = Recipe(
        COMMAND,
        inputs,
        options.parameters(),
        partial=True,
        mixture_id=resolved.mixture.mixture_id,
    )
    return FoundTokenizer(inspect(place, recipe), options)


def recorded_fit(folder: Path) -> FitOptions | None:
    """Return the options that a folder was fitted with, or None where nothing says them."""
    try:
        record = recorded(tokenizer_place(folder))
    except PrepError:  # a folder that cannot be read is reported by whoever reads it
        return None
    return None if record is None else _recorded(record.parameters)


def read_report(folder: Path) -> dict[str, Any]:
    """Return the report of a fit that lies in its folder.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    path = folder / REPORT_NAME
    try:
        document = load_own(path.read_bytes(), where=str(path))
    except (OSError, MetadataError) as error:
        raise ArtifactError(
            f"cannot be read ({error})", where=str(path), hint="Fit again with --force."
        ) from error
    if not isinstance(document, dict):
        raise ArtifactError(
            "is not the report of a fit", where=str(path), hint="Fit again with --force."
        )
    return document


def _recorded(parameters: Mapping[str, Any]) -> FitOptions | None:
    names: Sequence[str] = [each.name for each in fields(FitOptions)]
    try:
        return FitOptions(**{name: parameters[name] for name in names})
    except (KeyError, TypeError, ConfigError):
        return None
