"""The verb behind `validate`: every rule over every dataset, then over the mixture."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.engine import Failure
from opentau_prep.errors import PrepError
from opentau_prep.notices import collect_notices
from opentau_prep.storage import is_remote
from opentau_prep.validate.catalogue import all_rules, find_rule
from opentau_prep.validate.causes import only_cause
from opentau_prep.validate.checks.internal import NOT_CHECKED
from opentau_prep.validate.facts import EntryFacts, collect_facts
from opentau_prep.validate.findings import Finding, fold, hit
from opentau_prep.validate.mixture_view import MixtureView
from opentau_prep.validate.report import ValidateReport
from opentau_prep.validate.rule import Settle
from opentau_prep.validate.targets import Subject, find_targets
from opentau_prep.validate.view import DatasetView, Target

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.validate.frames import FrameSummary
    from opentau_prep.validate.rule import Rule, Trainer

__all__ = ["CheckOptions", "validate"]

WHAT = "validate"
# Below this many datasets a process costs more than it saves.
_DATASETS_PER_WORKER = 40


@dataclass(frozen=True)
class CheckOptions:
    """What is checked.

    Attributes:
        rules: The rules that count; all by default.
        deep: Whether frames are read.
        tokenizer: A tokenizer folder that is to be checked with the mixture.
        chunk_size: Steps of the policy's action chunk, to check the tokenizer against.
        max_tokens: The policy's `discrete_action_max_length`, likewise.
        trainers: The trainers that must be able to open the datasets.
    """

    rules: Sequence[Rule] = ()
    deep: bool = False
    tokenizer: Path | None = None
    chunk_size: int | None = None
    max_tokens: int | None = None
    trainers: tuple[Trainer, ...] = ("opentau",)


def validate(
    subject: Subject, context: RunContext, options: CheckOptions = CheckOptions()
) -> ValidateReport:
    """Check datasets and the mixture that names them.

    Faults of what is checked are findings, never errors: a dataset that cannot be read hides no
    other's findings.

    Args:
        subject: The mixture.
        context: How to run; datasets after a failure are always gone on with.
        options: What is checked.

    Returns:
        The report: findings by dataset in mixture order, then the mixture's.
    """
    context = dataclasses.replace(context, keep_going=True)
    rules = tuple(
        rule
        for rule in options.rules or all_rules()
        if not rule.trainers or set(rule.trainers) & set(options.trainers)
    )
    targets, lost = find_targets(subject, context, deep=options.deep)
    settle = _settle(subject, context)
    targets = [
        dataclasses.replace(t, trainers=options.trainers, chunk_size=options.chunk_size)
        for t in targets
    ]
    frames, faults = _read_frames(targets, context) if options.deep else ({}, [])
    codes = tuple(rule.code for rule in rules)
    checked = context.map(
        WHAT,
        partial(_check_one, codes=codes, settle=settle),
        [(target, frames.get(target.root)) for target in targets],
        [target.name for target in targets],
        items_per_worker=_DATASETS_PER_WORKER,
    )
    findings = list(faults)
    facts: list[EntryFacts] = []
    for target, result in zip(targets, checked, strict=True):
        if isinstance(result, Failure):
            findings.append(_not_checked(target.name, result.error))
        else:
            findings += result[0]
            facts += result[1]
    view = MixtureView(
        subject.mixture,
        subject.name,
        subject.faults,
        lost,
        sorted(facts, key=lambda each: each.index),
        subject.from_file,
        _outputs(subject, context),
        options.tokenizer,
        options.chunk_size,
        options.max_tokens,
    )
    if context.shard is None:  # a part of the datasets tells nothing of the mixture
        findings += _apply(rules, "mixture", view, subject.name, settle)
    return ValidateReport(tuple(findings), tuple(targets), subject.name, options.deep, codes)


def _outputs(subject: Subject, context: RunContext) -> Path | None:
    mixture = subject.mixture
    if mixture is None or mixture.path is None or not subject.from_file:
        return None
    return context.prep_path(mixture, "validation").parent


def _check_one(
    work: tuple[Target, FrameSummary | None], *, codes: Sequence[str], settle: Settle
) -> tuple[list[Finding], list[EntryFacts]]:
    target, frames = work
    rules = [find_rule(code) for code in codes]
    # Junk in stats overflows: what rules make of it is a finding, not NumPy's on stderr.
    with collect_notices(), np.errstate(all="ignore"):
        view = DatasetView(target, frames)
        own = dataclasses.replace(settle, root=_absolute(target.root))
        cause = only_cause(view)
        if cause is not None:
            rules = [rule for rule in rules if rule.code == cause]
        found = _apply(rules, "dataset", view, target.name, own)
        if frames is not None:
            found += _apply(rules, "frames", view, target.name, own)
        facts = collect_facts(view) if cause is None else []
    return found, facts


def _settle(subject: Subject, context: RunContext) -> Settle:
    """Return what commands of findings about the mixture are made of."""
    mixture = subject.mixture
    words: tuple[str, ...] = ()
    if mixture is not None and subject.from_file and mixture.path is not None:
        words = ("--mixture-json", _absolute(mixture.path))
    elif mixture is not None and not subject.from_file:
        words = tuple(_absolute(root) for root in mixture.roots)
    folders = (("--artifact-root", context.artifact_root), ("--prep-dir", context.prep_dir))
    options = tuple(
        word for flag, folder in folders if folder for word in (flag, _absolute(folder))
    )
    own = (
        mixture.mixture_id
        if words and subject.from_file and not subject.faults and mixture
        else None
    )
    return Settle(None, words, options, own)


def _absolute(root: str | os.PathLike[str]) -> str:
    return os.fspath(root) if is_remote(root) else os.path.abspath(root)


def _apply(
    rules: Iterable[Rule], scope: str, view: Any, dataset: str, settle: Settle
) -> list[Finding]:
    findings: list[Finding] = []
    for rule in rules:
        if rule.scope != scope:
            continue
        try:
            found = rule.check(view) if scope == "mixture" else fold(rule.check(view))
            findings += [rule.finding(each, dataset, settle.fill) for each in found]
        except PrepError as fault:
            findings.append(rule.finding(hit(f"cannot be checked: {fault}"), dataset))
    return findings


def _read_frames(
    targets: Sequence[Target], context: RunContext
) -> tuple[dict[str, FrameSummary], list[Finding]]:
    from opentau_prep.validate.deep import plan_slices, scan_slice, summaries
    from opentau_prep.validate.frames import joined

    slices, faults = [], []
    for target in targets:
        try:
            slices += plan_slices(target)
        except PrepError as fault:
            faults.append(_not_checked(target.name, fault))
    labels = [f"{piece.target.name} files {piece.first} to {piece.stop}" for piece in slices]
    found = context.map("frames", scan_slice, slices, labels)
    for piece, result in zip(slices, found, strict=True):
        if isinstance(result, Failure):
            faults.append(_not_checked(piece.target.name, result.error))
    parts = summaries(slices, [None if isinstance(r, Failure) else r for r in found])
    return {root: joined(some) for root, some in parts.items()}, faults


def _not_checked(dataset: str, fault: PrepError) -> Finding:
    return NOT_CHECKED.finding(hit(fault.message, fault.hint or ""), dataset)
