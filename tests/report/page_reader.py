"""Read a page as a browser's parser would: tags, texts, and everything that could act."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "hr"}
ACTIVE = {"script", "link", "img", "iframe", "object", "embed", "base", "form", "audio", "video"}


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
        if self._open and self._open[-1] == "style":
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
    """Return a page, after making sure that it asks for nothing and can do nothing."""
    page = Page(path.read_text(encoding="utf-8"))
    names = [tag for tag, _ in page.tags]
    assert not ACTIVE.intersection(names)
    assert names.count("style") == 1
    for tag, attrs in page.tags:
        for name in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "src", "srcset", "action", "xlink:href"), (tag, name)
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    for href in page.attributes("href"):
        assert href[0] == "#"
        assert href[1:] in ids
    return page
