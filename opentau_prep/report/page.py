"""The page: facts and pictures in one autoescaped template, under a policy that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from opentau_prep.text import printable_lines, several

if TYPE_CHECKING:
    from opentau_prep.report.pictures import Pictures
    from opentau_prep.verdict.details import FindingFacts
    from opentau_prep.verdict.facts import ArtifactFacts, Verdict

__all__ = ["DOCS", "SECTIONS", "render_page", "verdict_of"]

DOCS = "https://github.com/opentau-prep/opentau-prep/blob/main/docs"
SECTIONS = {
    "mixture": "Mixture",
    "steps": "Artifacts",
    "heads": "Norm heads",
    "trajectories": "Trajectories",
    "speed": "Speed",
    "tokenizer": "Tokens",
    "chunks": "Held-out chunks",
    "validation": "Findings",
    "losses": "Losses",
    "notices": "Notices",
}
"""Section -> its heading; the names are those of `--png`."""

_SHOWN = 8
_LISTED = 20


def render_page(facts: Verdict, pictures: Pictures) -> str:
    """Return the whole HTML file; the same facts and pictures give the same text."""
    style, script = _asset("report.css"), _asset("report.js")
    template = _environment().get_template("page.html.j2")
    return template.render(
        facts=facts,
        pictures=pictures,
        verdict=verdict_of(facts),
        to_do=[each for each in facts.to_do if each.level == "do"],
        to_see=[each for each in facts.to_do if each.level != "do"],
        sections=SECTIONS,
        docs=DOCS,
        policy=_policy(style, script),
        # The package's own files; neither holds a closing tag.
        style=Markup(style),
        script=Markup(script),
        artifacts=_artifacts(facts.artifacts),
        rules=_by_rule(facts.validation.findings),
        notices=_by_kind(facts.notices),
        heads={each.head.key: f"head-{each.head.row}" for each in pictures.heads},
    )


def verdict_of(facts: Verdict) -> str:
    """Return the state of the mixture in a few words."""
    to_see = facts.count("look")
    seen = f", {to_see} to look at" if to_see else ""
    state = "ready to train" if facts.ready else f"{several(facts.count('do'), 'thing')} to do"
    return state + seen


@dataclass(frozen=True)
class ArtifactKind:
    """All artifacts of one kind: how many are in which state, and those that need a look.

    Attributes:
        kind: What they are.
        command: The command that makes them.
        states: (state, colour, how many).
        total: How many there are.
        path: Where the one of the mixture as a whole is.
        described: Those with something to say.
    """

    kind: str
    command: str
    states: Sequence[tuple[str, str, int]]
    total: int
    path: str
    described: Sequence[ArtifactFacts]


def _artifacts(artifacts: Sequence[ArtifactFacts]) -> list[ArtifactKind]:
    kinds: dict[str, list[ArtifactFacts]] = {}
    for each in artifacts:
        kinds.setdefault(each.kind, []).append(each)
    found = []
    for kind, group in kinds.items():
        states = Counter((a.state, _colour(a)) for a in group)
        # Of hundreds that are all missing, the badge says it.
        listed = len(states) > 1 or len(group) <= _LISTED
        described = [a for a in group if a.detail or (a.level != "ok" and listed)]
        counted = [(state, colour, n) for (state, colour), n in states.items()]
        path = next((each.path for each in group if not each.datasets), "")
        found.append(ArtifactKind(kind, group[0].step, counted, len(group), path, described))
    return found


def _colour(each: ArtifactFacts) -> str:
    return "none" if each.state in ("optional", "published", "unknown") else each.level


def _by_rule(findings: Sequence[FindingFacts]) -> list[tuple[FindingFacts, list[FindingFacts]]]:
    """Return each rule's first finding, and all of them."""
    groups: dict[str, list[FindingFacts]] = {}
    for each in findings:
        groups.setdefault(each.code, []).append(each)
    return [(group[0], group) for group in groups.values()]


def _by_kind(notices: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for each in notices:
        groups.setdefault(str(each.get("kind", "")), []).append(str(each.get("message", "")))
    return list(groups.items())


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("opentau_prep.report", "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        number=_number, count=_count, percent=_percent, hours=_hours, several=several
    )
    made.globals.update(shown=_SHOWN)
    return made


def _shown(value: object) -> object:
    """Spell out what a browser would obey and not show; markup was escaped where it was made."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable_lines(value)
    return value


def _policy(style: str, script: str) -> str:
    """Return a policy under which the browser loads and sends nothing, and runs our script only."""
    return (
        f"default-src 'none'; style-src 'sha256-{_hash(style)}';"
        f" script-src 'sha256-{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _asset(name: str) -> str:
    return (resources.files("opentau_prep.report") / "assets" / name).read_text("utf-8")


def _number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "-"
    if not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return f"{value:.{digits}g}"


def _count(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.1%}"


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    hours = seconds / 3600
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.3f}"
