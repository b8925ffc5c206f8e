"""What `validate` found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from opentau_prep.validate.findings import SEVERITIES, Finding

if TYPE_CHECKING:
    from opentau_prep.engine import Failure
    from opentau_prep.validate.view import Target

__all__ = ["ValidateReport"]


@dataclass(frozen=True)
class ValidateReport:
    """The findings.

    Attributes:
        findings: By dataset in mixture order, then the mixture's.
        targets: The datasets that were checked.
        mixture: The mixture file's name, or `roots`.
        deep: Whether frames were read.
        codes: The rules that counted.
        known: How many findings the baseline accepted.
    """

    findings: Sequence[Finding]
    targets: Sequence[Target]
    mixture: str
    deep: bool
    codes: Sequence[str]
    known: int = 0

    @property
    def failures(self) -> Sequence[Failure]:
        """None: what cannot be read is a finding."""
        return ()

    @property
    def counts(self) -> dict[str, int]:
        """Severity -> number of findings."""
        found = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 1 when there are errors, or, where `strict`, warnings; else 0."""
        return int(bool(self.counts["error"] or (strict and self.counts["warning"])))

    @property
    def needs_attention(self) -> bool:
        """Whether there are errors."""
        return self.exit_code() != 0

    def without(self, fingerprints: frozenset[str]) -> ValidateReport:
        """Return the report without the findings that a baseline accepts."""
        new = [f for f in self.findings if f.fingerprint not in fingerprints]
        return replace(self, findings=new, known=len(self.findings) - len(new))

    def of(self, dataset: str) -> list[Finding]:
        """Return the findings of one dataset."""
        return [finding for finding in self.findings if finding.dataset == dataset]

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {
            "datasets": [{"dataset": t.name, "root": t.root} for t in self.targets],
            "deep": self.deep,
            "counts": self.counts,
            "accepted_by_baseline": self.known,
            "findings": [finding.as_json() for finding in self.findings],
        }
