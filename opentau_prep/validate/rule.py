"""What a rule is: a code to look up, words to understand it by, and a small function."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from opentau_prep.trainers import TRAINERS
from opentau_prep.validate.findings import Finding, Hit, Severity

__all__ = [
    "ALL_BUT_FIRST",
    "EXCLUDING",
    "FORMATS",
    "GIT_LFS_PULL",
    "GROUPS",
    "NEW",
    "OLD",
    "RUN_FIX",
    "RUN_STATS",
    "RUN_STATS_AGAIN",
    "WITH_EPISODE_STATS",
    "Rule",
    "Scope",
    "Settle",
    "Trainer",
]

Scope = Literal["dataset", "frames", "mixture"]
Trainer = Literal["opentau", "lerobot", "openpi"]

GROUPS = MappingProxyType(
    {
        "F": "format",
        "E": "episodes",
        "C": "columns and features",
        "D": "frames",
        "B": "behaviour",
        "T": "timestamps",
        "V": "videos",
        "O": "trainers",
        "S": "stats",
        "K": "tasks",
        "A": "artifacts",
        "M": "mixture",
        "H": "heads",
        "N": "tokenizer",
        "P": "forecast",
        "X": "validate itself",
    }
)

FORMATS = ("v2.0", "v2.1", "v3.0")
OLD, NEW = FORMATS[:2], FORMATS[2:]
WITH_EPISODE_STATS = FORMATS[1:]

# Trainer -> its name, the versions that the rules were read in and run against, and the formats
# that it reads: LeRobot v3.0 alone since 0.4.0, the LeRobot that openpi pins v2.x alone.
_READ_IN = MappingProxyType(
    {
        "opentau": ("OpenTau", TRAINERS["OpenTau"], FORMATS),
        "lerobot": ("LeRobot", f"{TRAINERS['LeRobot']} and 0.6.2 (7427f31)", NEW),
        "openpi": ("openpi", TRAINERS["openpi"], OLD),
    }
)
# These groups are about mixtures and what is made of them, which OpenTau alone has.
_OF_MIXTURES = "MHN"

# Rules whose episodes are better left out than trained on, which settles them. Faults of tables are
# not among them.
EXCLUDING = ("B001", "B002", "B005", "D002", "D004", "D008", "E009", "E011", "V002", "V003", "V004")
ALL_BUT_FIRST = ("E011",)  # of episodes that hold the same frames one is kept

# Commands that settle findings; `Settle.fill` puts in what the braces name.
RUN_STATS = ("opentau-prep", "stats", "{root}")
RUN_STATS_AGAIN = (*RUN_STATS, "--force")
GIT_LFS_PULL = ("git", "-C", "{root}", "lfs", "pull")
RUN_FIX = ("opentau-prep", "validate", "{root}", "--fix")

Fill = Callable[[tuple[str, ...]], str | None]


def no_command(words: tuple[str, ...]) -> str | None:
    """Say of any words that they make no command."""
    return None


@dataclass(frozen=True)
class Settle:
    """What the commands that settle findings are about.

    Attributes:
        root: The dataset's absolute path or URL; None for findings about the mixture.
        subject: The words that name what was checked: `--mixture-json` and a path, or roots.
        options: Further words for commands of this tool, such as `--artifact-root` and a path.
        mixture_id: Of the mixture file that was checked; None for roots.
    """

    root: str | None
    subject: tuple[str, ...]
    options: tuple[str, ...] = ()
    mixture_id: str | None = None

    def fill(self, words: tuple[str, ...]) -> str | None:
        """Return words as a line for a shell in any folder; None when something is not known."""
        if "&&" in words:
            first, then = words[: words.index("&&")], words[words.index("&&") + 1 :]
            both = [self.fill(first), self.fill(then)]
            return " && ".join(filter(None, both)) if all(both) else None
        filled: list[str] = []
        for word in words:
            if word == "{subject}" and self.subject:
                filled += self.subject
            elif word == "{root}" and self.root is not None:
                filled.append(self.root)
            elif word == f"{{mixture {self.mixture_id}}}":
                filled += self.subject
            elif word.startswith(("{subject}", "{root}", "{mixture ")):
                return None
            else:
                filled.append(word)
        if filled and filled[0] == "opentau-prep":
            filled += self.options
        return shlex.join(filled) if filled else None


@dataclass(frozen=True)
class Rule:
    """One thing that is looked for.

    Attributes:
        code: A letter for the group and three digits; never given to another rule.
        name: A few words in kebab case.
        severity: Of its findings.
        what: What is wrong when it fires, in one or two sentences, with the bound if there is one.
        why: Why that hurts training.
        fix: What to do about it; the hint of findings that have none of their own.
        check: Yields what it found in a `DatasetView`, or in a `MixtureView` for mixture rules.
        scope: `dataset` needs metadata and parquet footers, `frames` runs with `--deep` only.
        command: Words of the shell command that settles its findings, with `{root}` for the dataset
            and `{subject}` for the mixture or roots that were checked (`{mixture ID}`: for that
            mixture only); none where a person must act.
        trainers: The trainers that it is about; none for all.
        formats: The versions of the format that it is about.
    """

    code: str
    name: str
    severity: Severity
    what: str
    why: str
    fix: str
    check: Callable[[Any], Iterable[Hit]]
    scope: Scope = "dataset"
    command: tuple[str, ...] = ()
    trainers: tuple[Trainer, ...] = ()
    formats: tuple[str, ...] = FORMATS

    @property
    def holds_for(self) -> str:
        """The formats it is looked for in, and the versions of the trainers that its words name."""
        if self.code[0] in "AX":
            return "this tool's own files" if self.code[0] == "A" else "every run"
        if self.code[0] in _OF_MIXTURES:
            return f"OpenTau {TRAINERS['OpenTau']}"
        words = f"{self.what} {self.why}"
        named = [
            (f"{name} {version}", [each for each in reads if each in self.formats])
            for trainer, (name, version, reads) in _READ_IN.items()
            if trainer in self.trainers or (not self.trainers and name in words)
        ]
        trainers = [
            name if len(reads) in (0, len(self.formats)) else f"{name} on {' and '.join(reads)}"
            for name, reads in named
        ]
        return f"{', '.join(self.formats)}; {', '.join(trainers) or 'any trainer'}"

    @property
    def group(self) -> str:
        """The name of its group."""
        return GROUPS[self.code[0]]

    def finding(self, found: Hit, dataset: str, fill: Fill = no_command) -> Finding:
        """Return a finding of this rule; `fill` makes a command of its words."""
        return Finding(
            self.code,
            self.name,
            self.severity,
            dataset,
            found.place,
            found.message,
            found.hint or self.fix,
            fill(self.command if found.command is None else found.command),
            found.places,
        )

    def as_json(self) -> dict[str, str]:
        """Return the rule JSON-ready."""
        words = {name: getattr(self, name) for name in ("code", "name", "severity", "group")}
        words["trainers"] = ", ".join(self.trainers)
        words["holds_for"] = self.holds_for
        return {**words, "scope": self.scope, "what": self.what, "why": self.why, "fix": self.fix}
