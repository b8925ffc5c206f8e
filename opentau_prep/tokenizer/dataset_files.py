"""Each dataset's own file: how long its chunks are under the mixture's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Rank, Recipe, dataset_place, ensure
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.artifacts.provenance import sha256_of
from opentau_prep.artifacts.store import OverwriteRefusedError
from opentau_prep.notices import warn

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.tokenizer.options import FitOptions

__all__ = ["write_dataset_files"]

COMMAND = "fit-tokenizer"
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
    by_dataset: dict[tuple[str, str], list[ResolvedEntry]] = {}
    for entry in resolved.entries:
        if entry.name in document["token_lengths"]["datasets"]:
            by_dataset.setdefault((entry.meta.root, entry.artifact_name), []).append(entry)
    told: dict[str, str] = {}
    for entries in by_dataset.values():
        content = _content(resolved, document, entries)
        status = _write(entries[0], resolved.mixture.mixture_id, content, options, context)
        told |= {entry.name: status for entry in entries}
    return told


def _write(
    entry: ResolvedEntry,
    mixture_id: str,
    content: bytes,
    options: FitOptions,
    context: RunContext,
) -> str:
    place = dataset_place(
        "action_tokens",
        Path(entry.meta.root),
        dataset=entry.artifact_name,
        artifact_root=context.artifact_root,
        mixture_id=mixture_id,
    )
    # Among the parameters, not the inputs: a new fit is no reason to call the old file stale.
    parameters = {**options.parameters(), "content": sha256_of(content)}
    recipe = Recipe(COMMAND, {}, parameters)
    rank = context.rank or Rank.detect()
    build = partial(_same, content)
    try:
        made = ensure(place, build, recipe, rank=rank, force=context.force, dry_run=context.dry_run)
    except OverwriteRefusedError as error:
        warn("left_alone", str(error), dataset=entry.artifact_name)
        return "kept"
    return str(made.outcome.status)


def _same(content: bytes) -> bytes:
    return content


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
