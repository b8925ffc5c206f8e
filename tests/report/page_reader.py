"""Read a page as a browser's parser would: tags, texts, and everything that could act."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from opentau_prep.report.page import DOCS

VOID = {"meta", "br", "hr", "input"}
ACTIVE = {"link", "img", "iframe", "object", "embed", "base", "form", "audio", "video"}


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        tags: Every tag, in order, with its attributes.
        texts: Every text outside the style sheet.
    """

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), tag
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            assert "</" not in data
        elif self._open and self._open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All texts, white space as one blank."""
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def attributes(self, name: str) -> list[str | None]:
        """Return the values of an attribute, wherever it stands."""
        return [attrs[name] for _, attrs in self.tags if name in attrs]


def read_page(path: Path) -> Page:
    """Return a page, after making sure that it asks for nothing and runs its own script only."""
    page = Page(path.read_text(encoding="utf-8"))
    names = [tag for tag, _ in page.tags]
    assert not ACTIVE.intersection(names)
    assert names.count("style") == names.count("script") == 1
    for tag, attrs in page.tags:
        for name in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "src", "srcset", "action", "xlink:href"), (tag, name)
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    for tag, attrs in page.tags:
        href = attrs.get("href")
        if href is not None and href[0] != "#":
            # The project's own documentation, where a reader goes by a click only.
            assert href.startswith(f"{DOCS}/"), (tag, href)
            assert attrs["rel"] == "noreferrer noopener"
        elif href is not None:
            assert href[1:] in ids
    return page
