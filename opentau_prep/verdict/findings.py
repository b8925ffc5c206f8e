"""The findings' part of the report: what `validate --write` left, or what a new check finds.

Stored findings are taken where they are fresh and name nothing to settle. Else the datasets are
checked anew, in memory: a fault that was settled since is gone, one that nobody has looked for yet
is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.store import State
from opentau_prep.config.salvage import Salvage
from opentau_prep.errors import PrepError
from opentau_prep.storage import is_remote
from opentau_prep.validate import Finding, validate
from opentau_prep.validate.catalogue import find_rule
from opentau_prep.validate.check import without_consequences
from opentau_prep.validate.findings import SEVERITIES, hit
from opentau_prep.validate.persist import (
    findings_place,
    inspect_findings,
    inspect_mixture_findings,
)
from opentau_prep.verdict.artifacts import damaged, judged
from opentau_prep.verdict.details import FindingFacts, ValidationFacts
from opentau_prep.verdict.facts import ArtifactFacts

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.dataset import Dataset
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.stats.faults import DataFault
    from opentau_prep.validate.persist import FoundFindings

__all__ = ["validation_facts"]

MAX_FINDINGS = 200


def validation_facts(
    resolved: ResolvedMixture, context: RunContext, faults: Mapping[str, Sequence[DataFault]]
) -> tuple[ValidationFacts, list[ArtifactFacts]]:
    """Return the findings, and the state of the files that hold them.

    Args:
        resolved: The mixture.
        context: Where artifacts are.
        faults: Dataset -> what `stats` saw in its frames, where that is fresh.
    """
    datasets = [d for d in resolved.located_datasets if d.fault is None or not is_remote(d.root)]
    found: list[FoundFindings] = []
    artifacts: list[ArtifactFacts] = []
    for dataset in datasets:
        names, root = tuple(entry.name for entry in resolved.entries_of(dataset)), dataset.root
        try:
            each = inspect_findings(dataset, context, resolved.mixture)
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
    findings = [finding for each in found for finding in each.findings or ()]
    if len(found) <= len(datasets) or not all(map(_is_settled, found)):
        findings = _checked_again(resolved.mixture, context, found)
    for dataset in datasets:
        seen = list(_seen_by_stats(resolved, dataset, faults.get(dataset.artifact_name, ())))
        findings = _joined(findings, seen, dataset.artifact_name) if seen else findings
    return _facts(found, everyone, findings), artifacts


def _joined(findings: list[Finding], seen: list[Finding], name: str) -> list[Finding]:
    own = [finding for finding in findings if finding.dataset == name]
    if any(finding.severity == "error" for finding in own):  # of which columns may be unusable
        seen = [finding for finding in seen if finding.code != "D001"]
    others = [finding for finding in findings if finding.dataset != name]
    return [*without_consequences([*own, *seen]), *others]


def _seen_by_stats(
    resolved: ResolvedMixture, dataset: Dataset, faults: Sequence[DataFault]
) -> Iterator[Finding]:
    """Yield what `validate --deep` would find, since `stats` has read the same frames.

    An entry that selects episodes may have left these out: then only that reading can tell.
    """
    entries = resolved.entries_of(dataset)
    for fault in faults:
        is_time = fault.feature == "timestamp"
        code = {"unusable_column": "D001", "non_finite": "T001" if is_time else "D002"}.get(
            fault.code
        )
        used = is_time or fault.feature in entries[0].name_map.columns.values()
        if code is None or not used:
            continue
        message = f"{fault.message.partition('; ')[0].partition(': ')[2]}; `validate --deep` says"
        where = hit(f"{message} where", file="data", column=fault.feature, dims=fault.dims)
        finding = find_rule(code).finding(where, dataset.artifact_name)
        some = all(entry.is_subset for entry in entries)
        yield replace(finding, severity="warning") if some else finding


def _is_settled(found: FoundFindings) -> bool:
    """Whether a file of findings is fresh and names nothing that a later command may settle."""
    fresh = found.inspection.state is State.FRESH and found.findings is not None
    return fresh and all(each.severity == "note" for each in found.findings or ())


def _checked_again(
    mixture: Mixture, context: RunContext, found: Sequence[FoundFindings]
) -> list[Finding]:
    """Return what is wrong now; what needs the frames is taken from fresh deep findings."""
    report = validate(Salvage.of(mixture), replace(context, shard=None))
    of_frames = [
        finding
        for each in found
        if each.deep and each.inspection.state is State.FRESH
        for finding in each.findings or ()
        if find_rule(finding.code).scope == "frames"
    ]
    return [*report.findings, *of_frames]


def _facts(
    found: list[FoundFindings], names: list[str], findings: Sequence[Finding]
) -> ValidationFacts:
    read = {each.dataset for each in found if each.findings is not None}.intersection(names)
    return ValidationFacts(
        len(read),
        [name for name in names if name not in read],
        sum(each.deep and each.dataset in read for each in found),
        **_worst_first(findings),
    )


def _worst_first(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the fields of `ValidationFacts` that findings fill."""
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    counted = Counter(finding.severity for finding in ordered)
    shown = [
        FindingFacts(
            f.code, f.severity, f.dataset, str(f.place), f.message, f.hint, f.command or ""
        )
        for f in ordered[:MAX_FINDINGS]
    ]
    return {
        "counts": {severity: counted[severity] for severity in SEVERITIES},
        "findings": shown,
        "n_hidden": max(0, len(ordered) - MAX_FINDINGS),
    }
