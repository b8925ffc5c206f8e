"""The one way for a string from somebody's file into an output that a machine may obey.

Dataset names, tasks, features, robot types, paths: all of them come from downloaded files. A
terminal obeys ESC and C1 (OSC 52 writes the clipboard), every renderer obeys bidirectional
controls, GitHub obeys `::` at the start of a line, and XML has no form for most of them. Texts go
through `printable` or `printable_lines` on their way to a terminal, HTML, JUnit or GitHub, and
whole JSON documents (also SARIF) through `json_safe`, which does not change the values.

`printable` and `printable_lines` also hide credentials in URLs (`without_secrets`): a root with a
token in it is refused, and the refusal must not repeat the token into somebody's log.
"""

from __future__ import annotations

import re

__all__ = ["json_safe", "printable", "printable_lines", "several", "without_secrets"]

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


# In JSON and in messages a URL ends at a quote that no backslash escapes. A password may hold
# slashes.
_USER_INFO = re.compile(
    r"""\b([a-z][a-z0-9+.-]+)(:/+)"""
    r"""((?:[^/@\s"'<>:\\]|\\.)*:(?:[^@\s"'<>\\]|\\.)*|(?:[^/@\s"'<>\\]|\\.)+)@""",
    re.IGNORECASE,
)
_AUTHORITY = re.compile(r"""\b([a-z][a-z0-9+.-]+:/+)([^/@\s"'<>\\]*)""", re.IGNORECASE)
_QUERY = re.compile(
    r"""\b([a-z][a-z0-9+.-]+:/+(?:[^\s?#"'<>\\]|\\.)*?)(?:[?#]|%3f|%23)(?:[^\s"'<>\\]|\\.)*""",
    re.IGNORECASE,
)
# What is before the @ is a container or a repository; or a user, before a password and a colon.
_NAME_BEFORE_AT = frozenset({"abfs", "abfss", "adl", "az", "github", "wasb", "wasbs"})
_USER_BEFORE_AT = frozenset({"ftp", "git", "hdfs", "sftp", "smb", "ssh", "webdav", "webhdfs"})
_TOKEN_LIKE = re.compile(r"^(?:gh[a-z]_|github_pat_)|[0-9].*[A-Z]|[A-Z].*[0-9]|^.{30,}$")


def printable(text: str) -> str:
    r"""Return text on one line, with what is not shown but obeyed spelled out: `\x1b`, `\u202e`."""
    shown = text if text.isprintable() else "".join(map(_spelled, text))
    return without_secrets(shown)  # afterwards: a control in a URL would hide it from the search


def printable_lines(text: str) -> str:
    """Return text as `printable` does, but with its line breaks and tabs."""
    if text.isprintable():
        return without_secrets(text)
    return without_secrets("".join(c if c in "\n\t" else _spelled(c) for c in text))


def json_safe(document: str) -> str:
    r"""Return a JSON document of the same value in which unsafe characters are `\uXXXX` escapes."""
    return _UNSAFE_IN_JSON.sub(_json_escape, document)


def without_secrets(text: str) -> str:
    """Return a text with the credentials, query and fragment of every URL in it left out.

    As a path, `s3://K:S@b` has become `s3:/K:S@b`; that counts as a URL, too. JSON stays JSON.
    """
    if ":/" not in text:
        return text
    shown = _USER_INFO.sub(_without_user_info, text)
    if "%40" in shown:
        shown = _AUTHORITY.sub(_without_encoded_user_info, shown)
    return _QUERY.sub(r"\1", shown)


def _without_user_info(match: re.Match[str]) -> str:
    scheme, user_info = match.group(1).lower(), match.group(3)
    known = scheme in _NAME_BEFORE_AT or (scheme in _USER_BEFORE_AT and ":" not in user_info)
    # github://ORG:REPO@BRANCH; what is in the place of REPO may be a token all the same.
    if known and not (scheme == "github" and _TOKEN_LIKE.search(user_info.rpartition(":")[2])):
        return match.group()
    return f"{match.group(1)}{match.group(2)}***@"


def _without_encoded_user_info(match: re.Match[str]) -> str:
    # Both marks may be written as in `s3://KEY%3ASECRET%40bucket`.
    user_info, at, host = match.group(2).rpartition("%40")
    is_secret = at and "%3a" in user_info.lower()
    return f"{match.group(1)}***@{host}" if is_secret else match.group()


def _spelled(char: str) -> str:
    return char if char.isprintable() or char in _SHOWN else ascii(char)[1:-1]


def _json_escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def several(value: int, noun: str) -> str:
    """Return a number of things: `1 task`, `2 tasks`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"
