"""What a rule has to say, and where: findings are data, told the same in every output format."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from opentau_prep.errors import MetadataError

__all__ = ["SEVERITIES", "Finding", "Hit", "Place", "Severity", "hit", "listed"]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_LISTED = 10
_VERBS = {"have": "has", "are": "is", "do": "does", "belong": "belongs", "name": "names"}
_ONE = re.compile(
    r"(?<![\d,.])(1 (data file|file|episode|task string|task|dim|frame|null value|value|row))s"
    rf"( (?:{'|'.join(_VERBS)})\b)?"
)


@dataclass(frozen=True)
class Place:
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
    """

    message: str
    hint: str
    place: Place


def hit(
    message: str,
    hint: str = "",
    *,
    file: str | None = None,
    episodes: Iterable[Any] = (),
    column: str | None = None,
    dims: Iterable[Any] = (),
) -> Hit:
    """Return a hit; NumPy integers are taken for episodes and dims."""
    place = Place(file, tuple(int(e) for e in episodes), column, tuple(int(d) for d in dims))
    return Hit(_ONE.sub(_singular, message), hint, place)


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
        hint: What to do about it.
    """

    code: str
    name: str
    severity: Severity
    dataset: str
    place: Place
    message: str
    hint: str

    @property
    def fingerprint(self) -> str:
        """Tell this finding from others, whatever its numbers: what a baseline remembers."""
        place = self.place
        key = (self.code, self.dataset, place.file, place.episodes, place.column, place.dims)
        return hashlib.sha256(repr(key).encode("utf-8", "backslashreplace")).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """Return the finding JSON-ready; `from_json` reads it back."""
        return {
            "code": self.code,
            "name": self.name,
            "severity": self.severity,
            "dataset": self.dataset,
            "file": self.place.file,
            "episodes": list(self.place.episodes),
            "column": self.place.column,
            "dims": list(self.place.dims),
            "message": self.message,
            "hint": self.hint,
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
            numbers = (tuple(map(int, document["episodes"])), tuple(map(int, document["dims"])))
            place = Place(document["file"], numbers[0], document["column"], numbers[1])
            severity = next(s for s in SEVERITIES if s == document["severity"])
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise MetadataError("holds something that is no finding", where=dataset) from error
        told = [*texts.values(), *(part for part in (place.file, place.column) if part is not None)]
        if not all(isinstance(text, str) for text in told):
            raise MetadataError("holds something that is no finding", where=dataset)
        return cls(severity=severity, dataset=dataset, place=place, **texts)


def listed(values: Sequence[object], limit: int = _LISTED) -> str:
    """Return values for a message: the first few, and how many more there are."""
    text = ", ".join(str(value) for value in values[:limit])
    more = len(values) - limit
    return f"{text} and {more:,} more" if more > 0 else text
