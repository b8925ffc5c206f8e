"""`opentau-prep validate`."""

from __future__ import annotations

import dataclasses
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opentau_prep.cli.command import Result
from opentau_prep.cli.options import MixtureJson, Roots, ShardOption
from opentau_prep.errors import ConfigError

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["validate"]


class Format(str, Enum):
    """How findings are shown."""

    text = "text"
    json = "json"
    github = "github"
    junit = "junit"
    sarif = "sarif"


class Trainer(str, Enum):
    """Whose readers the datasets must be fit for."""

    opentau = "opentau"
    lerobot = "lerobot"
    openpi = "openpi"


def validate(
    session: Session,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read the frames, too.")] = False,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="CODES", help="Only rules whose codes begin so: F, S01, D004, ALL."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="CODES", help="Not the rules that begin so.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings make the exit code 1.")
    ] = False,
    format: Annotated[Format, typer.Option(help="How findings are shown.")] = Format.text,
    write: Annotated[
        bool, typer.Option("--write", help="Write each dataset's findings to its meta/.")
    ] = False,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Known findings, which do not count.")
    ] = None,
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help="Make what is found the baseline FILE.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Fix what needs no judgement; --dry-run shows the diff.")
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Tokenizer folder to check as well.")
    ] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="T", help="Steps of the policy's action chunk, to check."),
    ] = None,
    discrete_action_max_length: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --tokenizer: the policy's limit.")
    ] = None,
    write_exclusions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a mixture that excludes episodes found faulty."),
    ] = None,
    trainer: Annotated[
        list[Trainer] | None,
        typer.Option("--for", help="Trainer that must open the datasets; opentau by default."),
    ] = None,
    list_rules: Annotated[bool, typer.Option("--list", help="Show all rules.")] = False,
    shard: ShardOption = None,
    explain: Annotated[str | None, typer.Option(metavar="CODE", help="Explain a rule.")] = None,
) -> Result:
    """Lint datasets and the mixture that names them.

    Reads metadata and the footers of the data files; --deep reads the frames as well. Findings have
    codes to look up (--explain D004), select and ignore. Exit code 1 when there are errors.
    Settings are read from opentau-prep.toml or pyproject.toml.

    \b
    opentau-prep validate path/to/dataset --deep
    opentau-prep validate --mixture-json mixture.json --strict --format github
    opentau-prep validate --mixture-json mixture.json --fix --dry-run
    """
    # No large matrix is multiplied: threads of OpenBLAS would cost more to start than they give.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from opentau_prep.cli.lint import LintOptions, explain_result, lint, list_result
    from opentau_prep.cli.targets import named_subject

    if format is Format.json:
        session.common = dataclasses.replace(session.common, json=True)
    if list_rules:
        return list_result()
    if explain is not None:
        return explain_result(explain)
    if write_baseline and baseline is None:
        raise ConfigError("--write-baseline needs --baseline FILE")
    session.work_on(shard)
    options = LintOptions(
        deep=deep,
        select=_split(select),
        ignore=_split(ignore),
        strict=strict,
        format=format.value,
        write=write,
        baseline=baseline,
        write_baseline=write_baseline,
        fix=fix,
        tokenizer=tokenizer,
        chunk_size=chunk_size,
        max_tokens=discrete_action_max_length,
        write_exclusions=write_exclusions,
        trainers=tuple(each.value for each in trainer or (Trainer.opentau,)),
    )
    return lint(named_subject(roots, mixture_json), session.context, options)


def _split(codes: list[str] | None) -> tuple[str, ...]:
    return tuple(part for text in codes or () for part in text.split(",") if part.strip())
