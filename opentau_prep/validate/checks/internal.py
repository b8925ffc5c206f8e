"""X: what kept validate from looking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from opentau_prep.validate.findings import Hit
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["NOT_CHECKED", "RULES"]


def _never(view: DatasetView) -> Iterator[Hit]:
    """Yield nothing: the runner itself reports what it could not check."""
    yield from ()


NOT_CHECKED = Rule(
    "X001",
    "not-checked",
    "error",
    "A dataset could not be checked to the end.",
    "Whatever the remaining rules would have said is not known.",
    "Run again with --verbose; a fault of the tool is worth a report.",
    _never,
)
RULES = (NOT_CHECKED,)
