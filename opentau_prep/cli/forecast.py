"""`opentau-prep forecast`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.options import Formula, MixtureJson, Roots

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["forecast"]


class Normalization(str, Enum):
    """Which stats normalize."""

    min_max = "min_max"
    quantile = "quantile"
    quantile10 = "quantile10"
    mean_std = "mean_std"


def forecast(
    session: Session,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    stats: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE_OR_DIR",
            help="norm_heads.json, stats.json, norm_stats.json, dataset_statistics.json, a LeRobot"
            " dataset or a checkpoint. Default: the mixture's own heads.",
        ),
    ] = None,
    stats_key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which of several stats to take for every dataset."),
    ] = None,
    normalization: Annotated[
        Normalization | None,
        typer.Option(help="Judge this mode only. Default: the checkpoint's, else all."),
    ] = None,
    formula: Annotated[
        Formula | None,
        typer.Option(help="Whose formula normalizes. Default: that of the stats' trainer."),
    ] = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read the frames: exact shares, and where the extremes are."),
    ] = False,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Steps of a chunk: which stats of delta actions to take."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: <mixture>.prep/forecast.json."),
    ] = None,
) -> Result:
    """Show what the policy will see: the data under stats of any origin, before training.

    Answers whether a checkpoint's stats fit these datasets: the share of values beyond [-1, 1],
    collapsed ranges, and what a mismatch looks like (units, order, sign, offset, gripper, padding).
    Reads metadata and sketches; with --deep also frames. Exit code 1 when something does not fit.

    \b
    opentau-prep forecast --mixture-json mixture.json --stats checkpoint/pretrained_model
    opentau-prep forecast --mixture-json mixture.json --stats norm_stats.json --deep
    opentau-prep forecast path/to/dataset --stats dataset_statistics.json --stats-key bridge_orig
    """
    from opentau_prep.cli.forecast_tables import forecast_tables
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.forecast.prepare import make_forecast
    from opentau_prep.forecast.report import ForecastOptions

    options = ForecastOptions(
        stats,
        stats_key,
        None if normalization is None else normalization.value,
        None if formula is None else formula.value,
        deep,
        chunk_size,
    )
    context = session.context
    resolved = load_targets(roots, mixture_json, context, frames=deep)
    made = make_forecast(
        resolved, context, options, out=out or context.prep_path(resolved.mixture, "forecast")
    )
    return Result(made.as_json(), forecast_tables(made), exit_code=int(bool(made.findings)))
