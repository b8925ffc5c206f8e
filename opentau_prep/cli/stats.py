"""`opentau-prep stats`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.given import given_by, names_given
from opentau_prep.cli.options import MixtureJson, Roots, ShardOption, StatsFlags
from opentau_prep.errors import ConfigError

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session
    from opentau_prep.stats.options import StatsOptions

__all__ = ["NormStatsFlags", "stats"]

_OPENPI = ("openpi", "kai0")
_NORM_STATS = "openpi's and kai0's stats"
_RELATIVE = ("lerobot-relative", "groot")


@dataclass(frozen=True)
class NormStatsFlags:
    """Options of openpi's and kai0's stats, for `stats`; see `OpenpiJob`."""

    config_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Settings from configs/NAME.json, else from the TrainConfig NAME of the installed"
            " package openpi (kai0's format unless --format says otherwise).",
            rich_help_panel=_NORM_STATS,
        ),
    ] = None
    base_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of parquet files, with or without meta/.",
            rich_help_panel=_NORM_STATS,
        ),
    ] = None
    max_frames: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stop after N frames.", rich_help_panel=_NORM_STATS),
    ] = None
    action_dim: Annotated[
        int | None,
        typer.Option(
            metavar="D",
            help="Pad or cut vectors to D (kai0: 32).",
            rich_help_panel=_NORM_STATS,
        ),
    ] = None
    numpy1_edges: Annotated[
        bool | None,
        typer.Option(
            "--numpy1-edges/--numpy2-edges",
            help="Quantiles of float32 data as under NumPy 1 (default), which both pin, or NumPy"
            " 2.",
            show_default=False,
            rich_help_panel=_NORM_STATS,
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write.", rich_help_panel=_NORM_STATS),
    ] = None


@dataclass(frozen=True)
class DatasetStatsFlags(StatsFlags):
    """Options of LeRobot's stats, with those that `run` does not take."""

    memory_budget: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="MIB",
            help="LeRobot's: data up to this size get exact quantiles (default 128).",
        ),
    ] = None
    chunk_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="T",
            help="Steps per chunk: for delta actions and lerobot-relative (default 50), for groot"
            " (default 16).",
        ),
    ] = None


def stats(
    session: Session,
    *,
    norm_stats: NormStatsFlags,
    flags: DatasetStatsFlags,
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
    exclude_joint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="lerobot-relative (default: gripper), groot: actions whose name holds NAME stay"
            " absolute; may be repeated.",
        ),
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
    # What only openpi's stats can be made of says which are meant.
    named = norm_stats.config_name is not None or norm_stats.base_dir is not None
    if format in _OPENPI or (format is None and named):
        from opentau_prep.cli.stats_openpi import run_openpi

        shards = [] if shard is None else ["--shard"]
        _refuse([*names_given(flags), *shards], of="lerobot", format=format or "openpi")
        return run_openpi(session, roots, mixture_json, norm_stats, format)
    _refuse(names_given(norm_stats), of="openpi or kai0", format=format or "lerobot")
    if format in _RELATIVE:
        from opentau_prep.cli.stats_relative import run_relative

        given = {
            "format": format,
            "chunk_size": flags.chunk_size,
            "stats": _options(replace(flags, chunk_size=None)),
        }
        joints = None if exclude_joint is None else tuple(exclude_joint)
        return run_relative(session, roots, mixture_json, {**given, "exclude_joints": joints})
    excluded = [] if exclude_joint is None else ["--exclude-joint"]
    _refuse(excluded, of="lerobot-relative or groot", format="lerobot")
    return _lerobot(session, roots, mixture_json, _options(flags))


def _refuse(names: Sequence[str], *, of: str, format: str) -> None:
    """Refuse options that have no effect in the chosen format."""
    if names:
        raise ConfigError(
            f"{', '.join(names)} would have no effect on stats in {format} format",
            hint=f"Use --format {of}, or leave {'it' if len(names) == 1 else 'them'} out.",
        )


def _lerobot(
    session: Session, roots: list[str] | None, mixture_json: Path | None, options: StatsOptions
) -> Result:
    from opentau_prep.cli.stats_tables import stats_table
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.stats.compute import prepare_stats

    resolved = load_targets(roots, mixture_json, session.context, frames=True, one_by_one=True)
    report = prepare_stats(resolved, session.context, options)
    return Result(report.as_json(), stats_table(report), exit_code=int(report.needs_attention))


def _options(flags: DatasetStatsFlags) -> StatsOptions:
    from opentau_prep.stats.options import StatsOptions

    given = given_by(flags)
    given["quantiles"] = tuple(given.get("quantiles", ()))
    if "memory_budget" in given:
        given["memory_budget"] <<= 20
    return StatsOptions(**given)
