"""M and P: what was made for the mixture as a whole: its validation plan, its forecast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.errors import MetadataError, PrepError
from opentau_prep.forecast.rules import OWN_HEADS
from opentau_prep.forecast.rules import RULES as FORECAST_RULES
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from pathlib import Path

    from opentau_prep.config.schema import Mixture
    from opentau_prep.val_loss.mixture import MixtureValidation
    from opentau_prep.validate.mixture_view import MixtureView

__all__ = ["RULES"]


def other_rows(view: MixtureView) -> Iterator[Hit]:
    mixture, file = view.mixture, view.output("val_plan")
    if mixture is None or file is None or not file.exists():
        return
    from opentau_prep.val_loss.mixture import load_validation_plan

    try:
        plan = load_validation_plan(file)
    except PrepError as fault:
        yield hit(fault.message, file=str(file), command=())
        return
    sizes = ("--world-size", str(plan.plan.world_size), "--batch-size", str(plan.plan.batch_size))
    for message in _differences(plan, mixture):
        command = ("opentau-prep", "val-plan", "{subject}", *sizes)
        yield hit(message, file=str(file), command=command)


def _differences(plan: MixtureValidation, mixture: Mixture) -> Iterator[str]:
    if plan.split != "training":
        yield "holds out whole episodes, training holds out single frames"
        return
    seed = mixture.training.get("seed", plan.seed)
    if plan.seed != seed:
        yield f"draws its rows with seed {plan.seed}, the training config's seed is {seed}"
    ratios = {
        name: mixture.val_split_ratio if entry.val_split_ratio is None else entry.val_split_ratio
        for name, entry in zip(mixture.dataset_names, mixture.datasets, strict=True)
    }
    other = [
        f"{part.name} ({part.val_split_ratio:g}, now {ratios[part.name]:g})"
        for part in plan.sets
        if ratios.get(part.name, part.val_split_ratio) != part.val_split_ratio
    ]
    if other:
        yield f"has other ratios than the mixture: {listed(other)}"


def _found(view: MixtureView, code: str) -> Iterator[Hit]:
    """Yield the stored findings of one rule; without a forecast there are none."""
    file = view.output("forecast")
    for each in _read(file) if file is not None else ():
        if each.get("code") == code and isinstance(each.get("message"), str):
            # Only whether there is a command is taken from the file: its words are the rule's.
            command = None if each.get("command") else ()
            yield hit(each["message"], file=str(file), command=command)


def _read(file: Path) -> Iterator[dict[str, Any]]:
    try:
        document = load_own(file.read_bytes(), where=str(file))
    except (OSError, MetadataError):
        return
    if not isinstance(document, dict):
        return
    from opentau_prep.heads.audit_faults import KINDS

    datasets, own = document.get("datasets"), str(document.get("source")).startswith(OWN_HEADS)
    for dataset in datasets if isinstance(datasets, list) else ():
        findings = dataset.get("findings") if isinstance(dataset, dict) else None
        for each in findings or ():
            # Of the mixture's own heads, the H rules report the same audit.
            if isinstance(each, dict) and not (own and each.get("kind") in KINDS):
                yield each


def _check(code: str) -> Callable[[MixtureView], Iterator[Hit]]:
    return partial(_found, code=code)


RULES = (
    Rule(
        "M018",
        "validation-plan",
        "warning",
        "The mixture's `val_plan.json` is unreadable, or is of another split, seed or ratio than"
        " training.",
        "Rows that it validates are rows that training trains on: the loss looks better than it"
        " is.",
        "Recompute the plan; for a plan by episodes, train on the other episodes.",
        other_rows,
        "mixture",
    ),
    *(
        Rule(
            rule.code,
            rule.name,
            rule.severity,
            f"{rule.what} (`forecast` looks for it; `validate` repeats what it found.)",
            rule.why,
            f"{rule.fix} Then run `forecast` again.",
            _check(rule.code),
            "mixture",
            rule.command,
        )
        for rule in FORECAST_RULES
    ),
)
