"""`opentau-prep run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from opentau_prep.cli.command import Result, command
from opentau_prep.cli.given import fit_given_by, given_by
from opentau_prep.cli.options import (
    FitFlags,
    HeadFlags,
    MixtureJson,
    Roots,
    ShardOption,
    StatsFlags,
    TokenLimit,
)

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "run")(run)


def run(
    session: Session,
    *,
    stats: StatsFlags,
    heads: HeadFlags,
    tokenizer: FitFlags,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    discrete_action_max_length: TokenLimit = None,
    shard: ShardOption = None,
) -> Result:
    """Prepare a mixture: every step in order, each skipped when it is fresh.

    Takes the options of its steps and remembers them for later runs, until --force. Sizes that are
    not given come from the training config, when the mixture is part of one. The last line is the
    verdict, the same as that of `report`: "Ready to train." and exit code 0, or what is left to do
    and exit code 1.

    \b
    opentau-prep run --mixture-json mixture.json
    opentau-prep run --mixture-json mixture.json --dry-run
    opentau-prep run --mixture-json mixture.json --published-stats keep
    opentau-prep run --mixture-json mixture.json --shard 3/8
    """
    from opentau_prep.cli.run_tables import run_tables
    from opentau_prep.cli.targets import named_mixture
    from opentau_prep.pipeline import run_pipeline

    session.work_on(shard)
    given = {**given_by(stats, heads), **fit_given_by(tokenizer)}
    given["discrete_action_max_length"] = discrete_action_max_length
    if stats.quantiles:
        given["quantiles"] = tuple(stats.quantiles)
    done = run_pipeline(named_mixture(roots, mixture_json), session.context, given)
    render = run_tables(done, verbose=session.common.verbose)
    return Result(done.as_json(), render, exit_code=int(done.needs_attention))
