"""The one way for a string from somebody's file into an output that a machine may obey.

Dataset names, tasks, features, robot types, paths: all of them come from downloaded files. A
terminal obeys ESC and C1 (OSC 52 writes the clipboard), every renderer obeys bidirectional
controls, GitHub obeys `::` at the start of a line, and XML has no form for most of them. Texts go
through `printable` or `printable_lines` on their way to a terminal, HTML, JUnit or GitHub, and
whole JSON documents (also SARIF) through `json_safe`, which does not change the values.
"""

from __future__ import annotations

import re

__all__ = ["json_safe", "printable", "printable_lines", "several"]

# Not "printable" to Python, but shown: the spaces of other scripts, and the joiners without which
# Persian and many emoji are misspelled.
_SHOWN = frozenset("\xa0\u1680\u202f\u205f\u3000\u200c\u200d").union(
    map(chr, range(0x2000, 0x200B))
)
# DEL, C1, soft hyphen, bidirectional and other invisible format characters, line and paragraph
# separators, halves of surrogate pairs, noncharacters, tags. C0 is escaped in any JSON document.
_UNSAFE_IN_JSON = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e0fff]"
)


def printable(text: str) -> str:
    r"""Return text on one line, with what is not shown but obeyed spelled out: `\x1b`, `\u202e`."""
    return text if text.isprintable() else "".join(map(_spelled, text))


def printable_lines(text: str) -> str:
    """Return text as `printable` does, but with its line breaks and tabs."""
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" else _spelled(char) for char in text)


def json_safe(document: str) -> str:
    r"""Return a JSON document of the same value in which unsafe characters are `\uXXXX` escapes."""
    return _UNSAFE_IN_JSON.sub(_json_escape, document)


def _spelled(char: str) -> str:
    return char if char.isprintable() or char in _SHOWN else ascii(char)[1:-1]


def _json_escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def several(value: int, noun: str) -> str:
    """Return a number of things: `1 task`, `2 tasks`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"
