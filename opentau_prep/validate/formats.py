"""A report as text for people, as GitHub annotations, as JUnit XML, and as SARIF."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from opentau_prep import __version__
from opentau_prep.storage import is_remote
from opentau_prep.text import printable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from opentau_prep.validate.findings import Finding, ValidateReport
    from opentau_prep.validate.rule import Rule

__all__ = ["as_github", "as_junit", "as_sarif", "as_text", "explain_rule"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_GITHUB_LEVEL = {"error": "error", "warning": "warning", "note": "notice"}


def as_text(report: ValidateReport) -> str:
    """Return the findings grouped by dataset, each with its place and what to do."""
    lines: list[str] = []
    titles = _titles(report)
    for dataset in dict.fromkeys(finding.dataset for finding in report.findings):
        lines.append(printable(titles.get(dataset, dataset)))
        advised: set[str | None] = set()
        for finding in report.of(dataset):
            lines += _lines(finding, advised)
        lines.append("")
    return "\n".join([*lines, _summary(report)])


def _roots(report: ValidateReport) -> dict[str, str]:
    return {dataset.artifact_name: dataset.root for dataset in report.datasets}


def _titles(report: ValidateReport) -> dict[str, str]:
    return {name: f"{name} ({root})" for name, root in _roots(report).items()}


def _lines(finding: Finding, advised: set[str | None]) -> list[str]:
    """Return a finding, its advice and its command; what one dataset was advised before, once."""
    place = printable(str(finding.place))
    head = f"  {finding.severity:<7} {finding.code} {place + ': ' if place else ''}"
    lines = [head + printable(finding.message)]
    if finding.advice not in advised:
        lines.append(f"          {printable(finding.advice)}")
    if finding.command and finding.command not in advised:
        lines.append(f"          $ {printable(finding.command)}")
    advised |= {finding.advice, finding.command}
    return lines


def _summary(report: ValidateReport) -> str:
    checked = _plural(len(report.datasets), "dataset")
    if report.deep:
        checked += " with their frames"
    words = [_plural(n, severity) for severity, n in report.counts.items() if n]
    known = f" ({_plural(report.known, 'known finding')} accepted)" if report.known else ""
    if not words:
        return f"Checked {checked}: nothing found{known}."
    return f"Checked {checked}: {', '.join(words)}{known}."


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def as_github(report: ValidateReport) -> str:
    """Return workflow commands, one a finding, which GitHub shows as annotations."""
    roots = _roots(report)
    lines = []
    for finding in report.findings:
        file = _file(finding, roots)
        fields = [f"file={_escaped(file, property=True)}"] if file else []
        title = f"{finding.code} {finding.name}: {finding.dataset}"
        fields.append(f"title={_escaped(title, property=True)}")
        place = str(finding.place)
        text = f"{place}: {finding.message}. {finding.advice}" if place else finding.message
        level = _GITHUB_LEVEL[finding.severity]
        lines.append(f"::{level} {','.join(fields)}::{_escaped(text, property=False)}")
    return "\n".join(lines)


def _file(finding: Finding, roots: dict[str, str]) -> str | None:
    root = roots.get(finding.dataset)
    if root is None:
        return None
    return os.path.join(root, finding.place.file) if finding.place.file else root


def _escaped(text: str, *, property: bool) -> str:
    text = printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property else text


def as_junit(report: ValidateReport) -> str:
    """Return JUnit XML: a suite a dataset, a failed case a finding, a passed one where none is."""
    from xml.etree import ElementTree  # which takes a while to import

    suites = ElementTree.Element("testsuites", name="opentau-prep validate")
    names = list(_roots(report))
    for name in dict.fromkeys([*names, *(f.dataset for f in report.findings)]):
        found = report.of(name)
        failed = [f for f in found if f.severity != "note"]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=printable(name),
            tests=str(max(len(found), 1)),
            failures=str(len(failed)),
        )
        _cases(suite, name, found)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)


def _cases(suite: Element, name: str, found: Sequence[Finding]) -> None:
    from xml.etree import ElementTree

    if not found:
        ElementTree.SubElement(suite, "testcase", classname=printable(name), name="all rules")
    for finding in found:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=printable(name),
            name=printable(f"{finding.code} {finding.name} {finding.place}".strip()),
        )
        tag = "system-out" if finding.severity == "note" else "failure"
        words = ElementTree.SubElement(case, tag)
        words.text = printable(f"{finding.message}. {finding.advice}")
        if tag == "failure":
            words.set("type", finding.severity)
            words.set("message", printable(finding.message))


def explain_rule(rule: Rule) -> str:
    """Return all there is to say of a rule."""
    deep = " (with --deep)" if rule.scope == "frames" else ""
    return "\n\n".join(
        [
            f"{rule.code} {rule.name}: {rule.severity}, {rule.group}{deep}",
            rule.what,
            rule.why,
            f"To fix it: {rule.fix}",
            f"Holds for: {rule.holds_for}",
        ]
    )


def as_sarif(report: ValidateReport) -> str:
    """Return SARIF 2.1.0 (OASIS): a run with every rule that counted, and a result per finding."""
    from opentau_prep.validate.catalogue import all_rules

    rules = [rule for rule in all_rules() if rule.code in set(report.codes)]
    index = {rule.code: number for number, rule in enumerate(rules)}
    roots = _roots(report)
    run = {
        "tool": {
            "driver": {
                "name": "opentau-prep",
                "version": __version__,
                "rules": [_sarif_rule(rule) for rule in rules],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index, roots) for finding in report.findings],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.what},
        "fullDescription": {"text": f"{rule.what} {rule.why}"},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(finding: Finding, index: dict[str, int], roots: dict[str, str]) -> dict[str, Any]:
    place = str(finding.place)
    text = f"{finding.dataset}: {place + ': ' if place else ''}{finding.message}. {finding.advice}"
    if finding.command:
        text += f" Run: {finding.command}"
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "level": finding.severity,
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
