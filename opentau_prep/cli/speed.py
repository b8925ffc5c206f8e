"""`opentau-prep speed-percentiles`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.options import MixtureJson, Roots, ShardOption

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["speed_percentiles"]


def speed_percentiles(
    session: Session,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    persist_subset: Annotated[
        bool,
        typer.Option(
            "--persist-subset", help="Write percentiles of an entry's selected episodes, too."
        ),
    ] = False,
    shard: ShardOption = None,
) -> Result:
    """Bucket each episode's speed within its task.

    Writes meta/speed_percentiles.jsonl of each dataset: one row per task with p5, p15, ..., p95 of
    the episode lengths. A file that exists is trusted and never recomputed silently: rows of new
    tasks are appended, a stale file is named. --force recomputes it and keeps the old one.

    \b
    opentau-prep speed-percentiles path/to/dataset
    opentau-prep speed-percentiles --mixture-json mixture.json --workers 8 --keep-going
    """
    from opentau_prep.cli.tables import speed_table
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.speed import prepare_speed

    session.work_on(shard)
    resolved = load_targets(roots, mixture_json, session.context, frames=True, one_by_one=True)
    report = prepare_speed(resolved, session.context, persist_subset=persist_subset)
    return Result(report.as_json(), speed_table(report), exit_code=int(report.needs_attention))
