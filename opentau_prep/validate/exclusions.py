"""A copy of the mixture that leaves out episodes that were found to be no demonstrations."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.place import file_place
from opentau_prep.artifacts.provenance import Recipe, sha256_of
from opentau_prep.artifacts.store import Outcome, publish
from opentau_prep.config.refs import load_document
from opentau_prep.errors import ConfigError
from opentau_prep.storage import is_remote
from opentau_prep.validate.check import dataset_views
from opentau_prep.validate.rule import ALL_BUT_FIRST, EXCLUDING

if TYPE_CHECKING:
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.context import RunContext
    from opentau_prep.validate.findings import ValidateReport
    from opentau_prep.validate.view import DatasetView

__all__ = ["episodes_to_exclude", "write_exclusions"]

_KEY = "dataset_mixture"


def episodes_to_exclude(report: ValidateReport) -> dict[str, dict[int, list[str]]]:
    """Return dataset -> episode -> codes of the rules that found it."""
    found: dict[str, dict[int, list[str]]] = {}
    for finding in report.findings:
        if finding.code not in EXCLUDING:
            continue
        for place in finding.places or (finding.place,):
            first = 1 if finding.code in ALL_BUT_FIRST else 0
            for episode in sorted(place.episodes)[first:]:
                codes = found.setdefault(finding.dataset, {}).setdefault(episode, [])
                codes += [] if finding.code in codes else [finding.code]
    return found


def write_exclusions(
    file: Path, report: ValidateReport, subject: Salvage, context: RunContext
) -> Outcome:
    """Write the mixture with `excluded_episodes` extended; the mixture itself is not touched.

    Its provenance holds which rule excluded which episode. `$ref` is resolved, and relative roots
    become absolute, so that the copy can lie anywhere.

    Raises:
        ConfigError: The mixture's file is faulty, or is the file that would be written.
        ArtifactError: The file cannot be written, or is somebody else's.
    """
    mixture = subject.mixture
    _, views = dataset_views(subject, context)
    if mixture is None or subject.faults:
        raise ConfigError("the mixture has faults: correct them before it is copied")
    if mixture.path is not None and file.absolute() == mixture.path.absolute():
        raise ConfigError(
            "the mixture itself is never changed", where=str(file), hint="Name another file."
        )
    value: Any = {"datasets": [{"root": root} for root in mixture.roots]}
    if mixture.path is not None:
        value = load_document(mixture.path).value
    excluded = episodes_to_exclude(report)
    entries = value[_KEY]["datasets"] if _KEY in value else value["datasets"]
    for view in views:
        _exclude(entries, view, excluded.get(view.name, {}))
    content = (json.dumps(value, indent=4, ensure_ascii=False) + "\n").encode()
    recipe = Recipe(
        "validate",
        {"mixture": {"count": len(mixture.datasets), "sha256": mixture.sha256}},
        {
            "deep": report.deep,
            "excluded": {
                name: {str(episode): codes for episode, codes in sorted(episodes.items())}
                for name, episodes in excluded.items()
            },
            "content": sha256_of(content),
        },
    )
    place = file_place("exclusions", file)
    return publish(place, content, recipe, force=context.force, dry_run=context.dry_run)


def _exclude(entries: list[Any], view: DatasetView, episodes: Mapping[int, object]) -> None:
    root = view.dataset.root
    for own in view.named_by:
        entry = entries[own.index]
        if "root" in entry and isinstance(entry["root"], str) and not is_remote(root):
            entry["root"] = os.path.abspath(root)
        entry.setdefault("repo_id", view.dataset.repo_id)
        chosen = own.config.episodes
        wanted = {e for e in episodes if chosen is None or e in chosen}
        both = sorted(wanted | set(own.config.excluded_episodes or ()))
        if both:
            entry["excluded_episodes"] = both
