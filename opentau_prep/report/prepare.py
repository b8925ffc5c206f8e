"""The verb behind `report`: the state of a mixture's preparation, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Recipe, publish
from opentau_prep.artifacts.place import check_artifact_root, file_place
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.report.page import render_page
from opentau_prep.report.pictures import draw
from opentau_prep.report.png import check_png, write_pngs
from opentau_prep.verdict.judge import OutputPaths, judge_mixture

if TYPE_CHECKING:
    from opentau_prep.artifacts.store import Outcome
    from opentau_prep.context import RunContext
    from opentau_prep.engine import Failure
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.verdict.facts import Verdict

__all__ = ["MadeReport", "make_report"]

COMMAND = "report"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class MadeReport:
    """The report, and what became of its file.

    Attributes:
        facts: What it says.
        path: The file.
        outcome: What was done with it; None on a rank that does not write.
        failures: None: what cannot be read is a fact of the report.
        pictures: The PNG files that were written.
    """

    facts: Verdict
    path: Path
    outcome: Outcome | None
    failures: tuple[Failure, ...] = ()
    pictures: tuple[Path, ...] = ()

    @property
    def needs_attention(self) -> bool:
        """Whether something must be done before training."""
        return not self.facts.ready

    @property
    def status(self) -> str:
        """What became of the file, in words."""
        return "left to the main rank" if self.outcome is None else self.outcome.status

    def as_json(self) -> dict[str, Any]:
        """Return report and outcome JSON-ready."""
        backup = None if self.outcome is None else self.outcome.backup
        out = {
            "path": str(self.path),
            "status": self.status,
            "backup": None if backup is None else str(backup),
            "pictures": [str(path) for path in self.pictures],
        }
        return {**self.facts.as_json(), "out": out}


def make_report(
    resolved: ResolvedMixture,
    context: RunContext,
    options: OutputPaths | None = None,
    *,
    out: Path,
    frames: bool = True,
    png: Sequence[str] = (),
) -> MadeReport:
    """Write the report of a mixture's preparation.

    Reads metadata and artifacts, and for its pictures a few episodes of local datasets; writes
    `out` and its provenance, nothing else. An older report of this tool is replaced, any other
    file only with `context.force`.

    Every rank has the same facts; the main one writes, and nobody waits for a page.

    Args:
        resolved: The mixture.
        context: How to run.
        options: Where things are that do not lie with the datasets.
        out: The HTML file.
        frames: Whether episodes may be read, for trajectories and chunks.
        png: Sections to write as pictures too, next to the page.

    Raises:
        ConfigError: `out` is a folder.
        ArtifactError: The file cannot be written, or is somebody else's; or a dataset lies in a
            store and there is no `context.artifact_root`, where its artifacts are.
    """
    check_png(png)
    check_artifact_root((entry.meta.root for entry in resolved.entries), context.artifact_root)
    rank = context.this_rank
    place = file_place("report", out, schema_version=SCHEMA_VERSION)
    with main_rank_notices(rank):
        facts = judge_mixture(resolved, context, options)
        if not rank.is_main:
            return MadeReport(facts, out, None)
        inputs = {"mixture": {"count": len(facts.mixture.datasets), "sha256": facts.mixture.sha256}}
        folder = (options or OutputPaths()).tokenizer
        folder = folder or context.prep_path(resolved.mixture, "tokenizer")
        pictures = draw(facts, resolved, context, tokenizer=folder, frames=frames)
        outcome = publish(
            place,
            render_page(facts, pictures).encode("utf-8"),
            Recipe(COMMAND, inputs, mixture_id=resolved.mixture.mixture_id),
            force=context.force,
            dry_run=context.dry_run,
        )
        shown = () if context.dry_run else write_pngs(out, png)
    return MadeReport(facts, out, outcome, pictures=shown)
