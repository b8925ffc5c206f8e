"""`opentau-prep run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from opentau_prep.cli.command import Result, command
from opentau_prep.cli.options import MixtureJson, Roots

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "run")(run)


def run(session: Session, roots: Roots = None, mixture_json: MixtureJson = None) -> Result:
    """Prepare a mixture: every step in order, each skipped when fresh.

    \b
    opentau-prep run --mixture-json mixture.json
    opentau-prep run --mixture-json mixture.json --dry-run
    """
    from opentau_prep.cli.tables import run_tables
    from opentau_prep.cli.targets import named_mixture
    from opentau_prep.pipeline import run_pipeline

    outcomes = run_pipeline(named_mixture(roots, mixture_json), session.context)
    payload = {"steps": [{"step": o.name, **o.report.as_json()} for o in outcomes]}
    failed = any(outcome.report.needs_attention for outcome in outcomes)
    return Result(payload, run_tables(outcomes), exit_code=1 if failed else 0)
