"""`opentau-prep fit-tokenizer`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result, command
from opentau_prep.cli.options import MixtureJson
from opentau_prep.errors import ConfigError

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session
    from opentau_prep.context import RunContext

__all__ = ["register"]

_GIB = 1 << 30
_RETIRED = {
    "--max-state-dim": "the state has no part in the fit",
    "--dataloader-batch-size": "chunks are gathered without a dataloader",
    "--use-mixture-dataloader": "chunks always are those of training's own distribution",
    "--log-level": "--quiet and --verbose say how much is told",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "fit-tokenizer")(fit_tokenizer)


def fit_tokenizer(
    session: Session,
    chunk_size: Annotated[
        int, typer.Option(metavar="T", help="Steps of the policy's action chunk.")
    ],
    mixture_json: MixtureJson = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Default: the folder 'tokenizer' beside the mixture."),
    ] = None,
    action_dim: Annotated[int, typer.Option(help="Width of the policy's actions.")] = 32,
    total_chunks: Annotated[
        str, typer.Option(metavar="N|auto", help="Chunks to fit on; auto: until more do not help.")
    ] = "auto",
    vocab_size: Annotated[int, typer.Option(help="Tokens in all, the 256 bytes included.")] = 2048,
    scale: Annotated[float, typer.Option(help="Quantization steps a unit of coefficient.")] = 10.0,
    max_token_length: Annotated[
        str, typer.Option(metavar="N|auto", help="Longest token in bytes; auto: by held-out data.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the split and of the draws.")] = 0,
    config_version: Annotated[int, typer.Option(help="Of the policy's config.")] = 1,
    per_head_norm: Annotated[
        bool,
        typer.Option(
            "--per-head-norm/--no-per-head-norm",
            help="Normalize each dataset with its head; or all with one range, as old fits did.",
        ),
    ] = True,
    headroom: Annotated[
        float,
        typer.Option(
            metavar="X", help="Normalized values up to X (times 1, or std) are never clipped."
        ),
    ] = 10.0,
    discrete_action_max_length: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Forecast the share of chunks longer than this."),
    ] = None,
    holdout: Annotated[
        float, typer.Option(help="Share of each dataset's episodes to measure on.")
    ] = 0.1,
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
    opentau-prep fit-tokenizer --mixture-json mixture.json --chunk-size 50 --out-dir tokenizer
    opentau-prep fit-tokenizer --mixture-json mixture.json --chunk-size 50 --pilot
    opentau-prep fit-tokenizer --mixture-json mixture.json --chunk-size 50 \\
        --sweep scale=5,10,20 vocab-size=1024,2048
    """
    from opentau_prep.cli.fit_tokenizer_tables import sweep_table, tokenizer_tables
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.tokenizer.options import FitOptions, number_or_auto
    from opentau_prep.tokenizer.prepare import prepare_tokenizer
    from opentau_prep.tokenizer.sweep import parse_sweep, sweep_tokenizers

    if sweep_more and not sweep:
        raise ConfigError(
            f"unexpected argument {sweep_more[0]!r}", hint="Name the mixture with --mixture-json."
        )
    options = FitOptions(
        chunk_size=chunk_size,
        action_dim=action_dim,
        total_chunks=number_or_auto(total_chunks, "--total-chunks"),
        vocab_size=vocab_size,
        scale=scale,
        max_token_length=number_or_auto(max_token_length, "--max-token-length"),
        seed=seed,
        config_version=config_version,
        per_head_norm=per_head_norm,
        headroom=headroom,
        holdout=holdout,
        memory_bytes=None if memory_budget is None else int(memory_budget * _GIB),
        pilot=pilot,
        skip_fit=skip_fit,
    )
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
    if grid is not None:
        swept = sweep_tokenizers(resolved, context, options, grid)
        return Result(swept.as_json(), sweep_table(swept), exit_code=int(swept.needs_attention))
    target = out_dir or context.prep_path(resolved.mixture, "tokenizer")
    report = prepare_tokenizer(
        resolved, context, options, target, max_length=discrete_action_max_length
    )
    return Result(report.as_json(), tokenizer_tables(report), exit_code=int(report.needs_attention))


def _with_old_workers(session: Session, num_workers: int | None) -> RunContext:
    from opentau_prep.notices import warn

    context = session.context
    if num_workers is None:
        return context
    used = context.workers or max(1, num_workers)
    warn("old_option", f"--num-workers is --workers now: {used} used", option="--num-workers")
    return replace(context, workers=used)


def _say_retired(given: dict[str, bool]) -> None:
    from opentau_prep.notices import warn

    for option, is_given in given.items():
        if is_given:
            warn("old_option", f"{option} has no effect: {_RETIRED[option]}", option=option)
