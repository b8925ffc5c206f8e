"""What `validate --fix` lets the steps of `run` recompute: their own files, stale or gone.

Nothing is made that was never there, and a file that somebody edited is left alone: that is for
`run` and for people to decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.store import Inspection, State
from opentau_prep.choices import Choices
from opentau_prep.errors import PrepError
from opentau_prep.metadata.locate import LocateOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices
from opentau_prep.pipeline import STEPS, NotDone, carry_out
from opentau_prep.validate import CheckOptions
from opentau_prep.validate.artifacts import spec_of
from opentau_prep.validate.check import dataset_views

if TYPE_CHECKING:
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.validate.view import DatasetView

__all__ = ["Remade", "Remake", "plan_remakes", "remake_stale"]

Artifacts = Mapping[str, Inspection]

# Artifacts of each step; not those that need options which no record next to the dataset holds.
_OF_STEP = MappingProxyType(
    {"stats": ("stats", "episodes_stats", "episodes", "quantile_sketch"), "heads": ("norm_head",)}
)


@dataclass(frozen=True)
class Remake:
    """A step that must be done again.

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


@dataclass(frozen=True)
class Remade:
    """A step that was done again, or is planned.

    Attributes:
        plan: The step.
        problems: What stood in its way, in words.
    """

    plan: Remake
    problems: tuple[str, ...] = ()


def remake_stale(subject: Salvage, context: RunContext, *, deep: bool = False) -> list[Remade]:
    """Do again, on the main rank, the steps whose own files are stale or gone; see `plan_remakes`.

    After one that fails none is begun. A dry run only plans.
    """
    plans = plan_remakes(subject, context, deep=deep)
    if subject.mixture is None or not context.this_rank.is_main or context.dry_run:
        return [Remade(plan) for plan in plans]
    remade: list[Remade] = []
    for plan in plans:
        failed = [made.plan.step for made in remade if made.problems]
        problems = (f"not begun, since {failed[0]} failed",) if failed else ()
        remade.append(Remade(plan, problems or _remake(plan, subject.mixture, context)))
    return remade


def plan_remakes(subject: Salvage, context: RunContext, *, deep: bool = False) -> list[Remake]:
    """Return the steps to be done again, in order; nothing is changed.

    Heads are recomputed only for a mixture file without faults, whose heads they are.

    Args:
        subject: What is checked.
        context: Where artifacts lie.
        deep: Whether data files are compared by content, as `validate --deep` does.
    """
    resolved, views = dataset_views(subject, context, CheckOptions(deep=deep))
    own = subject.path is not None and not subject.faults and resolved and not resolved.faults
    mixture_id = resolved.mixture.mixture_id if own and resolved else None
    with collect_notices():  # which validate says itself
        found = [(view, view.artifacts) for view in views]
    stats = _plan("stats", [(v, _some(some, "stats")) for v, some in found])
    heads = [(v, _some(some, "heads", f"/{mixture_id}.json")) for v, some in found]
    plans = [stats, _plan("heads", heads, others=bool(stats.reasons))]
    return [plan for plan in plans if plan.reasons]


def _remake(plan: Remake, mixture: Mixture, context: RunContext) -> tuple[str, ...]:
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


def _some(artifacts: Mapping[str, Inspection], step: str, end: str = "") -> Artifacts:
    kinds = _OF_STEP[step]
    wanted = {rel: a for rel, a in artifacts.items() if spec_of(rel).name in kinds}
    return {rel: artifact for rel, artifact in wanted.items() if rel.endswith(end)}


def _plan(
    step: str, found: Sequence[tuple[DatasetView, Artifacts]], *, others: bool = False
) -> Remake:
    """Plan a step for the datasets that need it; `others` says that what it reads will change."""
    entries: list[str] = []
    reasons: list[str] = []
    for view, artifacts in found:
        faults = {rel: _fault(artifact) for rel, artifact in artifacts.items()}
        mine = [f"{view.name}: {rel} {fault}" for rel, fault in faults.items() if fault]
        reasons += mine
        if mine or (others and artifacts):
            entries += [entry.name for entry in view.named_by]
    if others and entries and not reasons:
        reasons.append("they are made of stats that may change")
    return Remake(step, tuple(entries), tuple(reasons))


def _fault(found: Inspection) -> str:
    if found.state is State.MISSING:
        return "is gone"
    # One that was edited, or damaged, has another hash than was recorded.
    return f"is stale ({', '.join(found.changes)})" if found.state is State.STALE else ""
