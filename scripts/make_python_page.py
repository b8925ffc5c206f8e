"""Write docs/reference/python.md from the public names and their docstrings.

python scripts/make_python_page.py [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from written_page import write_or_check

import opentau_prep

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/python.md"
_HEAD = """# Python

Written by `scripts/make_python_page.py` from the docstrings. Everything here is importable from
`opentau_prep` and loaded on first use.
"""
_SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Yields|Example):$", re.MULTILINE)


def render() -> str:
    """Return the page: a section per name, functions with their signature."""
    lines = [_HEAD]
    for name in opentau_prep.__all__:
        if not name.startswith("__"):
            lines += [f"## `{name}`\n", *_entry(name, getattr(opentau_prep, name))]
    return "\n".join(lines)


def _entry(name: str, value: object) -> list[str]:
    found = [] if isinstance(value, type) else [f"```python\n{name}{_signature(value)}\n```\n"]
    text = (inspect.getdoc(value) or "").strip()
    first = _SECTION.search(text)
    prose, details = (text[: first.start()], text[first.start() :]) if first else (text, "")
    # Angle brackets and the like are text to a reader of the page, not HTML.
    found.append(prose.strip().replace("<", "&lt;") + "\n")
    if details:
        found.append(f"```text\n{details.strip()}\n```\n")
    return found


def _signature(value: object) -> str:
    if not callable(value):
        return ""
    # Annotations are text in our modules; Python 3.10 to 3.13 then print them alike.
    signature = inspect.signature(value)
    shown = [
        str(p.replace(annotation=inspect.Parameter.empty)) for p in signature.parameters.values()
    ]
    keyword_only = [p.kind is inspect.Parameter.KEYWORD_ONLY for p in signature.parameters.values()]
    if True in keyword_only:
        shown.insert(keyword_only.index(True), "*")
    return f"({', '.join(shown)})"


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render()))
