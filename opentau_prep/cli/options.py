"""Options that all commands share, stated once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["CommonOptions", "MixtureJson", "Roots"]

_RUN = "Options of every command"

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


@dataclass(frozen=True)
class CommonOptions:
    """What every command takes; the annotations are the command line's own declarations."""

    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes. Default: the cores this job may use."),
    ] = None
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="What runs the work: local, dask or ray.")
    ] = "local"
    engine_address: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A running dask or ray cluster. Default: start one."),
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Recompute and replace; the old file is kept beside.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout instead of tables.")
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No tables, no progress; warnings stay.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more, and show tracebacks of our bugs.")
    ] = False
    artifact_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Put artifacts below DIR, not into the datasets."),
    ] = None
    prep_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the mixture's own outputs. Default: <stem>.prep/ next to its JSON.",
        ),
    ] = None
    download: Annotated[
        bool, typer.Option("--download", help="Fetch missing datasets from the hub (no videos).")
    ] = False
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going/--fail-fast", help="After a dataset fails: do the others, or stop."
        ),
    ] = False
