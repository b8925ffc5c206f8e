"""`opentau-prep fit-tokenizer`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.given import fit_given_by, names_given
from opentau_prep.cli.options import FitFlags, MixtureJson, TokenLimit
from opentau_prep.errors import ConfigError

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session
    from opentau_prep.context import RunContext

__all__ = ["fit_tokenizer"]

_GIB = 1 << 30
_RETIRED = {
    "--max-state-dim": "the state has no part in the fit",
    "--dataloader-batch-size": "chunks are gathered without a dataloader",
    "--use-mixture-dataloader": "chunks are always drawn as training draws them",
    "--log-level": "use --quiet or --verbose",
}


@dataclass(frozen=True)
class OwnFlags(FitFlags):
    """Options of the fit that `run` does not take."""

    chunk_size: Annotated[
        int | None,
        typer.Option(
            metavar="T",
            help="Steps of the policy's action chunk. Default: the training config's, else 50.",
        ),
    ] = None
    action_dim: Annotated[
        int | None,
        typer.Option(
            "--max-action-dim",
            "--action-dim",
            metavar="N",
            help="Width of the actions in the policy. Default: that of the norm heads, else 32 or"
            " the widest native width.",
        ),
    ] = None
    truncate_dims: Annotated[
        bool | None,
        typer.Option("--truncate-dims", help="Cut dims beyond the maximum, with a warning."),
    ] = None
    memory_budget: Annotated[
        float | None,
        typer.Option(
            metavar="GIB", help="What the BPE trainer may take. Default: half of the memory."
        ),
    ] = None
    pilot: Annotated[
        bool | None, typer.Option("--pilot", help="A quick look: 2,000 chunks, into OUT-DIR-pilot.")
    ] = None
    skip_fit: Annotated[
        bool | None, typer.Option("--skip-fit", help="Sample, normalize and report; fit nothing.")
    ] = None


@dataclass(frozen=True)
class OldFlags:
    """Options of OpenTau's script that have no effect here, but for `--num-workers`."""

    num_workers: Annotated[int | None, typer.Option(hidden=True, min=0)] = None
    max_state_dim: Annotated[int | None, typer.Option(hidden=True)] = None
    dataloader_batch_size: Annotated[int | None, typer.Option(hidden=True)] = None
    use_mixture_dataloader: Annotated[
        bool | None, typer.Option("--use-mixture-dataloader", hidden=True)
    ] = None
    log_level: Annotated[str | None, typer.Option(hidden=True)] = None


def fit_tokenizer(
    session: Session,
    *,
    flags: OwnFlags,
    old: OldFlags,
    mixture_json: MixtureJson = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The tokenizer's folder. Default: 'tokenizer' in the prep folder."
        ),
    ] = None,
    discrete_action_max_length: TokenLimit = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N,N", help="Compare scales and vocab-sizes; write nothing."),
    ] = None,
    sweep_more: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=N,N]", help="More of --sweep.")
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_ID",
            help="Measure a FAST tokenizer that exists, a folder or a hub id in the local cache;"
            " write nothing.",
        ),
    ] = None,
) -> Result:
    """Fit a FAST action tokenizer on the chunks that training will see.

    Writes a folder that transformers.AutoProcessor loads, with a report of how long held-out chunks
    get and how many a maximum length would cut off; and each dataset's part of that into
    meta/action_tokens/.

    \b
    opentau-prep fit-tokenizer --mixture-json mixture.json --chunk-size 50
    opentau-prep fit-tokenizer --mixture-json mixture.json --normalization quantile --pilot
    opentau-prep fit-tokenizer --mixture-json mixture.json --sweep scale=5,10 vocab-size=1024,2048
    """
    from opentau_prep.choices import Choices
    from opentau_prep.cli.fit_tokenizer_tables import measure_tables, sweep_table, tokenizer_tables
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.tokenizer.compare import measure_tokenizer, parse_sweep, sweep_tokenizers
    from opentau_prep.tokenizer.prepare import prepare_tokenizer

    if sweep_more and not sweep:
        raise ConfigError(
            f"unexpected argument {sweep_more[0]!r}", hint="Name the mixture with --mixture-json."
        )
    given = fit_given_by(flags)
    budget = given.pop("memory_budget", None)
    given["memory_bytes"] = None if budget is None else int(budget * _GIB)
    grid = parse_sweep([*sweep, *(sweep_more or ())]) if sweep else None
    context = _with_old_options(session.context, old)
    resolved = load_targets(None, mixture_json, context, frames=True)
    choices = Choices(resolved, context, given, tokenizer=out_dir)
    options = choices.fit()
    if grid is not None:
        swept = sweep_tokenizers(resolved, context, options, grid)
        return Result(swept.as_json(), sweep_table(swept), exit_code=int(swept.needs_attention))
    if measure is not None:
        found = measure_tokenizer(
            resolved, context, options, measure, max_length=discrete_action_max_length
        )
        return Result(found.as_json(), measure_tables(found))
    report = prepare_tokenizer(
        resolved,
        context,
        options,
        choices.tokenizer_path,
        max_length=discrete_action_max_length,
    )
    return Result(report.as_json(), tokenizer_tables(report), exit_code=int(report.needs_attention))


def _with_old_options(context: RunContext, old: OldFlags) -> RunContext:
    """Return the context with the workers of `--num-workers`; the other options are named."""
    from opentau_prep.notices import warn

    given = names_given(old)
    if old.num_workers is not None:
        given.remove("--num-workers")
        context = replace(context, workers=context.workers or max(1, old.num_workers))
        used = f"--num-workers is --workers now: {context.workers} used"
        warn("old_option", used, options=["--num-workers"])
    if given:
        reasons = "; ".join(f"{option}: {_RETIRED[option]}" for option in given)
        warn("old_option", f"options without effect: {reasons}", options=given)
    return context
