"""A report as SARIF 2.1.0 (OASIS), which code-scanning services show next to the files."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from opentau_prep import __version__
from opentau_prep.storage import is_remote
from opentau_prep.text import printable
from opentau_prep.validate.catalogue import all_rules

if TYPE_CHECKING:
    from opentau_prep.validate.findings import Finding
    from opentau_prep.validate.report import ValidateReport
    from opentau_prep.validate.rule import Rule

__all__ = ["as_sarif"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVEL = {"error": "error", "warning": "warning", "note": "note"}


def as_sarif(report: ValidateReport) -> str:
    """Return one run with every rule that counted, and one result per finding."""
    rules = [rule for rule in all_rules() if rule.code in set(report.codes)]
    index = {rule.code: number for number, rule in enumerate(rules)}
    roots = {target.name: target.root for target in report.targets}
    run = {
        "tool": {
            "driver": {
                "name": "opentau-prep",
                "version": __version__,
                "rules": [_rule(rule) for rule in rules],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index, roots) for finding in report.findings],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.what},
        "fullDescription": {"text": f"{rule.what} {rule.why}"},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": _LEVEL[rule.severity]},
    }


def _result(finding: Finding, index: dict[str, int], roots: dict[str, str]) -> dict[str, Any]:
    place = str(finding.place)
    text = f"{finding.dataset}: {place + ': ' if place else ''}{finding.message}. {finding.hint}"
    if finding.command:
        text += f" Run: {finding.command}"
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "level": _LEVEL[finding.severity],
        "message": {"text": printable(text)},
        "partialFingerprints": {"opentauPrep/v1": finding.fingerprint},
        "properties": {
            "dataset": printable(finding.dataset),
            "episodes": list(finding.place.episodes),
            "command": finding.command,
        },
    }
    if finding.code in index:
        result["ruleIndex"] = index[finding.code]
    root = roots.get(finding.dataset)
    file = (
        finding.place.file if root is None else f"{root}/{finding.place.file or 'meta/info.json'}"
    )
    if file:
        result["locations"] = [{"physicalLocation": {"artifactLocation": {"uri": _uri(file)}}}]
    return result


def _uri(file: str) -> str:
    """Return a URI, relative where the file lies below the working directory, as checkouts do."""
    if is_remote(file):
        return file
    path = os.path.relpath(file) if os.path.isabs(file) else file
    if path.startswith(".."):
        return f"file://{quote(os.path.abspath(file), errors='surrogateescape')}"
    return quote(path, errors="surrogateescape")
