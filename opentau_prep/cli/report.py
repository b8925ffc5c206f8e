"""`opentau-prep report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.options import MixtureJson, Roots

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.cli.session import Session

__all__ = ["report"]


def report(
    session: Session,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The HTML file. Default: report.html in the mixture's prep folder."
        ),
    ] = None,
    norm_heads: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The mixture's heads. Default: where run puts them."),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The fitted folder. Default: where run puts it."),
    ] = None,
    val_plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Of val-plan. Default: val_plan.json in the mixture's prep folder."
        ),
    ] = None,
    val_report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of val-report. Default: val_report.json in the mixture's prep folder.",
        ),
    ] = None,
    discrete_action_max_length: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Forecast the share of chunks longer than this."),
    ] = None,
    frames: Annotated[
        bool,
        typer.Option(
            "--frames/--no-frames", help="Read a few local episodes, for trajectories and chunks."
        ),
    ] = True,
    png: Annotated[
        list[str] | None,
        typer.Option(
            "--png",
            metavar="SECTION",
            help="Also write a picture of a section (mixture, heads, ...) next to the page;"
            " repeatable. Needs Chromium or Chrome.",
        ),
    ] = None,
) -> Result:
    """Show on one page whether a mixture is ready to train, and what the policy will see.

    Writes one HTML file that needs nothing else: verdict and commands, datasets and shares, norm
    heads with every dim's distributions, trajectories, speed, tokens, chunks, findings, losses.
    Exit code 1 when there is something to do before training.

    \b
    opentau-prep report --mixture-json mixture.json
    opentau-prep report --mixture-json mixture.json --out report.html --json
    opentau-prep report --mixture-json mixture.json --png heads --png tokenizer
    """
    from opentau_prep.artifacts.place import check_artifact_root
    from opentau_prep.cli.targets import named_mixture
    from opentau_prep.cli.verdict_lines import say, show_to_do
    from opentau_prep.metadata.locate import LocateOptions
    from opentau_prep.metadata.resolve import resolve_mixture
    from opentau_prep.notices import without_notices
    from opentau_prep.report import make_report
    from opentau_prep.verdict import OutputPaths
    from opentau_prep.verdict.judge import IN_VERDICT

    context = session.context
    mixture = named_mixture(roots, mixture_json)
    check_artifact_root(mixture.roots, context.artifact_root)
    options = OutputPaths(norm_heads, tokenizer, val_plan, val_report, discrete_action_max_length)
    locate = LocateOptions.of_run(context, frames=False)
    page = out or context.prep_path(mixture, "report")
    with without_notices(IN_VERDICT):
        # A dataset that cannot be opened is the first thing that the page has to say.
        resolved = resolve_mixture(mixture, locate, keep_going=True)
        made = make_report(resolved, context, options, out=page, frames=frames, png=png or ())

    def render(console: Console) -> None:
        show_to_do(console, made.facts)
        say(console, f"{made.path}: {made.status}")
        say(console, made.facts.words)

    return Result(made.as_json(), render, exit_code=int(made.needs_attention))
