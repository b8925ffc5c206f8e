"""`opentau-prep heads`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.given import given_by
from opentau_prep.cli.options import HeadFlags, MixtureJson, Roots

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["heads"]


def heads(
    session: Session,
    *,
    flags: HeadFlags,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
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
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial", help="Also where not all data files of a dataset are here."
        ),
    ] = False,
) -> Result:
    """Build the normalization heads: one per robot type and control mode.

    Reads metadata only. Writes the heads of the mixture to --out, and to each dataset's
    meta/norm_heads/ the head that it belongs to: the same bits that training computes.

    \b
    opentau-prep heads --mixture-json mixture.json
    opentau-prep heads --mixture-json mixture.json --audit --dry-run
    opentau-prep heads --mixture-json mixture.json --explain org/dataset:state:3
    """
    from opentau_prep.choices import Choices
    from opentau_prep.cli.heads_tables import heads_tables
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.heads.compute import prepare_heads

    resolved = load_targets(roots, mixture_json, session.context, frames=False)
    choices = Choices(resolved, session.context, given_by(flags), norm_heads=out)
    report = prepare_heads(
        resolved,
        session.context,
        choices.heads(),
        out=choices.heads_path,
        audit=audit,
        explain_target=explain,
        allow_partial=allow_partial or session.context.download,
    )
    return Result(report.as_json(), heads_tables(report), exit_code=int(report.needs_attention))
