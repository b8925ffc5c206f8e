"""Options that several commands share: each is stated once, here.

A class of this module is a part of a command line: a command's function takes one as a parameter,
and `command` makes an option of each field. In the classes of steps, None means that the option was
not given: what then holds is decided by `opentau_prep.choices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "CommonOptions",
    "FitFlags",
    "Formula",
    "HeadFlags",
    "MixtureJson",
    "Roots",
    "ShardOption",
    "StatsFlags",
    "TokenLimit",
]

_WHERE, _HOW, _OUTPUT = "Where things are", "How to run", "What is shown"
_STATS, _HEADS, _FIT = "LeRobot's stats", "Norm heads", "Action tokenizer"

Roots = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ROOT", help="Dataset folders, or URLs of some (each holds meta/ and data/)."
    ),
]
MixtureJson = Annotated[
    Path | None,
    typer.Option(
        "--mixture-json",
        metavar="FILE",
        help="Mixture, or training config with the key dataset_mixture.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Work on part I of N of the datasets (1/8 to 8/8), balanced by frames.",
        rich_help_panel=_HOW,
    ),
]
TokenLimit = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="The policy's limit: forecast the share of chunks that it cuts off.",
        rich_help_panel=_FIT,
    ),
]


class Formula(str, Enum):
    """Whose formula normalizes."""

    opentau = "opentau"
    lerobot = "lerobot"
    openpi = "openpi"
    openvla = "openvla"


@dataclass(frozen=True)
class CommonOptions:
    """What every command takes; the annotations are the command line's own declarations."""

    artifact_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write datasets' artifacts below DIR, not into the datasets.",
            rich_help_panel=_WHERE,
        ),
    ] = None
    no_persist: Annotated[
        bool,
        typer.Option(
            "--no-persist", help="Show results; write nothing into the datasets, and exit with 0."
        ),
    ] = False
    prep_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the mixture's own outputs. Default: <stem>.prep/ next to its JSON.",
            rich_help_panel=_WHERE,
        ),
    ] = None
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Fetch missing datasets from the hub (no videos).",
            rich_help_panel=_WHERE,
        ),
    ] = False
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Recompute and replace; old files stay as backups.",
            rich_help_panel=_HOW,
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be done; write nothing.", rich_help_panel=_HOW
        ),
    ] = False
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going/--fail-fast",
            help="After a dataset fails: do the others, or stop.",
            rich_help_panel=_HOW,
        ),
    ] = False
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes. Default: the cores this job may use.",
            rich_help_panel=_HOW,
        ),
    ] = None
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What runs the work: local, dask or ray.",
            rich_help_panel=_HOW,
        ),
    ] = "local"
    engine_address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A running dask or ray cluster. Default: start one.",
            rich_help_panel=_HOW,
        ),
    ] = None
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document on stdout instead of tables.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="No tables, no progress; warnings stay.", rich_help_panel=_OUTPUT
        ),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Show all details, and tracebacks of our bugs.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False


@dataclass(frozen=True)
class StatsFlags:
    """Options of LeRobot's stats, for `stats` and `run`; see `StatsOptions`."""

    published: Annotated[
        Literal["stop", "keep", "replace"] | None,
        typer.Option(
            "--published-stats",
            help="Published min, max, mean, std or count that differ from the frames: stop and"
            " report them (default), keep them, or replace them and keep a backup.",
            show_default=False,
            rich_help_panel=_STATS,
        ),
    ] = None
    allow_partial: Annotated[
        bool | None,
        typer.Option(
            "--allow-partial",
            help="Compute the stats of a dataset of which only a part is on disk.",
            rich_help_panel=_STATS,
        ),
    ] = None
    quantiles: Annotated[
        list[float] | None,
        typer.Option(
            "--quantile",
            metavar="Q",
            help="One more quantile, a fraction such as 0.999; may be repeated.",
            rich_help_panel=_STATS,
        ),
    ] = None
    episode_stats: Annotated[
        bool | None,
        typer.Option(
            "--episode-stats/--no-episode-stats",
            help="Write each episode's stats too (default), where the version keeps them.",
            show_default=False,
            rich_help_panel=_STATS,
        ),
    ] = None
    episode_quantiles: Annotated[
        Literal["episode", "dataset"] | None,
        typer.Option(
            help="Quantiles that are added to each episode's row: the dataset's (default), or the"
            " episode's own.",
            show_default=False,
            rich_help_panel=_STATS,
        ),
    ] = None


@dataclass(frozen=True)
class HeadFlags:
    """Options of the norm heads, for `heads` and `run`; see `HeadOptions`."""

    max_state_dim: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Width of the state in the policy. Default: the training config's, else 32 or the"
            " widest native width.",
            rich_help_panel=_HEADS,
        ),
    ] = None
    max_action_dim: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Width of the actions in the policy. Default: as for the state.",
            rich_help_panel=_HEADS,
        ),
    ] = None
    num_cams: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Cameras that have stats in the heads. Default: the training config's, else 0.",
            rich_help_panel=_HEADS,
        ),
    ] = None
    quantiles_from: Annotated[
        Literal["pooled", "sketch"] | None,
        typer.Option(
            "--quantiles",
            help="Quantiles of a head: the weighted mean of its members', as in training (pooled,"
            " default), or those of the frames, from sketches.",
            show_default=False,
            rich_help_panel=_HEADS,
        ),
    ] = None
    truncate_dims: Annotated[
        bool | None,
        typer.Option(
            "--truncate-dims",
            help="Cut dims beyond the maximum, with a warning.",
            rich_help_panel=_HEADS,
        ),
    ] = None
    chunk_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="T",
            help="Steps of the policy's action chunk. Default: the training config's, else 50.",
            rich_help_panel=_HEADS,
        ),
    ] = None


@dataclass(frozen=True)
class FitFlags:
    """Options of the action tokenizer, for `fit-tokenizer` and `run`; see `FitOptions`."""

    total_chunks: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Chunks to fit on; auto (default): until more do not help.",
            rich_help_panel=_FIT,
        ),
    ] = None
    vocab_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Tokens in all, the 256 bytes included. Default: 2048.",
            rich_help_panel=_FIT,
        ),
    ] = None
    scale: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Quantization steps per unit of a DCT coefficient. Default: 10.",
            rich_help_panel=_FIT,
        ),
    ] = None
    max_token_length: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Longest token in numbers; auto (default): chosen on held-out chunks.",
            rich_help_panel=_FIT,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Random seed. Default: 0.", rich_help_panel=_FIT),
    ] = None
    config_version: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Version of the policy's config: decides how zero ranges are normalized."
            " Default: 1.",
            rich_help_panel=_FIT,
        ),
    ] = None
    normalization: Annotated[
        Literal["min_max", "quantile", "mean_std"] | None,
        typer.Option(
            help="How the policy normalizes actions. Default: min_max.",
            show_default=False,
            rich_help_panel=_FIT,
        ),
    ] = None
    per_head_norm: Annotated[
        bool | None,
        typer.Option(
            "--per-head-norm/--no-per-head-norm",
            help="Normalize each dataset with its head (default); or all with one range, as old"
            " fits did.",
            show_default=False,
            rich_help_panel=_FIT,
        ),
    ] = None
    headroom: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Normalized values up to X are never clipped: X times the range, or X standard"
            " deviations. Default: 10.",
            rich_help_panel=_FIT,
        ),
    ] = None
    holdout: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Share of each dataset's episodes to measure on. Default: 0.1.",
            rich_help_panel=_FIT,
        ),
    ] = None
