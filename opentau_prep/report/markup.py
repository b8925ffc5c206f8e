"""HTML that cannot be broken out of: a tree of elements whose every text and value is escaped.

There is no way to put in markup as text. The one exception is `style`, whose content HTML does not
unescape: it takes the package's own style sheet only.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Union

from opentau_prep.text import printable_lines

__all__ = ["Element", "Node", "el", "render"]

_NAME = re.compile(r"[a-z][a-zA-Z0-9-]*")
_VOID = frozenset({"meta", "br", "hr"})
_RAW = frozenset({"style"})
# White space means nothing around these: a line for each keeps the page fit for diffs.
_BLOCKS = frozenset(
    [
        "head",
        "body",
        "main",
        "header",
        "footer",
        "nav",
        "section",
        "meta",
        "title",
        "style",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "div",
        "details",
        "summary",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "pre",
    ]
)


@dataclass(frozen=True)
class Element:
    """One element; made by `el`.

    Attributes:
        tag: Its name.
        attributes: Name -> value, in order.
        children: Elements and texts.
    """

    tag: str
    attributes: Mapping[str, str]
    children: tuple[Element | str, ...]


Node = Union["Element", str, int, float, None, Iterable["Node"]]
"""What an element may hold: elements, texts, numbers, nothing, or several of these."""


def el(tag: str, *children: Node, **attributes: str | float | bool | None) -> Element:
    """Return an element.

    Args:
        tag: Its name.
        *children: What it holds; texts are escaped when it is rendered.
        **attributes: `class_` stands for `class`, other underscores for hyphens. None and False
            leave an attribute out, True leaves its value empty.
    """
    named: dict[str, str] = {}
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(name) or name.startswith("on") or name in ("style", "src"):
            raise ValueError(f"attribute {name!r}")
        if value is None or value is False:
            continue
        if name == "href" and not str(value).startswith("#"):
            raise ValueError("links lead to places on the page only")
        named[name] = "" if value is True else str(value)
    if not _NAME.fullmatch(tag) or tag == "script":
        raise ValueError(f"element {tag!r}")
    return Element(tag, named, tuple(_flat(children)))


def render(element: Element) -> str:
    """Return an element as HTML."""
    return "".join(_pieces(element))


def _pieces(element: Element) -> Iterator[str]:
    attributes = "".join(
        f' {name}="{_escaped(value)}"' if value else f" {name}"
        for name, value in element.attributes.items()
    )
    if element.tag in _BLOCKS:
        yield "\n"
    yield f"<{element.tag}{attributes}>"
    if element.tag in _VOID:
        return
    for child in element.children:
        if isinstance(child, Element):
            yield from _pieces(child)
        else:
            yield _raw(child) if element.tag in _RAW else _escaped(child)
    yield f"</{element.tag}>"


def _escaped(text: str) -> str:
    return html.escape(printable_lines(text), quote=True)


def _raw(text: str) -> str:
    if "<" in text:
        raise ValueError("a style sheet must not hold markup")
    return text


def _flat(nodes: Iterable[Node]) -> Iterator[Element | str]:
    for node in nodes:
        if isinstance(node, (Element, str)):
            yield node
        elif isinstance(node, (int, float)):
            yield str(node)
        elif node is not None:
            yield from _flat(node)
