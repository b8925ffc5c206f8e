"""Each dataset's own file: how long its chunks are under the mixture's tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Recipe, dataset_place
from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.artifacts.place import Place
from opentau_prep.artifacts.provenance import sha256_of
from opentau_prep.artifacts.store import Inspection, OverwriteRefusedError, inspect
from opentau_prep.errors import MetadataError
from opentau_prep.notices import warn
from opentau_prep.tokenizer.folder import COMMAND
from opentau_prep.tokenizer.report import with_forecast

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.dataset import Dataset
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.tokenizer.options import FitOptions

__all__ = ["inspect_dataset_files", "write_dataset_files"]

FORMAT = "opentau-prep/action-tokens"
_SHARED = ("chunk_size", "action_dim", "vocab_size", "scale", "config_version")


def write_dataset_files(
    resolved: ResolvedMixture,
    document: Mapping[str, Any],
    options: FitOptions,
    context: RunContext,
) -> dict[str, str]:
    """Write `meta/action_tokens/<mixture_id>.json` of every dataset that was measured.

    Entries of one dataset share its file. A file that somebody has edited is left alone, with a
    notice, unless forced.

    Returns:
        Dataset name -> what became of its file.
    """
    words: dict[str, str] = {}
    for entries in _measured(resolved, document):
        content = _content(resolved, document, entries)
        status = _write(entries[0], resolved.mixture.mixture_id, content, options, context)
        words |= {entry.name: status for entry in entries}
    return words


def inspect_dataset_files(
    resolved: ResolvedMixture,
    document: Mapping[str, Any],
    options: FitOptions,
    context: RunContext,
) -> list[tuple[tuple[str, ...], Inspection]]:
    """Return the entries that each dataset's file is for, and its state; nothing is changed.

    Args:
        resolved: The mixture.
        document: The report of the tokenizer that is there.
        options: What it was fitted with.
        context: Where artifacts are.

    Raises:
        ArtifactError: A file cannot be read.
    """
    found = []
    for entries in _measured(resolved, document):
        place = _place(entries[0], resolved.mixture.mixture_id, context)
        there = inspect(place, Recipe(COMMAND, {})).content
        forecast = with_forecast(document, _recorded_limit(there))
        content = _content(resolved, forecast, entries)
        state = inspect(place, _recipe(options, content))
        found.append((tuple(entry.name for entry in entries), state))
    return found


def _recorded_limit(content: bytes | None) -> int | None:
    """Return the length that a file was forecast for: whoever wrote it may have named one."""
    try:
        document = load_own(content or b"null", where="")
    except MetadataError:
        return None
    limit = document.get("discrete_action_max_length") if isinstance(document, dict) else None
    return limit if type(limit) is int else None


def _measured(
    resolved: ResolvedMixture, document: Mapping[str, Any]
) -> Iterable[list[ResolvedEntry]]:
    by_dataset: dict[Dataset, list[ResolvedEntry]] = {}
    for entry in resolved.entries:
        if entry.name in document["token_lengths"]["datasets"]:
            by_dataset.setdefault(entry.dataset, []).append(entry)
    return by_dataset.values()


def _place(entry: ResolvedEntry, mixture_id: str, context: RunContext) -> Place:
    return dataset_place(
        "action_tokens",
        entry.meta.storage,
        dataset=entry.artifact_name,
        artifact_root=context.artifact_root,
        mixture_id=mixture_id,
    )


def _recipe(options: FitOptions, content: bytes) -> Recipe:
    # Among the parameters, not the inputs: a new fit is no reason to call the old file stale.
    return Recipe(COMMAND, {}, {**options.parameters(), "content": sha256_of(content)})


def _write(
    entry: ResolvedEntry,
    mixture_id: str,
    content: bytes,
    options: FitOptions,
    context: RunContext,
) -> str:
    place = _place(entry, mixture_id, context)
    recipe = _recipe(options, content)
    try:
        made = context.ensure_file(place, lambda: content, recipe)
    except OverwriteRefusedError as error:
        warn("left_alone", str(error), dataset=entry.artifact_name)
        return "kept"
    return str(made.outcome.status)


def _content(
    resolved: ResolvedMixture, document: Mapping[str, Any], entries: Sequence[ResolvedEntry]
) -> bytes:
    return dump_own(
        {
            "format": FORMAT,
            "mixture_id": resolved.mixture.mixture_id,
            **{name: document[name] for name in _SHARED},
            "max_token_length": document["fit"]["max_token_length"],
            "measured_on": document["token_lengths"]["measured_on"],
            "discrete_action_max_length": document["discrete_action_max_length"],
            "entries": [_entry(document, entry) for entry in entries],
        }
    )


def _entry(document: Mapping[str, Any], entry: ResolvedEntry) -> dict[str, Any]:
    return {
        "dataset": entry.name,
        "norm_key": document["per_dataset_norm_keys"][entry.index],
        "fitted_chunks": document["per_dataset_chunks"][entry.index],
        "token_lengths": document["token_lengths"]["datasets"][entry.name],
        "roundtrip": document["roundtrip"].get("datasets", {}).get(entry.name),
    }
