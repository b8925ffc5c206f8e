"""Every preparation step of a mixture, in order; each skips what is fresh."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from opentau_prep.artifacts.fingerprint import cache_dir, cache_left_alone
from opentau_prep.artifacts.place import check_artifact_root
from opentau_prep.errors import DataError, MetadataError, PrepError
from opentau_prep.metadata.locate import LocateOptions
from opentau_prep.metadata.remembered import mixture_memory
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import some_names, without_notices
from opentau_prep.storage.look import current_look, one_look
from opentau_prep.text import several

if TYPE_CHECKING:
    from opentau_prep.artifacts.memory import Memory
    from opentau_prep.choices import Choices
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.engine import Failure
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.stats.report import StatsReport
    from opentau_prep.verdict import Verdict
    from opentau_prep.verdict.facts import ToDo

__all__ = [
    "STEPS",
    "NotDone",
    "PipelineResult",
    "Report",
    "SkippedInDryRun",
    "Step",
    "StepOutcome",
    "carry_out",
    "has_written",
    "run_memory",
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
            something else than training uses.
    """

    name: str
    run: Callable[[Choices], Report]
    whole: bool = False


@dataclass(frozen=True)
class SkippedInDryRun:
    """In a dry run: a step that needs what the steps before it would have written.

    Attributes:
        error: What it reports without that.
    """

    error: PrepError
    failures: Sequence[Failure] = ()
    needs_attention: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {"status": "skipped in dry run", "reason": str(self.error)}


@dataclass(frozen=True)
class NotDone:
    """With `keep_going`: a step that some datasets prevent.

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
class PipelineResult:
    """What a run did, and how things are now.

    Attributes:
        outcomes: The steps that were done, in order.
        verdict: What is left to do, as `report` sees it; None in a dry run that nothing stopped.
        stopped: Why the steps after the last outcome were not done; empty when all were.
        commands: The commands that go on: after `stopped`, or from a mixture that is ready.
        training_must_hold: What the training config must hold, by its key; empty when the run
            stopped before that was settled.
    """

    outcomes: Sequence[StepOutcome]
    verdict: Verdict | None = None
    stopped: str = ""
    commands: tuple[str, ...] = ()
    training_must_hold: Mapping[str, int] = field(default_factory=dict)

    @property
    def by_hand(self) -> Sequence[ToDo]:
        """Faults that only a person can settle, which may be why published stats differ."""
        to_do = () if self.verdict is None else self.verdict.to_do
        return [each for each in to_do if each.level == "do" and not each.command]

    @property
    def needs_attention(self) -> bool:
        """Whether something is left to do before training; in a dry run, whether a step says so."""
        if self.verdict is not None:
            return not self.verdict.ready
        return bool(self.stopped) or any(each.report.needs_attention for each in self.outcomes)

    def as_json(self) -> dict[str, Any]:
        """Return all of it JSON-ready."""
        verdict = self.verdict
        return {
            "steps": [{"step": each.name, **each.report.as_json()} for each in self.outcomes],
            "stopped": self.stopped,
            "commands": list(self.commands),
            "training_must_hold": dict(self.training_must_hold),
            "ready": None if verdict is None else verdict.ready,
            "to_do": [] if verdict is None else [asdict(each) for each in verdict.to_do],
        }


@dataclass(frozen=True)
class StepOutcome:
    """A step's name and report."""

    name: str
    report: Report


def _stats(choices: Choices) -> Report:
    from opentau_prep.stats.compute import prepare_stats

    keep = choices.keeps_stats_options
    return prepare_stats(choices.resolved, choices.context, choices.stats, keep_options=keep)


def _heads(choices: Choices) -> Report:
    from opentau_prep.heads.compute import prepare_heads

    return prepare_heads(
        choices.resolved,
        choices.context,
        choices.heads(),
        out=choices.heads_path,
        allow_partial=bool(choices.given.get("allow_partial")),
    )


def _speed(choices: Choices) -> Report:
    from opentau_prep.speed import prepare_speed

    return prepare_speed(choices.resolved, choices.context)


def _tokenizer(choices: Choices) -> Report:
    from opentau_prep.tokenizer.prepare import prepare_tokenizer

    limit = choices.given.get("discrete_action_max_length")
    return prepare_tokenizer(
        choices.resolved,
        choices.context,
        choices.fit(),
        choices.tokenizer_path,
        max_length=limit,
    )


def _validate(choices: Choices) -> Report:
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.validate import validate
    from opentau_prep.validate.persist import write_findings

    mixture, context = choices.resolved.mixture, choices.context
    # What the whole run found is remembered; a part of it need not be.
    report = validate(Salvage.of(mixture), context, remembering=False)
    # So that `report` knows what was found, whoever calls it next.
    write_findings(report, context, mixture)
    return report


STEPS: tuple[Step, ...] = (
    Step("stats", _stats),
    Step("heads", _heads, whole=True),
    Step("speed-percentiles", _speed),
    Step("fit-tokenizer", _tokenizer, whole=True),
    # Last: it sees what the others have written.
    Step("validate", _validate),
)
# What a part of the datasets can have done to it; the others need the whole mixture, and `validate`
# sees what they have written.
_PER_DATASET = tuple(step for step in STEPS if step.name in ("stats", "speed-percentiles"))


