"""Every preparation step of a mixture, in order; each skips what is fresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from opentau_prep.artifacts.place import check_artifact_root
from opentau_prep.errors import PrepError
from opentau_prep.metadata.locate import LocateOptions
from opentau_prep.metadata.resolve import resolve_mixture

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.engine import Failure
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = ["STEPS", "Report", "Step", "StepOutcome", "Untold", "run_pipeline"]


class Report(Protocol):
    """What every step returns."""

    @property
    def failures(self) -> Sequence[Failure]:
        """The datasets that failed."""
        ...

    @property
    def needs_attention(self) -> bool:
        """Whether something failed, or was found that a person should look at: exit code 1."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        ...


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: The command that does it alone.
        run: Does it.
    """

    name: str
    run: Callable[[ResolvedMixture, RunContext], Report]


@dataclass(frozen=True)
class Untold:
    """In a dry run: a step that needs what the steps before it would have written.

    Attributes:
        error: What it said for want of that.
    """

    error: PrepError
    failures: Sequence[Failure] = ()
    needs_attention: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {"status": "untold", "reason": str(self.error)}


@dataclass(frozen=True)
class StepOutcome:
    """A step's name and report."""

    name: str
    report: Report


def _stats(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.stats.compute import prepare_stats

    return prepare_stats(resolved, context)


def _heads(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.heads.compute import default_out, prepare_heads
    from opentau_prep.heads.options import HeadOptions

    return prepare_heads(resolved, context, HeadOptions(), out=default_out(resolved, context))


def _speed(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.speed import prepare_speed

    return prepare_speed(resolved, context)


def _tokenizer(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.tokenizer.options import DEFAULT_CHUNK_SIZE, FitOptions
    from opentau_prep.tokenizer.prepare import default_out_dir, prepare_tokenizer

    options = FitOptions(DEFAULT_CHUNK_SIZE)
    out_dir = default_out_dir(resolved, context)
    return prepare_tokenizer(resolved, context, options, out_dir, keep_other=True)


def _validate(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.validate import Subject, validate

    path = resolved.mixture.path
    name = path.name if path is not None else "the datasets together"
    return validate(Subject(resolved.mixture, name, from_file=path is not None), context)


STEPS: tuple[Step, ...] = (
    Step("stats", _stats),
    Step("heads", _heads),
    Step("speed-percentiles", _speed),
    Step("fit-tokenizer", _tokenizer),
    # Last: it sees what the others have written.
    Step("validate", _validate),
)


def run_pipeline(mixture: Mixture, context: RunContext) -> list[StepOutcome]:
    """Carry out every step on a mixture.

    The datasets are opened again for each step, which may read what the one before has written. In
    a dry run nothing has been written, so a step that needs it is `Untold`.

    Raises:
        PrepError: A step failed; those after it were not begun. Or a dataset lies in a store and
            there is no `context.artifact_root`.
    """
    check_artifact_root(mixture.roots, context.artifact_root)
    options = LocateOptions(download=context.download, frames=True)
    outcomes: list[StepOutcome] = []
    for step in STEPS:
        resolved = resolve_mixture(mixture, options)
        try:
            report = step.run(resolved, context)
        except PrepError as error:
            # The first step needs nothing of the others: what is wrong there is wrong.
            if not (context.dry_run and outcomes):
                raise
            report = Untold(error)
        outcomes.append(StepOutcome(step.name, report))
    return outcomes
