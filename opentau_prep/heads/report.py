"""What `heads` returns: files, heads in short, findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentau_prep.artifacts.place import Location
    from opentau_prep.engine import Failure
    from opentau_prep.heads.audit import AuditReport
    from opentau_prep.heads.build import NormHeads
    from opentau_prep.heads.explain import DimExplanation
    from opentau_prep.heads.sketches import QuantileRanks

__all__ = ["HeadFile", "HeadSummary", "HeadsReport"]


@dataclass(frozen=True)
class HeadSummary:
    """One head in short.

    Attributes:
        key: Its norm key.
        row: Its row.
        members: Its datasets, in mixture order.
        frames: The sum of its members' weights: their `total_frames`.
        state_dim: Width of the state that holds data.
        action_dim: Width of the actions that holds data.
        is_fallback: Whether it is a dataset's own, for lack of a tag.
        ranks: Which true quantiles its pooled q01 and q99 are; empty where that is not known.
    """

    key: str
    row: int
    members: Sequence[str]
    frames: float
    state_dim: int
    action_dim: int
    is_fallback: bool
    ranks: Sequence[QuantileRanks] = ()

    @property
    def worst_rank(self) -> float | None:
        """The largest error of a pooled quantile's rank, None when it is not known."""
        return max((float(each.errors.max()) for each in self.ranks), default=None)

    def as_json(self) -> dict[str, Any]:
        """Return the summary JSON-ready."""
        frames = int(self.frames) if self.frames == int(self.frames) else self.frames
        return {
            "key": self.key,
            "row": self.row,
            "members": list(self.members),
            "frames": frames,
            "state_dim": self.state_dim,
            "action_dim": self.action_dim,
            "fallback": self.is_fallback,
            "quantile_ranks": [each.as_json() for each in self.ranks],
        }


@dataclass(frozen=True)
class HeadFile:
    """What became of one file.

    Attributes:
        datasets: The entries it is for; empty for the mixture's own file.
        path: The file.
        status: See `opentau_prep.artifacts.store.Outcome`.
        changes: What had changed since the file that was there was made.
        backup: Where a replaced file is kept.
    """

    datasets: Sequence[str]
    path: Location
    status: str
    changes: Sequence[str] = ()
    backup: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the outcome JSON-ready."""
        return {
            "datasets": list(self.datasets),
            "path": str(self.path),
            "status": self.status,
            "changes": list(self.changes),
            "backup": None if self.backup is None else str(self.backup),
        }


@dataclass(frozen=True)
class HeadsReport:
    """The outcome for a mixture.

    Attributes:
        heads: The heads themselves.
        summaries: One per head, by row.
        out: The mixture's file; None when it could not be asked for.
        files: One per dataset.
        failures: The datasets whose file could not be written.
        audit: The findings, when they were asked for.
        explanations: Where numbers come from, when that was asked for.
    """

    heads: NormHeads
    summaries: Sequence[HeadSummary]
    out: HeadFile | None
    files: Sequence[HeadFile]
    failures: Sequence[Failure]
    audit: AuditReport | None = None
    explanations: Sequence[DimExplanation] = ()

    @property
    def needs_attention(self) -> bool:
        """Whether something failed, or a member does not belong to its head."""
        return bool(self.failures or (self.audit is not None and self.audit.findings))

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        document: dict[str, Any] = {
            "heads": [summary.as_json() for summary in self.summaries],
            "out": None if self.out is None else self.out.as_json(),
            "datasets": [file.as_json() for file in self.files],
            "failures": [failure.as_json() for failure in self.failures],
        }
        if self.audit is not None:
            document["audit"] = self.audit.as_json()
        if self.explanations:
            document["explain"] = [each.as_json() for each in self.explanations]
        return document
