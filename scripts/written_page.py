"""What the scripts that write a page of the docs have in common."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["write_or_check"]


def write_or_check(path: Path, page: str) -> int:
    """Write a page; with `--check`, only say whether it is fresh. Return the exit code."""
    if "--check" in sys.argv[1:]:
        fresh = path.exists() and path.read_text(encoding="utf-8") == page
        print(
            f"{path.name} is {'fresh' if fresh else f'stale: run scripts/{Path(sys.argv[0]).name}'}"
        )
        return int(not fresh)
    path.write_text(page, encoding="utf-8")
    return 0
