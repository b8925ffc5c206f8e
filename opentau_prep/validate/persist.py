"""Findings as an artifact: `meta/validation.json` of each dataset."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import dataset_place
from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.artifacts.place import Place as ArtifactPlace
from opentau_prep.artifacts.place import file_place
from opentau_prep.artifacts.provenance import Recipe
from opentau_prep.artifacts.store import Inspection, Outcome, inspect, publish, recorded
from opentau_prep.errors import PrepError
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.notices import collect_notices
from opentau_prep.storage import is_remote
from opentau_prep.validate.catalogue import rules_for
from opentau_prep.validate.findings import Finding, Spot

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.dataset import Dataset
    from opentau_prep.validate.findings import ValidateReport

__all__ = [
    "FoundFindings",
    "findings_place",
    "inspect_findings",
    "inspect_mixture_findings",
    "write_findings",
]

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


def inspect_findings(
    dataset: Dataset, context: RunContext, mixture: Mixture | None = None
) -> FoundFindings:
    """Return what a dataset's file of findings holds, and its state; nothing is checked or changed.

    Args:
        dataset: The dataset.
        context: Where artifacts lie.
        mixture: The mixture that names it, for the commands of its findings.

    Raises:
        ArtifactError: The file cannot be read.
    """
    place = findings_place(dataset, context)
    deep = _was_deep(place)
    codes = [rule.code for rule in rules_for()]
    found = inspect(place, Recipe(COMMAND, _inputs(dataset), {"rules": codes, "deep": deep}))
    return _read(found, dataset.artifact_name, _paths(context, mixture, dataset), deep=deep)


def _read(found: Inspection, name: str, paths: Mapping[str, str], *, deep: bool) -> FoundFindings:
    if found.content is None:
        return FoundFindings(name, found)
    try:
        document = load_own(found.content, where=str(found.path))
        findings = [
            _with(paths, Finding.from_json(each, name), back=True) for each in document["findings"]
        ]
    except (PrepError, KeyError, TypeError):
        return FoundFindings(name, found)
    return FoundFindings(name, found, findings, deep)


def write_findings(
    report: ValidateReport, context: RunContext, mixture: Mixture | None = None
) -> list[Outcome]:
    """Write each dataset's findings below its `meta/`; an empty list is written too.

    What was found about a mixture as a whole goes to `validation.json` in its own folder. Only the
    main rank writes.

    Returns:
        One outcome per file, the mixture's last; none on the other ranks.

    Raises:
        ArtifactError: A file of another tool is in the way, or the disk is full.
    """
    if not context.this_rank.is_main:
        return []
    written = [_write_one(report, dataset, context, mixture) for dataset in report.datasets]
    if mixture is not None:
        content = _document(report, report.mixture, _paths(context, mixture, *report.datasets))
        recipe = _mixture_recipe(mixture, report.codes, deep=report.deep)
        place = _mixture_place(mixture, context)
        written.append(
            publish(place, content, recipe, force=context.force, dry_run=context.dry_run)
        )
    return written


def inspect_mixture_findings(mixture: Mixture, context: RunContext) -> FoundFindings:
    """Return what a mixture's file of findings about itself holds, and its state.

    Raises:
        ArtifactError: The file cannot be read.
    """
    place = _mixture_place(mixture, context)
    deep = _was_deep(place)
    codes = [rule.code for rule in rules_for()]
    found = inspect(place, _mixture_recipe(mixture, codes, deep=deep))
    name = "mixture" if mixture.path is None else mixture.path.name
    return _read(found, name, _paths(context, mixture), deep=deep)


def _mixture_place(mixture: Mixture, context: RunContext) -> ArtifactPlace:
    return file_place("validation", context.prep_path(mixture, "validation"))


def _mixture_recipe(mixture: Mixture, codes: Sequence[str], *, deep: bool) -> Recipe:
    inputs = {"mixture": {"count": len(mixture.datasets), "sha256": mixture.sha256}}
    return Recipe(
        COMMAND,
        inputs,
        {"rules": list(codes), "deep": deep},
        mixture_id=mixture.mixture_id,
    )


def _was_deep(place: ArtifactPlace) -> bool:
    record = recorded(place)
    return record is not None and record.parameters.get("deep") is True


def _write_one(
    report: ValidateReport, dataset: Dataset, context: RunContext, mixture: Mixture | None
) -> Outcome:
    place = findings_place(dataset, context)
    paths = _paths(context, mixture, dataset)
    content = _document(report, dataset.artifact_name, paths)
    recipe = Recipe(COMMAND, _inputs(dataset), {"rules": list(report.codes), "deep": report.deep})
    return publish(place, content, recipe, force=context.force, dry_run=context.dry_run)


def _document(report: ValidateReport, name: str, paths: Mapping[str, str]) -> bytes:
    findings = [
        {k: v for k, v in _with(paths, finding).as_json().items() if k != "dataset"}
        for finding in report.of(name)
    ]
    return dump_own({"deep": report.deep, "findings": findings})


def _paths(context: RunContext, mixture: Mixture | None, *datasets: Dataset) -> dict[str, str]:
    """Return what a file holds in place of folders of this machine: placeholder -> path.

    The same findings then are the same bytes wherever the datasets are.
    """
    folders: dict[str, Path | str | None] = {
        "{artifact_root}": context.artifact_root,
        "{prep_dir}": context.prep_dir,
        "{mixture}": None if mixture is None else mixture.path,
        "{prep}": None if mixture is None else context.prep_path(mixture, "validation").parent,
    }
    for dataset in datasets:
        alone = "{root}" if len(datasets) == 1 else f"{{root of {dataset.artifact_name}}}"
        folders[alone] = None if is_remote(dataset.root) else dataset.root
    known = {name: os.path.abspath(path) for name, path in folders.items() if path is not None}
    # The longest first: one may be within another.
    return dict(sorted(known.items(), key=lambda pair: -len(pair[1])))


def _with(paths: Mapping[str, str], finding: Finding, *, back: bool = False) -> Finding:
    """Return a finding with placeholders for paths; or with the paths again, `back`."""

    def text(old: str, quoted: Callable[[str], str] = str) -> str:
        for name, path in paths.items():
            pair = (name, quoted(path)) if back else (quoted(path), name)
            old = old.replace(*pair)
        return old

    def place(old: Spot) -> Spot:
        return old if old.file is None else replace(old, file=text(old.file))

    return replace(
        finding,
        message=text(finding.message),
        hint=text(finding.hint),
        command=None if finding.command is None else text(finding.command, shlex.quote),
        place=place(finding.place),
        places=tuple(map(place, finding.places)),
    )


def findings_place(dataset: Dataset, context: RunContext) -> ArtifactPlace:
    """Return where a dataset's findings are filed."""
    return dataset_place(
        "validation",
        dataset.storage,
        dataset=dataset.artifact_name,
        artifact_root=context.artifact_root,
    )


def _inputs(dataset: Dataset) -> Mapping[str, Any]:
    """Return what the findings are about; nothing where the tables cannot be read."""
    try:
        with collect_notices():
            return describe_inputs(load_dataset_metadata(dataset.root), data=False)
    except PrepError:
        return {}
