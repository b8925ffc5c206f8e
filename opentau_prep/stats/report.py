"""What `stats` has to report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.metadata.records import Stats
from opentau_prep.stats.columns import INDEX_COLUMNS, Layout
from opentau_prep.stats.compare import Difference
from opentau_prep.stats.faults import DataFault

if TYPE_CHECKING:
    from opentau_prep.artifacts.place import Location
    from opentau_prep.engine import Failure
    from opentau_prep.metadata.dataset import Extent

__all__ = [
    "DIFFERS",
    "KEPT",
    "PARTIAL",
    "QUANTILES_KEPT",
    "Coverage",
    "DeltaResult",
    "FileResult",
    "StatsReport",
    "StatsResult",
]

DIFFERS, KEPT, QUANTILES_KEPT, PARTIAL = "differs", "kept", "quantiles kept", "partial"
# The statuses of a dataset's files, what needs attention first.
_ORDER = (
    DIFFERS,
    "no finite value",
    "not persisted",
    "would write",
    KEPT,
    QUANTILES_KEPT,
    "written",
    "extended",
    "up to date",
)


@dataclass(frozen=True)
class Coverage:
    """How much of a dataset is on disk, next to what it declares."""

    present: Extent
    declared: Extent

    def __str__(self) -> str:
        return (
            f"{self.present.episodes:,} of {self.declared.episodes:,} episodes"
            f" ({self.present.frames:,} of {self.declared.frames:,} frames) are on disk"
        )

    def as_json(self) -> dict[str, int]:
        """Return the counts JSON-ready."""
        return {
            "episodes": self.present.episodes,
            "frames": self.present.frames,
            "declared_episodes": self.declared.episodes,
            "declared_frames": self.declared.frames,
        }


def _weight(difference: Difference) -> tuple[bool, bool, float]:
    finite = bool(np.isfinite(difference.share))
    return difference.feature not in INDEX_COLUMNS, finite, difference.share


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    Attributes:
        name: The file, relative to the dataset.
        path: Where it is, or would be.
        status: `written`, `extended` (only what was missing was added), `up to date`, `differs`
            (left alone: it holds other numbers), `kept` (likewise, on request), `quantiles kept`
            (left alone: only its quantiles differ), `no finite value` (nothing to write for some
            dim), `would write` or `not persisted`.
        differences: Its real differences from the frames.
        added: What it lacked.
        biggest: The largest change of a number against the file that was there.
        backup: Where the file that was there is kept.
        pooled: Of episodes' own quantiles: the worst of those that come out when they are pooled,
            next to the true one.
    """

    name: str
    path: Location
    status: str
    differences: tuple[Difference, ...] = ()
    added: tuple[str, ...] = ()
    biggest: Difference | None = None
    backup: Path | None = None
    pooled: Difference | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the result JSON-ready."""
        return {
            "file": self.name,
            "path": str(self.path),
            "status": self.status,
            "differences": [d.as_json() for d in self.differences],
            "added": list(self.added[:100]),
            "biggest_change": None if self.biggest is None else self.biggest.as_json(),
            "backup": None if self.backup is None else str(self.backup),
            "pooled": None if self.pooled is None else self.pooled.as_json(),
        }


@dataclass(frozen=True, eq=False)
class StatsResult:
    """One dataset's stats.

    Attributes:
        name: The dataset's name in the mixture.
        root: Its folder.
        version: `v2.0`, `v2.1` or `v3.0`.
        files: What became of each file.
        layout: The features.
        frames: How many frames the stats are over.
        episodes: How many episodes.
        stats: The whole dataset's: feature -> stat -> array.
        quantiles: `exact` or `sketch`: where whole-dataset quantiles come from.
        files_read: How many data files were read.
        findings: What is wrong with the frames.
        coverage: How much of the dataset is on disk; None when all of it is.
    """

    name: str
    root: str
    version: str
    files: tuple[FileResult, ...]
    layout: Layout
    frames: int
    episodes: int
    stats: Stats
    quantiles: str
    files_read: int
    findings: tuple[DataFault, ...] = ()
    coverage: Coverage | None = None

    @property
    def status(self) -> str:
        """The status of the file that needs attention most; `partial` when nothing was computed."""
        if not self.files:
            return PARTIAL
        found = {file.status for file in self.files}
        return next((status for status in _ORDER if status in found), "up to date")

    @property
    def zero_range(self) -> dict[str, list[int]]:
        """Dims that never change, by feature; index columns left out."""
        found = {}
        for column in self.layout.columns:
            stats = self.stats[column.name]
            dims = np.flatnonzero(np.ravel(stats["min"] == stats["max"])).tolist()
            if dims and column.name not in ("task_index", "episode_index"):
                found[column.name] = dims
        return found

    @property
    def biggest(self) -> Difference | None:
        """The largest change against the files that were there; of a real one, if there is any.

        Index columns and dims without a range come last.
        """
        real = [d for file in self.files for d in file.differences]
        found = real or [file.biggest for file in self.files if file.biggest is not None]
        return max(found, key=_weight, default=None)

    def as_json(self) -> dict[str, Any]:
        """Return the result JSON-ready."""
        covered = {} if self.coverage is None else {"coverage": self.coverage.as_json()}
        return {
            "dataset": self.name,
            "root": self.root,
            "version": self.version,
            "status": self.status,
            **covered,
            "episodes": self.episodes,
            "frames": self.frames,
            "quantiles": self.quantiles,
            "files_read": self.files_read,
            "features": {c.name: list(c.shape) for c in self.layout.columns},
            "zero_range": self.zero_range,
            "findings": [finding.as_json() for finding in self.findings],
            "files": [file.as_json() for file in self.files],
            "stats": self.stats,
        }


@dataclass(frozen=True)
class DeltaResult:
    """The delta-action stats of one dataset in one mixture.

    Attributes:
        name: The dataset's name in the mixture.
        path: The artifact.
        status: As in `FileResult`.
        column: The action column.
        chunk_size: Steps per chunk.
        starts: How many chunks.
    """

    name: str
    path: Location
    status: str
    column: str
    chunk_size: int
    starts: int

    def as_json(self) -> dict[str, Any]:
        """Return the result JSON-ready."""
        return {**self.__dict__, "path": str(self.path), "dataset": self.name}


@dataclass(frozen=True)
class StatsReport:
    """The outcome for all datasets, in mixture order.

    Attributes:
        results: Of the datasets that worked.
        failures: Of those that did not.
        delta: Of entries with delta actions.
        commands: The two that go on where published numbers differ: keep them, or replace them.
    """

    results: Sequence[StatsResult]
    failures: Sequence[Failure]
    delta: Sequence[DeltaResult] = ()
    commands: tuple[str, ...] = ()

    @property
    def partial(self) -> list[StatsResult]:
        """The datasets that nothing was computed of: only some of their episodes are on disk."""
        return [result for result in self.results if result.status == PARTIAL]

    @property
    def undecided(self) -> list[StatsResult]:
        """The datasets whose published min, max, mean, std or count differ from the frames.

        Each waits for `--published-stats keep` or `--published-stats replace`.
        """
        return [r for r in self.results if any(file.status == DIFFERS for file in r.files)]

    @property
    def needs_attention(self) -> bool:
        """Whether a dataset failed, a file differs, or something is wrong with the frames."""
        left = (DIFFERS, PARTIAL, "no finite value")
        return bool(self.failures) or any(r.findings or r.status in left for r in self.results)

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {
            "datasets": [result.as_json() for result in self.results],
            "delta": [result.as_json() for result in self.delta],
            "failures": [failure.as_json() for failure in self.failures],
            "commands": list(self.commands),
        }
