"""M: the validation plan of the mixture, against what training holds out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from opentau_prep.artifacts.catalog import MIXTURE_OUTPUTS
from opentau_prep.errors import PrepError
from opentau_prep.val_loss.mixture import MixtureValidation, load_validation_plan
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.validate.mixture_view import MixtureView

__all__ = ["RULES"]


def other_rows(view: MixtureView) -> Iterator[Hit]:
    mixture = view.mixture
    if mixture is None or view.outputs is None:
        return
    file = view.outputs / MIXTURE_OUTPUTS["val_plan"]
    if not file.exists():
        return
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


RULES = (
    Rule(
        "M018",
        "validation-plan",
        "warning",
        "The mixture's `val_plan.json` is unreadable, or is of another split, seed or ratio than"
        " training.",
        "Rows that it validates are rows that training trains on: the loss looks better than it"
        " is.",
        "Recompute it with `val-plan`; for a plan by episodes, train on the other episodes.",
        other_rows,
        "mixture",
    ),
)
