"""The page: one HTML file that needs nothing else, runs nothing, and asks no network."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from opentau_prep.report.markup import Element, Node, el, render
from opentau_prep.report.sections_details import (
    heads_section,
    losses_section,
    notices_section,
    speed_section,
    tokenizer_section,
    validation_section,
)
from opentau_prep.report.sections_state import mixture_section, steps_section
from opentau_prep.report.tables import bullets, command
from opentau_prep.verdict.facts import ToDo, Verdict

__all__ = ["render_page"]

_SECTIONS = (
    ("mixture", "Mixture", mixture_section),
    ("steps", "Steps", steps_section),
    ("heads", "Norm heads", heads_section),
    ("speed", "Speed", speed_section),
    ("tokenizer", "Tokenizer", tokenizer_section),
    ("validation", "Validation", validation_section),
    ("losses", "Losses", losses_section),
    ("notices", "Notices", notices_section),
)


def render_page(facts: Verdict) -> str:
    """Return the whole HTML file; the same facts give the same text."""
    style = (resources.files("opentau_prep.report") / "assets" / "report.css").read_text("utf-8")
    name = facts.mixture.path or "datasets"
    body = el(
        "body",
        el("header", _head(facts)),
        _verdict(facts),
        el("nav", el("ul", [_link(key, title) for key, title, _ in _SECTIONS]), aria_label="Page"),
        el("main", [_section(key, title, draw(facts)) for key, title, draw in _SECTIONS]),
        _foot(facts),
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{name}: {facts.words}"),
        el("style", style),
    )
    return f"<!doctype html>{render(el('html', head, body, lang='en'))}\n"


def _policy(style: str) -> str:
    """Return a policy under which the browser runs nothing, loads nothing, and sends nothing."""
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _head(facts: Verdict) -> Node:
    mixture = facts.mixture
    told = f"mixture {mixture.mixture_id} · opentau-prep {facts.tool_version}"
    return [
        el("h1", f"Training preparation: {mixture.path or 'datasets'}"),
        el("p", told, class_="dim small"),
    ]


def _verdict(facts: Verdict) -> Element:
    words = facts.words
    level = "ok" if facts.ready else "do"
    to_do = [each for each in facts.to_do if each.level == "do"]
    to_see = [each for each in facts.to_do if each.level != "do"]
    return el(
        "section",
        el("div", el("p", el("strong", words[0].upper() + words[1:])), class_=f"verdict {level}"),
        _listed("To do before training", to_do),
        None
        if not facts.at_once
        else el("div", el("p", "Several of these at once:"), command(facts.at_once)),
        _listed("Worth a look", to_see),
        aria_label="Verdict",
    )


def _listed(title: str, items: list[ToDo]) -> Node:
    if not items:
        return None
    return [
        el("h3", title),
        el(
            "ol",
            [
                el(
                    "li",
                    el("div", each.what),
                    command(each.command) if each.command else None,
                    bullets(each.details),
                )
                for each in items
            ],
            class_="todo",
        ),
    ]


def _section(key: str, title: str, content: Node) -> Element:
    heading = el("h2", title, id=f"{key}-title")
    return el("section", heading, content, id=key, aria_labelledby=f"{key}-title")


def _link(key: str, title: str) -> Element:
    return el("li", el("a", title, href=f"#{key}"))


def _foot(facts: Verdict) -> Element:
    told = (
        f"Written by opentau-prep {facts.tool_version} from metadata and artifacts alone. The same"
        " state gives the same page."
    )
    sha = f"Mixture SHA-256: {facts.mixture.sha256}"
    return el("footer", el("p", told), el("p", el("code", sha)), class_="dim small")
