"""`opentau-prep heads`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result, command
from opentau_prep.cli.options import MixtureJson, Roots

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["register"]


class Quantiles(str, Enum):
    """Where the heads' quantiles come from."""

    pooled = "pooled"
    sketch = "sketch"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "heads")(heads)


def heads(
    session: Session,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    max_state_dim: Annotated[
        int, typer.Option(min=1, metavar="N", help="Width of the state in the policy.")
    ] = 32,
    max_action_dim: Annotated[
        int, typer.Option(min=1, metavar="N", help="Width of the actions in the policy.")
    ] = 32,
    num_cams: Annotated[
        int, typer.Option(min=0, metavar="N", help="Cameras that have stats in the heads.")
    ] = 0,
    quantiles: Annotated[
        Quantiles,
        typer.Option(help="Weighted mean of the members', as in training, or from sketches."),
    ] = Quantiles.pooled,
    truncate_dims: Annotated[
        bool, typer.Option("--truncate-dims", help="Cut dims beyond the maximum, with a warning.")
    ] = False,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Steps of a chunk: which stats of delta actions to take."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The whole mixture's heads. Default: norm_heads.json in its prep folder.",
        ),
    ] = None,
    audit: Annotated[
        bool,
        typer.Option("--audit", help="Look for members that do not belong to their head."),
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET[:FEATURE[:DIM]]",
            help="Show where the numbers of its head come from.",
        ),
    ] = None,
) -> Result:
    """Build the normalization heads: one per robot type and control mode.

    Reads metadata only. Writes the heads of the mixture to --out, and to each dataset's
    meta/norm_heads/ the head that it belongs to: the same bits that training computes.

    \b
    opentau-prep heads --mixture-json mixture.json
    opentau-prep heads --mixture-json mixture.json --audit --dry-run
    opentau-prep heads --mixture-json mixture.json --explain org/dataset:state:3
    """
    from opentau_prep.cli.heads_tables import heads_tables
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.heads.compute import prepare_heads
    from opentau_prep.heads.options import HeadOptions

    options = HeadOptions(
        max_state_dim=max_state_dim,
        max_action_dim=max_action_dim,
        num_cams=num_cams,
        quantiles=quantiles.value,
        truncate_dims=truncate_dims,
        chunk_size=chunk_size,
    )
    resolved = load_targets(roots, mixture_json, session.context, frames=False)
    context = session.context
    report = prepare_heads(
        resolved,
        context,
        options,
        out=out or context.prep_path(resolved.mixture, "norm_heads"),
        audit=audit,
        explain_target=explain,
    )
    return Result(report.as_json(), heads_tables(report), exit_code=int(report.needs_attention))
