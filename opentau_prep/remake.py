"""What `validate --fix` lets the steps of `run` make again: their own files, stale or gone.

Nothing is made that was never there, and a file that somebody edited is left alone: that is for
`run` and for people to decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opentau_prep.choices import Choices
from opentau_prep.errors import PrepError
from opentau_prep.metadata.locate import LocateOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices
from opentau_prep.pipeline import STEPS, NotDone, carry_out
from opentau_prep.validate.targets import find_targets
from opentau_prep.validate.view import DatasetView

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.validate import Subject
    from opentau_prep.validate.artifacts import FoundArtifact
    from opentau_prep.validate.view import Target

__all__ = ["Remake", "plan_remakes", "remake"]

# Artifacts of each step; not those that need options which no record beside the dataset tells.
_OF_STEP = MappingProxyType(
    {"stats": ("stats", "episodes_stats", "episodes", "quantile_sketch"), "heads": ("norm_head",)}
)


@dataclass(frozen=True)
class Remake:
    """A step that is to be done again.

    Attributes:
        step: Its name.
        entries: The mixture-level names of the datasets it is done for.
        reasons: What is wrong with which file.
    """

    step: str
    entries: tuple[str, ...]
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the plan JSON-ready."""
        return {"step": self.step, "datasets": list(self.entries), "reasons": list(self.reasons)}


def plan_remakes(subject: Subject, context: RunContext, *, deep: bool = False) -> list[Remake]:
    """Return the steps to be done again, in order; nothing is changed.

    Heads are recomputed only for a mixture file without faults, whose heads they are.

    Args:
        subject: What is checked.
        context: Where artifacts lie.
        deep: Whether data files are compared by content, as `validate --deep` does.
    """
    targets, lost = find_targets(subject, context, deep=deep)
    own = subject.from_file and not subject.faults and not lost and subject.mixture is not None
    mixture_id = subject.mixture.mixture_id if own and subject.mixture is not None else None
    with collect_notices():  # which validate says itself
        found = [(target, DatasetView(target).artifacts) for target in targets]
    stats = _plan("stats", [(t, [a for a in some if _is_of("stats", a)]) for t, some in found])
    heads = [(t, [a for a in some if _is_head(a, mixture_id)]) for t, some in found]
    plans = [stats, _plan("heads", heads, others=bool(stats.reasons))]
    return [plan for plan in plans if plan.reasons]


def remake(plan: Remake, mixture: Mixture, context: RunContext) -> tuple[str, ...]:
    """Do a step again as `run` does it; return what stood in its way, in words."""
    step = next(step for step in STEPS if step.name == plan.step)
    options = LocateOptions.of_run(context, frames=True)
    problems: list[str] = []
    try:
        resolved = resolve_mixture(mixture, options, keep_going=True)
    except PrepError as error:
        return (str(error),)
    entries = [entry for entry in resolved.entries if entry.name in plan.entries]
    # One by one, so that a dataset that cannot be read stops no other, and nothing of it is left
    # out unless --keep-going says so.
    alone = [replace(resolved, entries=[entry], vqa=(), faults=(), broken=()) for entry in entries]
    for part in [resolved] if step.whole else alone:
        try:
            report = carry_out(step, Choices(part, context, {}))
        except PrepError as error:
            problems.append(str(error))
            continue
        problems += [str(failure.error) for failure in report.failures]
        problems += [str(report.error)] if isinstance(report, NotDone) else []
    return tuple(problems)


def _is_of(step: str, found: FoundArtifact) -> bool:
    return found.spec.name in _OF_STEP[step]


def _is_head(found: FoundArtifact, mixture_id: str | None) -> bool:
    return _is_of("heads", found) and found.rel.endswith(f"/{mixture_id}.json")


def _plan(
    step: str, found: Sequence[tuple[Target, Sequence[FoundArtifact]]], *, others: bool = False
) -> Remake:
    """Plan a step for the datasets that need it; `others` says that what it reads will change."""
    entries: list[str] = []
    reasons: list[str] = []
    for target, artifacts in found:
        mine = [f"{target.name}: {a.rel} {_fault(a)}" for a in artifacts if _fault(a)]
        reasons += mine
        if mine or (others and artifacts):
            entries += [entry.name for entry in target.entries]
    if others and entries and not reasons:
        reasons.append("they are made of stats that may change")
    return Remake(step, tuple(entries), tuple(reasons))


def _fault(found: FoundArtifact) -> str:
    if found.content is None:
        return "is gone"
    if found.edited or found.torn or not found.changes:
        return ""
    return f"is stale ({', '.join(found.changes)})"
