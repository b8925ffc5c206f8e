"""What there is of a mixture's tokenizer, and whether it still fits the mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Recipe
from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.artifacts.place import Place, folder_place
from opentau_prep.artifacts.store import Inspection, State, inspect
from opentau_prep.errors import ArtifactError, ConfigError, MetadataError, PrepError
from opentau_prep.tokenizer.inputs import mixture_inputs
from opentau_prep.tokenizer.options import DEFAULT_CHUNK_SIZE, FitOptions
from opentau_prep.tokenizer.recipes import action_heads

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = [
    "REPORT_NAME",
    "FoundTokenizer",
    "inspect_tokenizer",
    "read_report",
    "recorded_fit",
    "tokenizer_place",
]

COMMAND = "fit-tokenizer"
REPORT_NAME = "fit_report.json"


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
        record = inspect(tokenizer_place(folder), Recipe(COMMAND, {})).provenance
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
            f"cannot be read ({error})", where=str(path), hint="Make it again with --force."
        ) from error
    if not isinstance(document, dict):
        raise ArtifactError(
            "is not the report of a fit", where=str(path), hint="Make it again with --force."
        )
    return document


def _recorded(parameters: Mapping[str, Any]) -> FitOptions | None:
    names: Sequence[str] = [each.name for each in fields(FitOptions)]
    try:
        return FitOptions(**{name: parameters[name] for name in names})
    except (KeyError, TypeError, ConfigError):
        return None
