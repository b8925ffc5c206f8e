"""Findings as an artifact: `meta/validation.json` of each dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import dataset_place
from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.artifacts.place import Place
from opentau_prep.artifacts.provenance import Recipe
from opentau_prep.artifacts.store import Inspection, Outcome, inspect, publish
from opentau_prep.errors import PrepError
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.notices import collect_notices
from opentau_prep.validate.catalogue import all_rules
from opentau_prep.validate.findings import Finding

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.validate.report import ValidateReport
    from opentau_prep.validate.view import Target

__all__ = ["FoundFindings", "inspect_findings", "write_findings"]

COMMAND = "validate"


@dataclass(frozen=True)
class FoundFindings:
    """A dataset's file of findings as it was found.

    Attributes:
        dataset: What the findings are filed under.
        inspection: Its state.
        findings: What it holds; None when there is no file, or a damaged one.
        deep: Whether frames were read for it.
    """

    dataset: str
    inspection: Inspection
    findings: Sequence[Finding] | None = None
    deep: bool = False


def inspect_findings(target: Target) -> FoundFindings:
    """Return what a dataset's file of findings holds, and its state; nothing is checked or changed.

    Raises:
        ArtifactError: The file cannot be read.
    """
    place = _place(target, target.artifact_root)
    record = inspect(place, Recipe(COMMAND, {})).provenance
    deep = record is not None and record.parameters.get("deep") is True
    codes = [rule.code for rule in all_rules()]
    found = inspect(place, Recipe(COMMAND, _inputs(target), {"rules": codes, "deep": deep}))
    if found.content is None:
        return FoundFindings(target.name, found)
    try:
        document = load_own(found.content, where=str(found.path))
        findings = [Finding.from_json(each, target.name) for each in document["findings"]]
    except (PrepError, KeyError, TypeError):
        return FoundFindings(target.name, found)
    return FoundFindings(target.name, found, findings, deep)


def write_findings(report: ValidateReport, context: RunContext) -> list[Outcome]:
    """Write each dataset's findings below its `meta/`; an empty list is written too.

    Only the main rank writes. Returns one outcome a dataset, none on the other ranks.

    Raises:
        ArtifactError: A file of another tool is in the way, or the disk is full.
    """
    if context.rank is not None and not context.rank.is_main:
        return []
    return [_write_one(report, target, context) for target in report.targets]


def _write_one(report: ValidateReport, target: Target, context: RunContext) -> Outcome:
    place = _place(target, context.artifact_root)
    content = {
        "deep": report.deep,
        "findings": [
            {k: v for k, v in finding.as_json().items() if k != "dataset"}
            for finding in report.of(target.name)
        ],
    }
    recipe = Recipe(COMMAND, _inputs(target), {"rules": list(report.codes), "deep": report.deep})
    return publish(place, dump_own(content), recipe, force=context.force, dry_run=context.dry_run)


def _place(target: Target, artifact_root: Path | None) -> Place:
    return dataset_place(
        "validation", Path(target.root), dataset=target.repo_id, artifact_root=artifact_root
    )


def _inputs(target: Target) -> Mapping[str, Any]:
    """Return what the findings are about; nothing where the tables cannot be read."""
    try:
        with collect_notices():
            return describe_inputs(load_dataset_metadata(target.root), data=False)
    except PrepError:
        return {}
