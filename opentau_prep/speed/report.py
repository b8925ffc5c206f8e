"""What `speed-percentiles` has to report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentau_prep.engine import Failure
    from opentau_prep.speed.rows import SpeedRow

__all__ = ["SpeedReport", "SpeedResult"]


@dataclass(frozen=True)
class SpeedResult:
    """One dataset's speed percentiles.

    Attributes:
        name: The dataset's name in the mixture.
        root: Its folder.
        status: `written`, `up to date`, `appended`, `kept` (a file that is trusted as it is),
            `not persisted` or `would write`.
        path: The artifact.
        rows: One per task, what training will use.
        n_episodes: The episodes that they are of.
        changes: What changed since a stale file was made.
        backup: Where a replaced file is kept.
        files_opened: How many files were opened below `meta` and `data`.
    """

    name: str
    root: str
    status: str
    path: Path
    rows: Sequence[SpeedRow]
    n_episodes: int
    changes: Sequence[str] = ()
    backup: Path | None = None
    files_opened: Mapping[str, int] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the result JSON-ready."""
        return {
            "dataset": self.name,
            "root": self.root,
            "status": self.status,
            "path": str(self.path),
            "episodes": self.n_episodes,
            "tasks": [row.as_json() for row in self.rows],
            "changes": list(self.changes),
            "backup": None if self.backup is None else str(self.backup),
            "files_opened": self.files_opened,
        }


@dataclass(frozen=True)
class SpeedReport:
    """The outcome for all datasets, in mixture order.

    Attributes:
        results: Of the datasets that worked.
        failures: Of those that did not.
    """

    results: Sequence[SpeedResult]
    failures: Sequence[Failure]

    @property
    def needs_attention(self) -> bool:
        """Whether a dataset failed."""
        return bool(self.failures)

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {
            "datasets": [result.as_json() for result in self.results],
            "failures": [failure.as_json() for failure in self.failures],
        }
