"""`opentau-prep stats`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from opentau_prep.cli.command import Result, command
from opentau_prep.cli.options import MixtureJson, Roots, ShardOption, StatsFlags
from opentau_prep.errors import ConfigError

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session
    from opentau_prep.stats.options import StatsOptions

__all__ = ["register"]

_NORM_STATS = ("openpi", "kai0")
_RELATIVE = ("lerobot-relative", "groot")


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "stats")(stats)


def stats(
    session: Session,
    *,
    flags: StatsFlags,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    format: Annotated[
        Literal["lerobot", "openpi", "kai0", "lerobot-relative", "groot"] | None,
        typer.Option(
            "--format",
            help="Whose stats: LeRobot's (default), openpi's norm_stats.json, or kai0's, where"
            " vectors are padded to 32 and values outside [-pi, pi] become 0. Of actions relative"
            " to the chunk's start: lerobot-relative, or groot's relative_stats.json.",
            show_default=False,
        ),
    ] = None,
    memory_budget: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="MIB",
            help="lerobot: data up to this size get exact quantiles (default 128).",
        ),
    ] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="T",
            help="lerobot, for entries with delta actions, lerobot-relative (default 50) and groot"
            " (default 16): steps per chunk.",
        ),
    ] = None,
    exclude_joint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="lerobot-relative (default: gripper), groot: actions whose name holds NAME stay"
            " absolute; may be repeated.",
        ),
    ] = None,
    config_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="openpi, kai0: settings from configs/NAME.json, else from the TrainConfig NAME of"
            " the installed package openpi (kai0's format unless --format says otherwise).",
        ),
    ] = None,
    base_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="openpi, kai0: folder of parquet files, with or without meta/."
        ),
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(metavar="N", help="openpi, kai0: stop after N frames.")
    ] = None,
    action_dim: Annotated[
        int | None,
        typer.Option(metavar="D", help="openpi, kai0: pad or cut vectors to D (kai0: 32)."),
    ] = None,
    numpy1_edges: Annotated[
        bool | None,
        typer.Option(
            "--numpy1-edges/--numpy2-edges",
            help="openpi, kai0: quantiles of float32 data as under NumPy 1 (default), which both"
            " pin, or NumPy 2.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="openpi, kai0: the file to write.")
    ] = None,
    shard: ShardOption = None,
) -> Result:
    """Compute normalization stats from the frames; no video is decoded.

    LeRobot's stats are written where each version keeps them. Numbers that are published already
    are compared first: equal, completed, or, where they really differ, left alone and shown, until
    --published-stats says what to do. openpi's are the bits that its own estimator gives.

    \b
    opentau-prep stats path/to/dataset
    opentau-prep stats --mixture-json mixture.json --quantile 0.001 --quantile 0.999
    opentau-prep stats path/to/dataset --format kai0
    opentau-prep stats --config-name openpi_folder
    """
    session.work_on(shard)
    lerobot_only = {
        "--quantile": flags.quantiles or None,
        "--episode-stats": flags.episode_stats,
        "--episode-quantiles": flags.episode_quantiles,
        "--published-stats": flags.published,
        "--allow-partial": flags.allow_partial or None,
        "--memory-budget": memory_budget,
        "--chunk-size": chunk_size,
        "--shard": shard,
    }
    openpi_only = {
        "--config-name": config_name,
        "--base-dir": base_dir,
        "--max-frames": max_frames,
        "--action-dim": action_dim,
        "--numpy1-edges": numpy1_edges,
        "--out": out,
    }
    # What only openpi's stats can be made of says which are meant.
    if format in _NORM_STATS or (format is None and (config_name or base_dir) is not None):
        from opentau_prep.cli.stats_openpi import run_openpi

        _refuse(lerobot_only, of="lerobot", format=format or "openpi")
        return run_openpi(session, roots, mixture_json, {**openpi_only, "--format": format})
    _refuse(openpi_only, of="openpi or kai0", format=format or "lerobot")
    if format in _RELATIVE:
        from opentau_prep.cli.stats_relative import run_relative

        chosen = _stats_options({k: v for k, v in lerobot_only.items() if k != "--chunk-size"})
        given = {"format": format, "chunk_size": chunk_size, "stats": chosen}
        joints = None if exclude_joint is None else tuple(exclude_joint)
        return run_relative(session, roots, mixture_json, {**given, "exclude_joints": joints})
    _refuse({"--exclude-joint": exclude_joint}, of="lerobot-relative or groot", format="lerobot")
    return _lerobot(session, roots, mixture_json, lerobot_only)


def _refuse(given: Mapping[str, object], *, of: str, format: str) -> None:
    """Refuse options that have no effect in the chosen format."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ConfigError(
            f"{', '.join(names)} would have no effect on stats in {format} format",
            hint=f"Use --format {of}, or leave {'it' if len(names) == 1 else 'them'} out.",
        )


def _lerobot(
    session: Session, roots: list[str] | None, mixture_json: Path | None, given: dict[str, Any]
) -> Result:
    from opentau_prep.cli.stats_tables import stats_table
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.stats.compute import prepare_stats

    chosen = _stats_options(given)
    resolved = load_targets(roots, mixture_json, session.context, frames=True, one_by_one=True)
    report = prepare_stats(resolved, session.context, chosen)
    failed = report.needs_attention
    return Result(report.as_json(), stats_table(report), exit_code=1 if failed else 0)


def _stats_options(given: Mapping[str, Any]) -> StatsOptions:
    from opentau_prep.stats.options import StatsOptions

    options = {
        name[2:].replace("-", "_"): v
        for name, v in given.items()
        if v is not None and name != "--shard"
    }
    if "published_stats" in options:
        options["published"] = options.pop("published_stats")
    options["quantiles"] = tuple(options.pop("quantile", ()))
    if "memory_budget" in options:
        options["memory_budget"] <<= 20
    return StatsOptions(**options)
