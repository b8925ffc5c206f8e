"""What `stats --format openpi` has to report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.stats.faults import DataFault

if TYPE_CHECKING:
    from opentau_prep.engine import Failure
    from opentau_prep.stats.openpi import Changed

__all__ = ["OpenpiReport", "OpenpiResult", "norm_stats_differences"]

# Losing more of the values than this makes stats that are not the data's.
MOST_LOST = 0.01


@dataclass(frozen=True)
class OpenpiResult:
    """One norm_stats.json.

    Attributes:
        name: The dataset's name.
        root: Its folder.
        status: `written`, `up to date`, `differs` (a file with other numbers is there and was left
            alone), `would write` or `not persisted`.
        path: The file.
        content: Its bytes, as computed.
        files_found: Parquet files in the folder.
        files_processed: Those that were read; 0 when up to date.
        frames: Frames taken in; None when nothing was read.
        findings: Files that could not be used, and values that are not finite.
        differences: What the file that is there holds otherwise.
        backup: Where a replaced file is kept.
        changed: Key -> how many of its values were zeroed, cut or added.
    """

    name: str
    root: str
    status: str
    path: Path
    content: bytes
    files_found: int
    files_processed: int
    frames: int | None
    findings: Sequence[DataFault] = ()
    differences: Sequence[str] = ()
    backup: Path | None = None
    changed: Mapping[str, Changed] = field(default_factory=dict)

    @property
    def lost(self) -> dict[str, Changed]:
        """The keys of which more than 1 % of the values were zeroed or cut."""
        return {key: c for key, c in self.changed.items() if c.lost > MOST_LOST}

    @property
    def norm_stats(self) -> dict[str, dict[str, list[float]]]:
        """Key -> stat -> list."""
        stats: dict[str, dict[str, list[float]]] = json.loads(self.content)["norm_stats"]
        return stats

    def as_json(self) -> dict[str, Any]:
        """Return the result JSON-ready."""
        return {
            "dataset": self.name,
            "root": self.root,
            "status": self.status,
            "path": str(self.path),
            "files_found": self.files_found,
            "files_processed": self.files_processed,
            "frames": self.frames,
            "findings": [finding.as_json() for finding in self.findings],
            "differences": list(self.differences),
            "backup": None if self.backup is None else str(self.backup),
            "changed_values": {key: c.as_json() for key, c in self.changed.items()},
            "norm_stats": self.norm_stats,
        }


@dataclass(frozen=True)
class OpenpiReport:
    """The outcome for all folders, in order.

    Attributes:
        results: Of the folders that worked.
        failures: Of those that did not.
    """

    results: Sequence[OpenpiResult]
    failures: Sequence[Failure]

    @property
    def needs_attention(self) -> bool:
        """Whether a folder failed, a file differs, values were lost, or frames are faulty."""
        return bool(self.failures) or any(
            r.findings or r.lost or r.status == "differs" for r in self.results
        )

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {
            "format": "openpi",
            "datasets": [result.as_json() for result in self.results],
            "failures": [failure.as_json() for failure in self.failures],
        }


def norm_stats_differences(old: bytes, new: bytes) -> tuple[str, ...]:
    """Say what a file holds otherwise than what was computed, one line a stat."""
    try:
        there = json.loads(old)["norm_stats"]
        stats = {key: dict(entry) for key, entry in there.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return ("it holds no norm stats",)
    computed = json.loads(new)["norm_stats"]
    lines = [f"{key}: only in the file" for key in stats if key not in computed]
    for key, entry in computed.items():
        lines += [_line(key, stat, stats.get(key, {}).get(stat), v) for stat, v in entry.items()]
    return tuple(line for line in lines if line)


def _line(key: str, stat: str, old: Any, new: list[float]) -> str:
    try:
        before = np.asarray(old, dtype=np.float64)
    except (TypeError, ValueError):
        before = np.zeros(0)
    if old is None:
        return f"{key}/{stat}: the file lacks it"
    if before.shape != (len(new),):
        return f"{key}/{stat}: the file has {before.size} dims, computed were {len(new)}"
    off = np.abs(before - new)
    if not (off > 0).any():
        return ""
    dim = int(np.argmax(off))
    return (
        f"{key}/{stat}: {int((off > 0).sum())} dims differ, most dim {dim}:"
        f" the file says {before[dim]:.6g}, computed {new[dim]:.6g}"
    )
