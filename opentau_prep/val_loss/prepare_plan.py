"""The verb behind `val-plan`: a mixture's validation pass, and the file that training reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Recipe
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.artifacts.place import file_place
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.artifacts.store import Inspection, Outcome, inspect
from opentau_prep.config.training import TRAINING_SEED
from opentau_prep.notices import some_names, warn
from opentau_prep.val_loss.mixture import (
    PLAN_SCHEMA_VERSION,
    MixtureValidation,
    Split,
    load_validation_plan,
    plan_mixture_validation,
    validation_sets,
)

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.engine import Failure
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["PlanReport", "inspect_plan", "prepare_plan"]

COMMAND = "val-plan"


@dataclass(frozen=True)
class PlanReport:
    """A mixture's validation pass, and what became of its file.

    Attributes:
        plan: The pass.
        outcome: What was done with `--out`; None when no file was asked for.
        failures: None: a plan without one of its datasets would be another plan.
    """

    plan: MixtureValidation
    outcome: Outcome | None = None
    failures: tuple[Failure, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plan and outcome JSON-ready; `status` is `not written` without `--out`."""
        done = self.outcome
        return {
            **self.plan.as_json(),
            "path": None if done is None else str(done.path),
            "status": "not written" if done is None else done.status,
        }


def prepare_plan(
    resolved: ResolvedMixture,
    context: RunContext,
    *,
    world_size: int,
    batch_size: int,
    split: Split = "training",
    seed: int | None = None,
    ratio: float | None = None,
    out: Path | None = None,
) -> PlanReport:
    """Return the validation pass of a mixture; write it to `out` unless the file is up to date.

    Reads metadata only. vqa entries whose number of samples is not known are left out with one
    notice, `vqa_left_out`.

    Args:
        resolved: The mixture.
        context: How to run.
        world_size: Ranks that will validate.
        batch_size: Samples that a rank evaluates at once.
        split: `training` holds out the rows that OpenTau does, `episodes` whole ones as LeRobot.
        seed: The training config's seed; None takes the one of the config around the mixture, or
            else OpenTau's default, 1000.
        ratio: A `val_split_ratio` to use instead of the mixture's.
        out: The file to write, for `load_validation_plan`.

    Raises:
        ConfigError: An argument is out of range, names collide, or a selection is faulty.
        MetadataError: An episode table is missing or malformed.
        DataError: No dataset has a validation frame.
        ArtifactError: The file cannot be written, or is somebody else's.
    """
    with main_rank_notices(context.this_rank):
        if seed is None:
            seed = resolved.mixture.training.get("seed", TRAINING_SEED)
        plan = _plan(resolved, world_size, batch_size, split=split, seed=seed, ratio=ratio)
        if out is None:
            return PlanReport(plan)
        place = file_place("validation_plan", out, schema_version=PLAN_SCHEMA_VERSION)
        artifact = context.ensure_file(
            place,
            lambda: dump_own(plan.as_json()),
            _recipe(resolved, plan),
        )
    return PlanReport(plan, artifact.outcome)


def inspect_plan(
    resolved: ResolvedMixture, path: Path
) -> tuple[Inspection, MixtureValidation | None]:
    """Return the state of a plan's file against the mixture, and the plan; nothing is changed.

    Args:
        resolved: The mixture.
        path: The file.

    Returns:
        The state, and the plan that is there: None when there is none.

    Raises:
        ConfigError: The path is a folder, or a selection is faulty.
        DataError: The file is not a plan.
        ArtifactError: It cannot be read.
    """
    place = file_place("validation_plan", path, schema_version=PLAN_SCHEMA_VERSION)
    found = inspect(place, Recipe(COMMAND, {}))
    if found.content is None:
        return found, None
    plan = load_validation_plan(path)
    # A ratio that `val-plan` was given for the whole mixture is in the plan alone.
    ratios = {part.name: part.val_split_ratio for part in plan.sets}
    usual = {ratios.get(e.name) for e in resolved.entries if e.config.val_split_ratio is None}
    ratio = usual.pop() if len(usual) == 1 else None
    size = plan.plan.world_size, plan.plan.batch_size
    now = _plan(resolved, *size, split=plan.split, seed=plan.seed, ratio=ratio)
    return inspect(place, _recipe(resolved, now)), plan


def _plan(
    resolved: ResolvedMixture,
    world_size: int,
    batch_size: int,
    *,
    split: Split,
    seed: int,
    ratio: float | None,
) -> MixtureValidation:
    sets = validation_sets(resolved, split=split, ratio=ratio)
    whole = split == "episodes"
    left_out = [p.name for p in sets if p.name in resolved.vqa and (whole or not p.n_frames)]
    if left_out:
        why = (
            "vqa entries have no episodes and"
            if whole
            else "training validates these vqa entries too; set `num_samples` in them. They"
        )
        warn(
            "vqa_left_out",
            f"{why} are left out: {some_names(left_out)}",
            datasets=left_out,
        )
    return plan_mixture_validation(
        [part for part in sets if part.name not in left_out],
        world_size=world_size,
        batch_size=batch_size,
        seed=seed,
        split=split,
    )


def _recipe(resolved: ResolvedMixture, plan: MixtureValidation) -> Recipe:
    ratios = {part.name: part.val_split_ratio for part in plan.sets}
    parameters = {
        "world_size": plan.plan.world_size,
        "batch_size": plan.plan.batch_size,
        "split": plan.split,
        "seed": plan.seed,
        "val_split_ratio": ratios,
    }
    inputs = {f"episodes of {entry.name}": _selection(entry) for entry in resolved.entries}
    # The order of the datasets is the order of the positions, and keys of a record are sorted.
    inputs["datasets"] = {"count": len(ratios), "sha256": _hash("\n".join(ratios))}
    return Recipe(
        COMMAND,
        inputs=inputs,
        parameters=parameters,
        mixture_id=resolved.mixture.mixture_id,
    )


def _selection(entry: ResolvedEntry) -> dict[str, Any]:
    table = entry.meta.episodes
    lengths = [int(table.length[table.position(e)]) for e in entry.episodes.tolist()]
    lines = "".join(f"{e} {n}\n" for e, n in zip(entry.episodes.tolist(), lengths, strict=True))
    return {"count": len(lengths), "frames": sum(lengths), "sha256": _hash(lines)}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
