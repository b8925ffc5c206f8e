"""The validation pass and its losses, from the files that `val-plan` and `val-report` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.catalog import MIXTURE_OUTPUTS
from opentau_prep.errors import PrepError
from opentau_prep.val_loss.prepare_plan import inspect_plan
from opentau_prep.val_loss.prepare_report import inspect_report
from opentau_prep.verdict.artifacts import damaged, judged, optional
from opentau_prep.verdict.details import LossFacts
from opentau_prep.verdict.facts import ArtifactFacts

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.val_loss.mixture import MixtureValidation
    from opentau_prep.val_loss.report import Change, ValidationReport

__all__ = ["loss_facts"]

_WORSE = ("broken", "worse")
_PLAN = (
    "world_size", "batch_size", "split", "seed", "total_samples", "rounds",
    "rounds_per_dataset_loop", "expected_speed_up",
)  # fmt: skip


def loss_facts(
    resolved: ResolvedMixture, plan: Path | None, report: Path | None, folder: Path
) -> tuple[LossFacts, list[ArtifactFacts]]:
    """Return what the files say, and their states.

    Args:
        resolved: The mixture.
        plan: The plan's file, where one was named.
        report: The report's file, likewise.
        folder: Where files of the usual names are looked for otherwise.
    """
    plan_found, plan_state = _plan(
        resolved, plan or folder / MIXTURE_OUTPUTS["val_plan"], named=plan is not None
    )
    found, state = _report(
        resolved, report or folder / MIXTURE_OUTPUTS["val_report"], named=report is not None
    )
    facts = LossFacts(
        None if plan_found is None else _in_short(plan_found),
        None if found is None else [asdict(row) for row in found.rows()],
        () if found is None else [_words(c) for c in found.changes or () if c.status in _WORSE],
    )
    return facts, [plan_state, state]


def _plan(
    resolved: ResolvedMixture, path: Path, *, named: bool
) -> tuple[MixtureValidation | None, ArtifactFacts]:
    try:
        state, plan = inspect_plan(resolved, path)
    except PrepError as fault:
        return None, damaged("val-plan", "validation plan", (), path, fault)
    if plan is None and not named:
        return None, optional("val-plan", "validation plan", path)
    return plan, judged("val-plan", "validation plan", (), state)


def _report(
    resolved: ResolvedMixture, path: Path, *, named: bool
) -> tuple[ValidationReport | None, ArtifactFacts]:
    try:
        state, report = inspect_report(resolved, path)
    except PrepError as fault:
        return None, damaged("val-report", "loss report", (), path, fault)
    if report is None and not named:
        return None, optional("val-report", "loss report", path)
    facts = judged("val-report", "loss report", (), state)
    if facts.state == "other options":
        words = {"state": "stale", "level": "look", "detail": "the mixture has changed"}
        return report, ArtifactFacts(**{**asdict(facts), **words})
    return report, facts


def _in_short(plan: MixtureValidation) -> Mapping[str, Any]:
    document = plan.as_json()
    return {name: document[name] for name in _PLAN}


def _words(change: Change) -> str:
    places = (change.dataset, change.control_mode, change.norm_head)
    where = ", ".join(part for part in places if part) or change.scope
    if change.relative is None:
        return f"{where}: {change.loss} {change.status} ({change.before} -> {change.now})"
    return f"{where}: {change.loss} {change.status} by {change.relative:.1%}"
