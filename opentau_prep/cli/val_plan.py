"""`opentau-prep val-plan`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.options import MixtureJson, Roots

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["val_plan"]

MAX_RANKS = 100_000  # every rank is a row of the plan


class SplitChoice(str, Enum):
    """What `--split` takes."""

    training = "training"
    episodes = "episodes"


def val_plan(
    session: Session,
    world_size: Annotated[
        int, typer.Option(min=1, max=MAX_RANKS, metavar="N", help="Ranks that will validate.")
    ],
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples that a rank evaluates at once.")
    ],
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    split: Annotated[
        SplitChoice,
        typer.Option(help="Hold out the rows that OpenTau does, or episodes as LeRobot does."),
    ] = SplitChoice.training,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The training config's seed. Default: that of the config around the mixture, "
            "or 1000.",
        ),
    ] = None,
    val_split_ratio: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="RATIO", help="Instead of the mixture's ratio."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The plan. Default: <mixture>.prep/val_plan.json."),
    ] = None,
) -> Result:
    """Plan one validation pass over all datasets that keeps every rank busy.

    Each entry holds out int(frames * ratio) of its selected frames, the rows that OpenTau's
    training holds out with the same seed; its own val_split_ratio comes before --val-split-ratio
    and the mixture's. --split episodes holds out the last ceil(episodes * ratio) episodes of each
    task, LeRobot's eval_split. Every rank gets one range of the held-out frames and the same
    number of full batches. Reads metadata only.

    \b
    opentau-prep val-plan --mixture-json mixture.json --world-size 8 --batch-size 32
    opentau-prep val-plan --mixture-json mixture.json --world-size 8 --batch-size 32 --seed 42
    """
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.cli.val_tables import plan_tables
    from opentau_prep.val_loss.prepare_plan import prepare_plan

    resolved = load_targets(roots, mixture_json, session.context, frames=False, writes=False)
    report = prepare_plan(
        resolved,
        session.context,
        world_size=world_size,
        batch_size=batch_size,
        split=split.value,
        seed=seed,
        ratio=val_split_ratio,
        out=out or session.context.prep_path(resolved.mixture, "val_plan"),
    )
    return Result(report.as_json(), plan_tables(report))
