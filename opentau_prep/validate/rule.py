"""What a rule is: a code to look up, words to understand it by, and a small function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from opentau_prep.validate.findings import Finding, Hit, Severity

__all__ = ["GROUPS", "Rule", "Scope"]

Scope = Literal["dataset", "frames", "mixture"]

GROUPS = MappingProxyType(
    {
        "F": "format",
        "E": "episodes",
        "C": "columns and features",
        "D": "frames",
        "T": "timestamps",
        "S": "stats",
        "K": "tasks",
        "A": "artifacts",
        "M": "mixture",
        "H": "heads",
        "N": "tokenizer",
        "X": "validate itself",
    }
)


@dataclass(frozen=True)
class Rule:
    """One thing that is looked for.

    Attributes:
        code: A letter for the group and three digits; never given to another rule.
        name: A few words in kebab case.
        severity: Of its findings.
        what: What is wrong when it fires, in one or two sentences, with the bound if there is one.
        why: Why that hurts training.
        mend: What to do about it; the hint of findings that have none of their own.
        check: Yields what it found in a `DatasetView`, or in a `MixtureView` for mixture rules.
        scope: `dataset` needs metadata and parquet footers, `frames` runs with `--deep` only.
    """

    code: str
    name: str
    severity: Severity
    what: str
    why: str
    mend: str
    check: Callable[[Any], Iterable[Hit]]
    scope: Scope = "dataset"

    @property
    def group(self) -> str:
        """The name of its group."""
        return GROUPS[self.code[0]]

    def finding(self, found: Hit, dataset: str) -> Finding:
        """Return a finding of this rule."""
        return Finding(
            self.code,
            self.name,
            self.severity,
            dataset,
            found.place,
            found.message,
            found.hint or self.mend,
        )

    def as_json(self) -> dict[str, str]:
        """Return the rule JSON-ready."""
        words = {name: getattr(self, name) for name in ("code", "name", "severity", "group")}
        return {**words, "scope": self.scope, "what": self.what, "why": self.why, "mend": self.mend}
