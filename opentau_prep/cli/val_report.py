"""`opentau-prep val-report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.options import MixtureJson

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["val_report"]


def val_report(
    session: Session,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Loss files (.jsonl, .parquet), folders, or patterns."),
    ],
    mixture_json: MixtureJson = None,
    loss_weight: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Weight of a loss in a total; repeatable."),
    ] = None,
    earlier: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Compare with an earlier report (.json) or loss files."),
    ] = None,
    fail_if_worse: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", help="Exit 1 when a loss rose by more than that."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The report as JSON. Default: <mixture>.prep/val_report.json; without a mixture, "
            "none.",
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table as CSV.")
    ] = None,
) -> Result:
    """Break validation losses down by dataset, control mode and norm head.

    Reads per-sample losses, such as one file per rank. With the mixture, heads get their names,
    control modes that training masked are recovered, and the aggregate weighs each head by its
    datasets' weights. The same samples give the same numbers to the last bit, in whatever files.

    \b
    opentau-prep val-report losses/ --mixture-json mixture.json --loss-weight MSE=1
    opentau-prep val-report losses/ --earlier before.json --fail-if-worse 5
    """
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.cli.val_tables import report_tables
    from opentau_prep.val_loss.prepare_report import ReportOptions, prepare_report

    resolved = None
    if mixture_json is not None:
        resolved = load_targets(None, mixture_json, session.context, frames=False, writes=False)
        out = out or session.context.prep_path(resolved.mixture, "val_report")
    options = ReportOptions(loss_weight or (), earlier or (), fail_if_worse, out, csv)
    report = prepare_report(files, session.context, resolved=resolved, options=options)
    return Result(report.as_json(), report_tables(report), exit_code=1 if report.worse else 0)
