"""`opentau-prep fit-tokenizer`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result, command
from opentau_prep.cli.options import FitFlags, MixtureJson, TokenLimit, given_by
from opentau_prep.errors import ConfigError

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session
    from opentau_prep.context import RunContext

__all__ = ["register"]

_GIB = 1 << 30
_RETIRED = {
    "--max-state-dim": "the state has no part in the fit",
    "--dataloader-batch-size": "chunks are gathered without a dataloader",
    "--use-mixture-dataloader": "chunks are always drawn as training draws them",
    "--log-level": "use --quiet or --verbose",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "fit-tokenizer")(fit_tokenizer)


def fit_tokenizer(
    session: Session,
    *,
    flags: FitFlags,
    mixture_json: MixtureJson = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The tokenizer's folder. Default: 'tokenizer' in the prep folder."
        ),
    ] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            metavar="T",
            help="Steps of the policy's action chunk. Default: the training config's, else 50.",
        ),
    ] = None,
    action_dim: Annotated[
        int | None,
        typer.Option(
            "--max-action-dim",
            "--action-dim",
            metavar="N",
            help="Width of the actions in the policy. Default: that of the norm heads, else 32 or"
            " the widest native width.",
        ),
    ] = None,
    truncate_dims: Annotated[
        bool, typer.Option("--truncate-dims", help="Cut dims beyond the maximum, with a warning.")
    ] = False,
    discrete_action_max_length: TokenLimit = None,
    memory_budget: Annotated[
        float | None,
        typer.Option(
            metavar="GIB", help="What the BPE trainer may take. Default: half of the memory."
        ),
    ] = None,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="A quick look: 2,000 chunks, into OUT-DIR-pilot.")
    ] = False,
    skip_fit: Annotated[
        bool, typer.Option("--skip-fit", help="Sample, normalize and report; fit nothing.")
    ] = False,
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
    num_workers: Annotated[int | None, typer.Option(hidden=True, min=0)] = None,
    max_state_dim: Annotated[int | None, typer.Option(hidden=True)] = None,
    dataloader_batch_size: Annotated[int | None, typer.Option(hidden=True)] = None,
    use_mixture_dataloader: Annotated[
        bool, typer.Option("--use-mixture-dataloader", hidden=True)
    ] = False,
    log_level: Annotated[str | None, typer.Option(hidden=True)] = None,
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
    from opentau_prep.tokenizer.options import number_or_auto
    from opentau_prep.tokenizer.prepare import prepare_tokenizer

    if sweep_more and not sweep:
        raise ConfigError(
            f"unexpected argument {sweep_more[0]!r}", hint="Name the mixture with --mixture-json."
        )
    given = {
        **given_by(flags),
        "chunk_size": chunk_size,
        "action_dim": action_dim,
        "truncate_dims": truncate_dims or None,
        "memory_bytes": None if memory_budget is None else int(memory_budget * _GIB),
        "pilot": pilot,
        "skip_fit": skip_fit,
    }
    for name in ("total_chunks", "max_token_length"):
        if name in given:
            given[name] = number_or_auto(given[name], f"--{name.replace('_', '-')}")
    grid = parse_sweep([*sweep, *(sweep_more or ())]) if sweep else None
    context = _with_old_workers(session, num_workers)
    _say_retired(
        {
            "--max-state-dim": max_state_dim is not None,
            "--dataloader-batch-size": dataloader_batch_size is not None,
            "--use-mixture-dataloader": use_mixture_dataloader,
            "--log-level": log_level is not None,
        }
    )
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


def _with_old_workers(session: Session, num_workers: int | None) -> RunContext:
    from opentau_prep.notices import warn

    context = session.context
    if num_workers is None:
        return context
    used = context.workers or max(1, num_workers)
    warn("old_option", f"--num-workers is --workers now: {used} used", options=["--num-workers"])
    return replace(context, workers=used)


def _say_retired(given: dict[str, bool]) -> None:
    from opentau_prep.notices import warn

    retired = [option for option, is_given in given.items() if is_given]
    if retired:
        reasons = "; ".join(f"{option}: {_RETIRED[option]}" for option in retired)
        warn("old_option", f"options without effect: {reasons}", options=retired)
