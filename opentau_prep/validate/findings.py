"""What a rule found, and where: findings are data, the same in every output format."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from opentau_prep.errors import MetadataError

if TYPE_CHECKING:
    from opentau_prep.engine import Failure
    from opentau_prep.metadata.dataset import Dataset

__all__ = [
    "SEVERITIES",
    "Finding",
    "Hit",
    "Severity",
    "Spot",
    "ValidateReport",
    "fold",
    "hit",
    "listed",
]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_LISTED = 10
_FOLDED = 3
_VERBS = {
    "have": "has",
    "are": "is",
    "do": "does",
    "belong": "belongs",
    "name": "names",
    "change": "changes",
    "end": "ends",
    "play": "plays",
}
_ONE = re.compile(
    r"(?<![\d,.])"
    r"(1 ((?:data |video )?file|episode|task string|task|dim|frame|null value|value|row|line))s"
    rf"( (?:{'|'.join(_VERBS)})\b)?"
)


@dataclass(frozen=True)
class Spot:
    """Where something is wrong; every part is optional.

    Attributes:
        file: Relative to the dataset root; the mixture's own path for mixture rules.
        episodes: `episode_index` values.
        column: A column of the data, or a feature of the stats.
        dims: Dims of that column.
    """

    file: str | None = None
    episodes: tuple[int, ...] = ()
    column: str | None = None
    dims: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the place JSON-ready; `from_json` reads it back."""
        return {
            "file": self.file,
            "episodes": list(self.episodes),
            "column": self.column,
            "dims": list(self.dims),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Spot:
        """Return the place that `as_json` gave.

        Raises:
            TypeError: A part has the wrong type; KeyError and ValueError likewise.
        """
        file, column = document["file"], document["column"]
        if not all(part is None or isinstance(part, str) for part in (file, column)):
            raise TypeError("file and column are strings")
        episodes, dims = (tuple(map(int, document[name])) for name in ("episodes", "dims"))
        return cls(file, episodes, column, dims)

    def __str__(self) -> str:
        parts = [self.file] if self.file else []
        if self.episodes:
            word = "episode" if len(self.episodes) == 1 else "episodes"
            parts.append(f"{word} {listed(self.episodes)}")
        if self.column:
            parts.append(self.column)
        if self.dims:
            parts.append(f"{'dim' if len(self.dims) == 1 else 'dims'} {listed(self.dims)}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Hit:
    """What a check yields; the runner adds the rule and the dataset.

    Attributes:
        message: What was found against what was expected, in one sentence.
        hint: What to do; empty takes the rule's own words.
        place: Where.
        command: Words of the command that settles it (see `Rule.command`); None takes the rule's,
            and no words say that a person must act.
        places: Every place, when several hits were folded into this one.
    """

    message: str
    hint: str
    place: Spot
    command: tuple[str, ...] | None = None
    places: tuple[Spot, ...] = ()


def hit(
    message: str,
    hint: str = "",
    *,
    file: str | None = None,
    episodes: Iterable[Any] = (),
    column: str | None = None,
    dims: Iterable[Any] = (),
    command: tuple[str, ...] | None = None,
) -> Hit:
    """Return a hit; NumPy integers are taken for episodes and dims."""
    place = Spot(file, tuple(int(e) for e in episodes), column, tuple(int(d) for d in dims))
    return Hit(_ONE.sub(_singular, message), hint, place, command)


def fold(hits: Iterable[Hit]) -> list[Hit]:
    """Fold the hits of one rule in one dataset that have the same advice into one hit each.

    300 files with the same fault are one fact with a count and the first places; the same fault of
    two columns is one fact with both columns.
    """
    groups: dict[tuple[object, ...], list[Hit]] = {}
    for each in hits:
        groups.setdefault((each.hint, each.command), []).append(each)
    return [group[0] if len(group) == 1 else _folded(group) for group in groups.values()]


def _folded(group: Sequence[Hit]) -> Hit:
    places = tuple(each.place for each in group)
    same_file = len({place.file for place in places}) == 1
    place = Spot(places[0].file) if same_file else Spot()
    shown = [replace(p, file=None) if same_file else p for p in places]
    messages = {each.message for each in group}
    if len(messages) == 1:
        word = "files" if not same_file and all(p == Spot(p.file) for p in shown) else "times"
        what = listed([str(p) for p in shown], _FOLDED)
        message = f"{messages.pop()} ({len(group):,} {word}: {what})"
    else:
        wording = [
            f"{p}: {h.message}" if str(p) else h.message for p, h in zip(shown, group, strict=True)
        ]
        message = listed(wording, _FOLDED, "; ")
    return replace(group[0], message=message, place=place, places=places)


def _singular(match: re.Match[str]) -> str:
    verb = match.group(3) or ""  # messages are written for several
    return match.group(1) + (f" {_VERBS[verb.strip()]}" if verb else "")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: The rule's code, such as `F001`.
        name: The rule's name, such as `info-unreadable`.
        severity: `error` (training would fail or learn from wrong numbers), `warning`, or `note`.
        dataset: The dataset's name; the mixture's file name for findings about the mixture.
        place: Where in it.
        message: What is wrong, in one sentence.
        hint: What to do about it, in words.
        command: The shell command that settles it, ready to paste in any folder; None where a
            person must act.
        places: Every place, where several equal facts are this one finding.
    """

    code: str
    name: str
    severity: Severity
    dataset: str
    place: Spot
    message: str
    hint: str
    command: str | None = None
    places: tuple[Spot, ...] = ()

    @property
    def advice(self) -> str:
        """What to do about it in words, which say so where no command does it."""
        return self.hint if self.command else f"By hand: {self.hint}"

    @property
    def count(self) -> int:
        """How many equal facts this finding counts."""
        return max(len(self.places), 1)

    @property
    def fingerprint(self) -> str:
        """Tell this finding from others, whatever its numbers: what a baseline remembers."""
        key: tuple[object, ...] = (self.code, self.dataset)
        for place in self.places or (self.place,):
            key += (place.file, place.episodes, place.column, place.dims)
        return hashlib.sha256(repr(key).encode("utf-8", "backslashreplace")).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """Return the finding JSON-ready; `from_json` reads it back."""
        return {
            "code": self.code,
            "name": self.name,
            "severity": self.severity,
            "dataset": self.dataset,
            **self.place.as_json(),
            "message": self.message,
            "hint": self.hint,
            "command": self.command,
            "count": self.count,
            "places": [place.as_json() for place in self.places],
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], dataset: str) -> Finding:
        """Return the finding that `as_json` gave.

        Args:
            document: The mapping.
            dataset: What it is filed under.

        Raises:
            MetadataError: It is malformed.
        """
        try:
            texts = {name: document[name] for name in ("code", "name", "message", "hint")}
            place = Spot.from_json(document)
            places = tuple(Spot.from_json(each) for each in document.get("places", ()))
            severity = next(s for s in SEVERITIES if s == document["severity"])
            command = document.get("command")
        except (AttributeError, KeyError, TypeError, ValueError, StopIteration) as error:
            raise MetadataError("holds something that is no finding", where=dataset) from error
        words = [*texts.values(), *([] if command is None else [command])]
        if not all(isinstance(text, str) for text in words):
            raise MetadataError("holds something that is no finding", where=dataset)
        return cls(
            severity=severity,
            dataset=dataset,
            place=place,
            command=command,
            places=places,
            **texts,
        )


def listed(values: Sequence[object], limit: int = _LISTED, separator: str = ", ") -> str:
    """Return values for a message: the first few, and how many more there are."""
    text = separator.join(str(value) for value in values[:limit])
    more = len(values) - limit
    return f"{text} and {more:,} more" if more > 0 else text


@dataclass(frozen=True)
class ValidateReport:
    """The findings.

    Attributes:
        findings: By dataset in mixture order, then the mixture's.
        datasets: The datasets that were checked.
        mixture: What findings about the mixture are filed under.
        deep: Whether frames were read.
        codes: The rules that counted.
        known: How many findings the baseline accepted.
    """

    findings: Sequence[Finding]
    datasets: Sequence[Dataset]
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
            "datasets": [
                {"dataset": each.artifact_name, "root": each.root} for each in self.datasets
            ],
            "deep": self.deep,
            "counts": self.counts,
            "accepted_by_baseline": self.known,
            "findings": [finding.as_json() for finding in self.findings],
        }
