"""`opentau-prep val-plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result, command
from opentau_prep.cli.options import MixtureJson, Roots

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["register"]

MAX_RANKS = 100_000  # every rank is a row of the plan


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "val-plan")(val_plan)


def val_plan(
    session: Session,
    world_size: Annotated[
        int, typer.Option(min=1, max=MAX_RANKS, metavar="N", help="Ranks that will validate.")
    ],
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples a rank evaluates at once.")
    ],
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    seed: Annotated[int, typer.Option(help="The training config's seed.")] = 1000,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as JSON, for training.")
    ] = None,
) -> Result:
    """Plan one validation pass over all datasets that keeps every rank busy.

    Each dataset holds out int(frames * val_split_ratio) of its selected frames, the same on every
    rank. The plan gives each rank one range of them all, and says what a loop over one loader a
    dataset would cost beside it. Reads metadata only.

    \b
    opentau-prep val-plan --mixture-json mixture.json --world-size 8 --batch-size 32
    opentau-prep val-plan --mixture-json mixture.json --world-size 8 --batch-size 32 --out plan.json
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
        seed=seed,
        out=out,
    )
    return Result(report.as_json(), plan_tables(report))
