"""Every preparation step of a mixture, in order; each skips what is fresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from opentau_prep.artifacts.fingerprint import cache_left_alone
from opentau_prep.artifacts.place import check_artifact_root
from opentau_prep.artifacts.provenance import describe_changes
from opentau_prep.artifacts.rank import Rank, main_rank_notices
from opentau_prep.errors import DataError, MetadataError, PrepError
from opentau_prep.metadata.locate import LocateOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import some_names, warn

if TYPE_CHECKING:
    from pathlib import Path

    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.engine import Failure
    from opentau_prep.heads.options import HeadOptions
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = [
    "STEPS",
    "NotDone",
    "Report",
    "Step",
    "StepOutcome",
    "Untold",
    "carry_out",
    "run_pipeline",
]


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
        whole: Whether what it writes is made of all datasets together, so that one fewer gives
            something else than training has.
    """

    name: str
    run: Callable[[ResolvedMixture, RunContext], Report]
    whole: bool = False


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
class NotDone:
    """With `keep_going`: a step that some datasets stand in the way of.

    Attributes:
        error: What it needs and does not have.
        failures: The datasets that could not be opened.
    """

    error: PrepError
    failures: Sequence[Failure] = ()
    needs_attention: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        failures = [failure.as_json() for failure in self.failures]
        return {"status": "not done", "reason": str(self.error), "failures": failures}


@dataclass(frozen=True)
class StepOutcome:
    """A step's name and report."""

    name: str
    report: Report


def _stats(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.stats.compute import prepare_stats

    return prepare_stats(resolved, context, keep_options=True)


def _heads(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.heads.compute import prepare_heads
    from opentau_prep.heads.options import HeadOptions

    out = context.prep_path(resolved.mixture, "norm_heads")
    with main_rank_notices(context.rank or Rank.detect()):
        options = HeadOptions() if context.force else _kept_options(out)
    return prepare_heads(resolved, context, options, out=out)


def _kept_options(out: Path) -> HeadOptions:
    from opentau_prep.heads.compute import recorded_options
    from opentau_prep.heads.options import HeadOptions

    kept = recorded_options(out) or HeadOptions()
    changes = describe_changes(HeadOptions().as_json(), kept.as_json())
    if changes:
        warn(
            "kept_options",
            f"{out} was made with options of its own ({', '.join(changes)}): they are kept;"
            " --force takes the defaults",
            changes=changes,
        )
    return kept


def _speed(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.speed import prepare_speed

    return prepare_speed(resolved, context)


def _tokenizer(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.tokenizer.options import DEFAULT_CHUNK_SIZE, FitOptions
    from opentau_prep.tokenizer.prepare import prepare_tokenizer

    options = FitOptions(DEFAULT_CHUNK_SIZE)
    out_dir = context.prep_path(resolved.mixture, "tokenizer")
    return prepare_tokenizer(resolved, context, options, out_dir, keep_other=True)


def _validate(resolved: ResolvedMixture, context: RunContext) -> Report:
    from opentau_prep.validate import Subject, validate

    path = resolved.mixture.path
    name = path.name if path is not None else "the datasets together"
    return validate(Subject(resolved.mixture, name, from_file=path is not None), context)


STEPS: tuple[Step, ...] = (
    Step("stats", _stats),
    Step("heads", _heads, whole=True),
    Step("speed-percentiles", _speed),
    Step("fit-tokenizer", _tokenizer, whole=True),
    # Last: it sees what the others have written.
    Step("validate", _validate),
)


def run_pipeline(mixture: Mixture, context: RunContext) -> list[StepOutcome]:
    """Carry out every step on a mixture.

    The datasets are opened again for each step, which may read what the one before has written. In
    a dry run nothing has been written, so a step that needs it is `Untold`. With
    `context.keep_going`, datasets that cannot be used are left out of the steps that do one after
    the other; a step that puts them all together is `NotDone`, since heads or a tokenizer without
    a member would not be what training has.

    Raises:
        PrepError: A step failed; those after it were not begun. Or a dataset lies in a store and
            there is no `context.artifact_root`.
    """
    check_artifact_root(mixture.roots, context.artifact_root)
    options = LocateOptions.of_run(context, frames=True)
    outcomes: list[StepOutcome] = []
    with cache_left_alone(context.dry_run):
        for step in STEPS:
            resolved = resolve_mixture(mixture, options, keep_going=context.keep_going)
            report = carry_out(step, resolved, context, is_first=not outcomes)
            outcomes.append(StepOutcome(step.name, report))
    return outcomes


def carry_out(
    step: Step, resolved: ResolvedMixture, context: RunContext, *, is_first: bool = True
) -> Report:
    """Do one step; see `run_pipeline` for what becomes of its errors.

    Args:
        step: The step.
        resolved: The mixture.
        context: How to run.
        is_first: Whether no step before it would have written what it needs.

    Raises:
        PrepError: It failed.
    """
    if step.whole and resolved.faults:
        return NotDone(_incomplete(step, resolved), resolved.faults)
    try:
        return step.run(resolved, context)
    except PrepError as error:
        # The first step needs nothing of the others: what is wrong there is wrong.
        if context.dry_run and not is_first:
            return Untold(error)
        if context.keep_going and step.whole and isinstance(error, MetadataError | DataError):
            return NotDone(error)
        raise


def _incomplete(step: Step, resolved: ResolvedMixture) -> PrepError:
    names = some_names(failure.label for failure in resolved.faults)
    return MetadataError(
        f"{step.name} puts all datasets of the mixture together, and without {names} the result"
        " would not be what training has: nothing was written",
        where=None if resolved.mixture.path is None else str(resolved.mixture.path),
        hint="Mend these datasets, or take them out of the mixture.",
    )