def run_pipeline(
    mixture: Mixture, context: RunContext, given: Mapping[str, Any] | None = None
) -> PipelineResult:
    """Carry out every step on a mixture, and judge what is left to do.

    The datasets are opened again for each step, which may read what the one before has written. In
    a dry run nothing has been written, so a step that needs it is `SkippedInDryRun`. With
    `context.keep_going`, datasets that cannot be used are left out of the steps that do one after
    the other; a step that puts them all together is `NotDone`, since heads or a tokenizer without
    a member would not be what training uses.

    Published stats that differ from the frames, and datasets of which only a part is on disk, stop
    the run before the heads: nothing is built on numbers that were just disproved.

    With `context.shard` only the steps that do one dataset after the other are carried out, on that
    part of the datasets; a run without it, after all parts, does the rest.

    Args:
        mixture: The mixture.
        context: How to run.
        given: Options of the steps by name, such as `{"max_state_dim": 64}`; see `Choices`.

    Raises:
        PrepError: A step failed; those after it were not begun. Or a dataset lies in a store and
            there is no `context.artifact_root`.
    """
    from opentau_prep.choices import Choices
    from opentau_prep.verdict.commands import Commands
    from opentau_prep.verdict.judge import IN_VERDICT, judge_mixture

    check_artifact_root(mixture.roots, context.artifact_root)
    options = LocateOptions.of_run(context, frames=True)
    outcomes: list[StepOutcome] = []
    stopped: str = ""
    commands: tuple[str, ...] = ()
    must_hold: Mapping[str, int] = {}
    # In a dry run there is no verdict that would say the same.
    in_verdict = frozenset() if context.dry_run else IN_VERDICT
    with cache_left_alone(context.dry_run), one_look(), without_notices(in_verdict):
        for step in STEPS if context.shard is None else _PER_DATASET:
            whole = resolve_mixture(mixture, options, keep_going=context.keep_going)
            resolved = whole.part(context.shard)
            choices = Choices(resolved, context, given or {})
            report = carry_out(step, choices, is_first=not outcomes)
            outcomes.append(StepOutcome(step.name, report))
            if step.name == "stats" and not isinstance(report, NotDone | SkippedInDryRun):
                stopped, commands = _reason_to_stop(report, choices)
                if stopped:
                    break
        else:
            must_hold = choices.training_must_hold() if context.shard is None else {}
        if context.shard is not None or (context.dry_run and not stopped):
            return PipelineResult(outcomes, None, stopped, commands, must_hold)
        resolved = resolve_mixture(mixture, options, keep_going=True)
        verdict = judge_mixture(resolved, replace(context, force=False))
        if verdict.ready:
            commands = (Commands(resolved, context).step("report"),)
    return PipelineResult(outcomes, verdict, stopped, commands, must_hold)


def run_memory(
    mixture: Mixture, context: RunContext, given: Mapping[str, Any], *, active: bool = True
) -> Memory:
    """Return what is remembered of a run with nothing to do; nothing where one must do something.

    Args:
        mixture: The mixture.
        context: How to run.
        given: As for `run_pipeline`.
        active: Whether anything is remembered at all.
    """
    whole = not (context.force or context.dry_run or context.shard)
    options = LocateOptions.of_run(context, frames=True)
    asked = (sorted(given.items()), context.keep_going)
    return mixture_memory("run", mixture, context, options, asked, active=active and whole)


def has_written() -> bool:
    """Return whether anything but caches was written since this was last asked."""
    look, cache = current_look(), cache_dir()
    if look is None:
        return True
    own = None if cache is None else os.path.join(os.path.abspath(cache), "")
    written = any(own is None or not path.startswith(own) for path in look.written)
    look.written.clear()
    return written


def _reason_to_stop(report: Any, choices: Choices) -> tuple[str, tuple[str, ...]]:
    """Return why the other steps must wait for a person, and the commands that go on."""
    from opentau_prep.verdict.commands import Commands

    stats: StatsReport = report
    commands = Commands(choices.resolved, choices.context)
    if stats.partial:
        names = some_names(f"{each.name} ({each.coverage})" for each in stats.partial)
        words = f"only a part of {several(len(stats.partial), 'dataset')} is here: {names}. "
        return f"{words}Download the rest: training reads all of it", ()
    if stats.undecided:
        names = some_names(
            "; ".join([each.name, *(found.message for found in each.findings)])
            for each in stats.undecided
        )
        words = (
            f"published stats of {several(len(stats.undecided), 'dataset')} differ from the frames"
            f" ({names}). Keep them, or replace them (the old files stay as backups)"
        )
        return words, (commands.published_stats("keep"), commands.published_stats("replace"))
    return "", ()


def carry_out(step: Step, choices: Choices, *, is_first: bool = True) -> Report:
    """Do one step; see `run_pipeline` for what becomes of its errors.

    Args:
        step: The step.
        choices: The mixture, how to run, and the options of the steps.
        is_first: Whether no step before it would have written what it needs.

    Raises:
        PrepError: It failed.
    """
    resolved, context = choices.resolved, choices.context
    if step.whole and resolved.faults:
        return NotDone(_incomplete(step, resolved), resolved.faults)
    try:
        return step.run(choices)
    except PrepError as error:
        # The first step needs nothing of the others: what is wrong there is wrong.
        if context.dry_run and not is_first:
            return SkippedInDryRun(error)
        if context.keep_going and step.whole and isinstance(error, MetadataError | DataError):
            return NotDone(error)
        raise


def _incomplete(step: Step, resolved: ResolvedMixture) -> PrepError:
    names = some_names(failure.label for failure in resolved.faults)
    return MetadataError(
        f"{step.name} puts all datasets of the mixture together, and without {names} the result"
        " would not be what training uses: nothing was written",
        where=None if resolved.mixture.path is None else str(resolved.mixture.path),
        hint="Repair these datasets, or take them out of the mixture.",
    )
