"""`opentau-prep stats`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from opentau_prep.cli.command import Result, command
from opentau_prep.cli.options import MixtureJson, Roots

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["register"]

_OPENPI = "openpi"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "stats")(stats)


def stats(
    session: Session,
    *,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    format: Annotated[
        Literal["lerobot", "openpi"],
        typer.Option("--format", help="Whose stats: LeRobot's, or openpi's norm_stats.json."),
    ] = "lerobot",
    quantile: Annotated[
        list[float] | None,
        typer.Option(
            metavar="Q", help="One more quantile, a fraction such as 0.999; may be repeated."
        ),
    ] = None,
    episode_stats: Annotated[
        bool,
        typer.Option(
            "--episode-stats/--no-episode-stats",
            help="Write each episode's stats too, where the version keeps them.",
        ),
    ] = True,
    episode_quantiles: Annotated[
        Literal["episode", "dataset"],
        typer.Option(help="Quantiles in each episode's row: its own, or the whole dataset's."),
    ] = "episode",
    memory_budget: Annotated[
        int,
        typer.Option(min=0, metavar="MIB", help="Data up to this size get exact quantiles."),
    ] = 128,
    chunk_size: Annotated[
        int, typer.Option(min=1, metavar="T", help="Steps a chunk, for entries with delta actions.")
    ] = 50,
    config_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="openpi: settings from configs/NAME.json."),
    ] = None,
    base_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="openpi: folder of parquet files, with or without meta/."),
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(metavar="N", help="openpi: stop after N frames.")
    ] = None,
    action_dim: Annotated[
        int | None, typer.Option(metavar="D", help="openpi: pad or cut vectors to D.")
    ] = None,
    clip_abnormal: Annotated[
        bool | None,
        typer.Option(
            "--clip-abnormal/--no-clip-abnormal",
            help="openpi: values outside [-pi, pi] become 0 (default), or stay.",
            show_default=False,
        ),
    ] = None,
    numpy1_edges: Annotated[
        bool,
        typer.Option("--numpy1-edges", help="openpi: quantiles of float32 data as under NumPy 1."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="openpi: the file to write.")
    ] = None,
) -> Result:
    """Compute normalization stats from the frames; no video is decoded.

    LeRobot's stats are written where each version keeps them. Numbers that are published already
    are compared first: equal, completed, or, where they really differ, left alone and shown, until
    --force. openpi's are the bits that its own estimator gives.

    \b
    opentau-prep stats path/to/dataset
    opentau-prep stats --mixture-json mixture.json --quantile 0.001 --quantile 0.999
    opentau-prep stats path/to/dataset --format openpi --action-dim 32
    opentau-prep stats --config-name openpi_folder
    """
    openpi_only = {
        "--config-name": config_name,
        "--base-dir": base_dir,
        "--max-frames": max_frames,
        "--action-dim": action_dim,
        "--clip-abnormal": clip_abnormal,
        "--numpy1-edges": numpy1_edges or None,
        "--out": out,
    }
    if format == _OPENPI or config_name is not None or base_dir is not None:
        from opentau_prep.cli.stats_openpi import run_openpi

        return run_openpi(session, roots, mixture_json, openpi_only)
    from opentau_prep.cli.stats_openpi import refuse_options

    refuse_options(openpi_only)
    return _lerobot(
        session,
        roots,
        mixture_json,
        {
            "quantiles": tuple(quantile or ()),
            "episode_stats": episode_stats,
            "episode_quantiles": episode_quantiles,
            "memory_budget": memory_budget << 20,
            "chunk_size": chunk_size,
        },
    )


def _lerobot(
    session: Session, roots: list[str] | None, mixture_json: Path | None, options: dict[str, object]
) -> Result:
    from opentau_prep.cli.stats_tables import stats_table
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.stats.compute import prepare_stats
    from opentau_prep.stats.options import StatsOptions

    chosen = StatsOptions(**options)  # type: ignore[arg-type]
    resolved = load_targets(roots, mixture_json, session.context, frames=True, one_by_one=True)
    report = prepare_stats(resolved, session.context, chosen)
    failed = report.needs_attention
    return Result(report.as_json(), stats_table(report), exit_code=1 if failed else 0)
