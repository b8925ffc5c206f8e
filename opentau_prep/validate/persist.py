"""Findings as an artifact: `meta/validation.json` of each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import dataset_place
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.artifacts.provenance import Recipe
from opentau_prep.artifacts.store import Outcome, publish
from opentau_prep.errors import PrepError
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.notices import collect_notices

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.validate.report import ValidateReport
    from opentau_prep.validate.view import Target

__all__ = ["write_findings"]


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
    place = dataset_place(
        "validation",
        Path(target.root),
        dataset=target.repo_id,
        artifact_root=context.artifact_root,
    )
    content = {
        "deep": report.deep,
        "findings": [
            {k: v for k, v in finding.as_json().items() if k != "dataset"}
            for finding in report.of(target.name)
        ],
    }
    recipe = Recipe("validate", _inputs(target), {"rules": list(report.codes), "deep": report.deep})
    return publish(place, dump_own(content), recipe, force=context.force, dry_run=context.dry_run)


def _inputs(target: Target) -> Mapping[str, Any]:
    """Return what the findings are about; nothing where the tables cannot be read."""
    try:
        with collect_notices():
            return describe_inputs(load_dataset_metadata(target.root), data=False)
    except PrepError:
        return {}
