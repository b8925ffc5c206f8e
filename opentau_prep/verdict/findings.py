"""The findings' part of the report, from what `validate --write` left with the datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from opentau_prep.errors import PrepError
from opentau_prep.storage import is_remote
from opentau_prep.validate import Finding
from opentau_prep.validate.findings import SEVERITIES
from opentau_prep.validate.persist import (
    findings_place,
    inspect_findings,
    inspect_mixture_findings,
)
from opentau_prep.verdict.artifacts import damaged, judged
from opentau_prep.verdict.details import FindingFacts, ValidationFacts
from opentau_prep.verdict.facts import ArtifactFacts

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.validate.persist import FoundFindings

__all__ = ["validation_facts"]

MAX_FINDINGS = 200


def validation_facts(
    resolved: ResolvedMixture, context: RunContext
) -> tuple[ValidationFacts, list[ArtifactFacts]]:
    """Return the findings, and the state of the files that hold them."""
    datasets = [d for d in resolved.located_datasets if d.fault is None or not is_remote(d.root)]
    found: list[FoundFindings] = []
    artifacts: list[ArtifactFacts] = []
    for dataset in datasets:
        names, root = tuple(entry.name for entry in resolved.entries_of(dataset)), dataset.root
        try:
            each = inspect_findings(dataset, context)
        except PrepError as fault:
            path = findings_place(dataset, context).path
            words = damaged("validate", "findings", names, path, fault, root=root)
            artifacts.append(words)
            continue
        state = judged("validate", "findings", names, each.inspection, root=root)
        if each.findings is None and each.inspection.content is not None:
            why = "holds no list of findings"
            state = replace(state, state="damaged", level="do", detail=why, force=True)
        artifacts.append(state)
        found.append(each)
    everyone = [dataset.artifact_name for dataset in datasets]
    try:
        of_mixture = inspect_mixture_findings(resolved.mixture, context)
    except PrepError as fault:
        place = context.prep_path(resolved.mixture, "validation")
        artifacts.append(damaged("validate", "findings", (), place, fault))
    else:
        state = judged("validate", "findings", (), of_mixture.inspection)
        if of_mixture.inspection.content is None and found:
            # Without it the datasets were checked alone: no mixture-wide rule was applied.
            state = replace(state, detail="of the mixture as a whole")
        artifacts.append(state)
        found.append(of_mixture)
    return _facts(found, everyone), artifacts


def _facts(found: list[FoundFindings], names: list[str]) -> ValidationFacts:
    read = {each.dataset for each in found if each.findings is not None}.intersection(names)
    findings = sorted(_all(found), key=lambda finding: SEVERITIES.index(finding.severity))
    counted = Counter(finding.severity for finding in findings)
    return ValidationFacts(
        len(read),
        [name for name in names if name not in read],
        sum(each.deep and each.dataset in read for each in found),
        {severity: counted[severity] for severity in SEVERITIES},
        [
            FindingFacts(
                f.code, f.severity, f.dataset, str(f.place), f.message, f.hint, f.command or ""
            )
            for f in findings[:MAX_FINDINGS]
        ],
        max(0, len(findings) - MAX_FINDINGS),
    )


def _all(found: list[FoundFindings]) -> Iterator[Finding]:
    for each in found:
        yield from each.findings or ()
