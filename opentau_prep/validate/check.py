"""The verb behind `validate`: every rule over every dataset, then over the mixture."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.artifacts.fingerprint import cache_left_alone
from opentau_prep.engine import Failure
from opentau_prep.errors import PrepError
from opentau_prep.metadata.locate import LocateOptions
from opentau_prep.metadata.remembered import mixture_memory
from opentau_prep.metadata.resolve import ResolvedMixture, resolve_mixture
from opentau_prep.notices import collect_notices
from opentau_prep.storage import absolute_root, is_remote
from opentau_prep.validate.catalogue import NOT_CHECKED, find_rule, rules_for
from opentau_prep.validate.checks.format import only_cause
from opentau_prep.validate.findings import SEVERITIES, Finding, Hit, ValidateReport, fold, hit
from opentau_prep.validate.mixture_view import MixtureView, members_of
from opentau_prep.validate.remembered import DatasetMemory, Known
from opentau_prep.validate.rule import ALL_BUT_FIRST, EXCLUDING, Settle
from opentau_prep.validate.view import CheckOptions, DatasetView

if TYPE_CHECKING:
    from opentau_prep.artifacts.memory import Memory
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.context import RunContext
    from opentau_prep.heads.members import HeadMember
    from opentau_prep.metadata.resolve import ResolvedEntry
    from opentau_prep.validate.frames import FrameSummary
    from opentau_prep.validate.rule import Rule

__all__ = ["dataset_views", "validate", "without_consequences"]

WHAT = "validate"
# Below this many datasets a process costs more than it saves.
_DATASETS_PER_WORKER = 40


def validate(
    subject: Salvage,
    context: RunContext,
    options: CheckOptions | None = None,
    *,
    remembering: bool = True,
) -> ValidateReport:
    """Check datasets and the mixture that names them.

    Faults of what is checked are findings, never errors: a dataset that cannot be read hides no
    other's findings.

    Args:
        subject: The mixture, faults and all.
        context: How to run; datasets after a failure are always gone on with.
        options: What is checked.
        remembering: Whether findings are kept, and found again while no file changes.

    Returns:
        The report: findings by dataset in mixture order, then the mixture's.
    """
    context, options = dataclasses.replace(context, keep_going=True), options or CheckOptions()
    rules = rules_for(options.trainers, options.rules)
    options = dataclasses.replace(options, rules=())  # codes are enough for other processes
    codes = tuple(rule.code for rule in rules)
    start_ns = time.time_ns()
    memory = _memory(subject, codes, options, context) if remembering else None
    findings = None if memory is None else _recalled(memory)
    if memory is not None and findings is None:
        memory.note()
    resolved, views = dataset_views(subject, context, options)
    datasets = tuple(view.dataset for view in views)
    if findings is None:
        with cache_left_alone(context.dry_run):
            own = None
            if memory is not None and memory.active:
                own = DatasetMemory(subject, views, codes, options, context, start_ns)
            each: list[Known | None] = [None] * len(views) if own is None else own.recall()
            findings = _look(subject, resolved, views, each, rules, options, context)
        if own is not None:
            own.keep(each)
        if memory is not None and not context.dry_run:
            found = json.dumps([finding.as_json() for finding in findings])
            memory.keep(found.encode("utf-8", "surrogatepass"))
    return ValidateReport(tuple(findings), datasets, subject.name, options.deep, codes)


def _memory(
    subject: Salvage, codes: Sequence[str], options: CheckOptions, context: RunContext
) -> Memory | None:
    if subject.mixture is None:
        return None
    asked = (subject.positions, subject.faults, codes, options, str(context.shard))
    others = () if options.tokenizer is None else (options.tokenizer,)
    where = _where(context, options)
    return mixture_memory(WHAT, subject.mixture, context, where, asked, others)


def _recalled(memory: Memory) -> list[Finding] | None:
    found = memory.recall()
    if found is None:
        return None
    return [Finding.from_json(each, each["dataset"]) for each in json.loads(found)]


def _where(context: RunContext, options: CheckOptions) -> LocateOptions:
    return LocateOptions.of_run(context, frames=options.deep, tolerant=True)


def _look(
    subject: Salvage,
    resolved: ResolvedMixture | None,
    views: Sequence[DatasetView],
    each: list[Known | None],
    rules: Sequence[Rule],
    options: CheckOptions,
    context: RunContext,
) -> list[Finding]:
    """Return what the rules find, by dataset in mixture order, then of the mixture.

    What is known of each dataset is in `each`; None is filled in with what is found.
    """
    settle = _settle(subject, context)
    new = [number for number, known in enumerate(each) if known is None]
    unseen = [views[number] for number in new]
    frames, findings = _read_frames(unseen, context) if options.deep else ([None] * len(new), [])
    unread = {finding.dataset for finding in findings}
    codes = [rule.code for rule in rules]
    checked = context.map(
        WHAT,
        partial(_check_one, codes=codes, settle=settle),
        list(zip(unseen, frames, strict=True)),
        [view.name for view in unseen],
        items_per_worker=_DATASETS_PER_WORKER,
    )
    results: dict[int, Known | Failure] = dict(zip(new, checked, strict=True))
    members: list[HeadMember] = []
    for number, view in enumerate(views):
        found = each[number] or results[number]
        if isinstance(found, Failure):
            findings.append(_not_checked(view.name, found.error))
            continue
        findings += found[0]
        members += found[1]
        if view.name not in unread:  # which need not be so the next time
            each[number] = found
    if context.shard is None:  # a part of the datasets says nothing of the mixture
        members.sort(key=lambda member: member.index)
        lost = [] if resolved is None else _lost(resolved)
        mixture = MixtureView(subject, lost, members, options, context)
        findings += _apply(rules, "mixture", mixture, subject.name, settle)
    return findings


def dataset_views(
    subject: Salvage, context: RunContext, options: CheckOptions | None = None
) -> tuple[ResolvedMixture | None, list[DatasetView]]:
    """Return the mixture with its datasets, and a view of each that can be looked at.

    Raises:
        EngineError: A root is a URL whose driver is not installed.
    """
    options = options or CheckOptions()
    if subject.mixture is None:
        return None, []
    where = _where(context, options)
    with collect_notices():  # which the rules report themselves
        resolved = resolve_mixture(subject.mixture, where, keep_going=True).part(context.shard)
    views = []
    for dataset in resolved.located_datasets:
        if dataset.fault is not None and is_remote(dataset.root):
            continue  # a store that cannot be asked is one fault, not one of each rule
        entries = resolved.entries_of(dataset)
        if subject.positions:
            places = [subject.positions[entry.index] for entry in entries]
            entries = tuple(map(_moved, entries, places))
        views.append(
            DatasetView(
                dataset,
                entries,
                options,
                mixture=resolved.mixture,
                artifact_root=context.artifact_root,
            )
        )
    return resolved, views


def _moved(entry: ResolvedEntry, index: int) -> ResolvedEntry:
    return dataclasses.replace(entry, index=index)


def _lost(resolved: ResolvedMixture) -> list[tuple[str, PrepError]]:
    """Return (entry name, why) of the datasets that are nowhere, or in a store that is silent."""
    here = {entry.name for entry in resolved.broken if not is_remote(entry.dataset.root)}
    return [(each.label, each.error) for each in resolved.faults if each.label not in here]


def _check_one(
    work: tuple[DatasetView, FrameSummary | None], *, codes: Sequence[str], settle: Settle
) -> tuple[list[Finding], list[HeadMember]]:
    view = work[0].unread()
    view.frames = work[1]
    rules = [find_rule(code) for code in codes]
    # Junk in stats overflows: what rules make of it is a finding, not NumPy's on stderr.
    with collect_notices(), np.errstate(all="ignore"):
        own = dataclasses.replace(settle, root=absolute_root(view.dataset.root))
        cause = only_cause(view)
        if cause is not None:
            rules = [rule for rule in rules if rule.code == cause]
        found = _apply(rules, "dataset", view, view.name, own)
        if view.frames is not None:
            found += _apply(rules, "frames", view, view.name, own)
        members = members_of(view) if cause is None else []
    return without_consequences(found), members


# Cause -> what follows from it in the same dataset. Once the cause is settled, what is left of the
# others is independent of it, and found then.
_CONSEQUENCES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "F009": frozenset({"F008", "E005", "E013", "S012"}),
        "E003": frozenset({"E004", "F010", "S010"}),
        "E004": frozenset({"F010", "S010", "S017", "S018", "S019", "S020", "S022"}),
        "E005": frozenset({"E013"}),
        "E006": frozenset({"E004", "E013", "K011", "S018"}),
        "D002": frozenset({"S023"}),
        "C002": frozenset({"C006"}),
        "C008": frozenset({"C011", "C012", "S008"}),
        "S007": frozenset({"S023"}),
        "S008": frozenset({"C011", "C012"}),
        "S009": frozenset({"S017"}),
        "S011": frozenset({"S003"}),
        "S017": frozenset({"S016"}),
        "S018": frozenset({"S016"}),
        "S023": frozenset({"S016"}),
        "T001": frozenset({"S023"}),
        "K004": frozenset({"K007"}),
        "K005": frozenset({"K009"}),
        "K006": frozenset({"A006", "F011", "K003", "K007"}),
        "K009": frozenset({"F011"}),
    }
)


def without_consequences(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of one dataset, worst first, without what follows from others."""
    codes = {finding.code for finding in findings}
    explained = frozenset[str]().union(*(_CONSEQUENCES.get(code, ()) for code in codes))
    # Many a dim that hardly moves is never settled: it hides nothing of the others.
    still = _dims(findings, "D003")
    kept = [
        finding
        for finding in findings
        if finding.code not in explained
        and not (finding.code == "S021" and still >= _dims([finding], "S021"))
    ]
    return sorted(kept, key=lambda finding: SEVERITIES.index(finding.severity))


def _dims(findings: Sequence[Finding], code: str) -> set[tuple[str | None, int]]:
    places = [p for f in findings if f.code == code for p in f.places or (f.place,)]
    return {(place.column, dim) for place in places for dim in place.dims}


def _settle(subject: Salvage, context: RunContext) -> Settle:
    """Return what commands of findings about the mixture are made of."""
    mixture = subject.mixture
    words: tuple[str, ...] = ()
    if subject.path is not None:
        words = ("--mixture-json", absolute_root(subject.path))
    elif mixture is not None:
        words = tuple(absolute_root(root) for root in mixture.roots)
    folders = (("--artifact-root", context.artifact_root), ("--prep-dir", context.prep_dir))
    options = tuple(
        word for flag, folder in folders if folder for word in (flag, absolute_root(folder))
    )
    sound = subject.path is not None and mixture is not None and not subject.faults
    return Settle(None, words, options, mixture.mixture_id if mixture and sound else None)


def _apply(
    rules: Iterable[Rule], scope: str, view: Any, dataset: str, settle: Settle
) -> list[Finding]:
    findings: list[Finding] = []
    for rule in rules:
        if rule.scope != scope:
            continue
        try:
            found = rule.check(view) if scope == "mixture" else fold(_of_selected(rule, view))
            findings += [rule.finding(each, dataset, settle.fill) for each in found]
        except PrepError as fault:
            findings.append(rule.finding(hit(f"cannot be checked: {fault}"), dataset))
    return findings


def _of_selected(rule: Rule, view: DatasetView) -> Iterable[Hit]:
    """Return what a rule finds, without faults of episodes that every entry leaves out."""
    if rule.code not in EXCLUDING:
        return rule.check(view)
    lists = [set(entry.config.excluded_episodes or ()) for entry in view.named_by]
    left_out = set[int]().union(*lists).intersection(*lists)
    kept = int(rule.code in ALL_BUT_FIRST)
    return [
        each
        for each in rule.check(view)
        if not each.place.episodes or len(set(each.place.episodes) - left_out) > kept
    ]


def _read_frames(
    views: Sequence[DatasetView], context: RunContext
) -> tuple[list[FrameSummary | None], list[Finding]]:
    """Return what the frames of each dataset hold, and what kept us from reading some."""
    from opentau_prep.validate.deep import plan_slices, scan_slice
    from opentau_prep.validate.frames import joined

    slices, faults, owners = [], [], []
    for number, view in enumerate(views):
        try:
            mine = plan_slices(view.unread())
        except PrepError as fault:
            faults.append(_not_checked(view.name, fault))
            continue
        slices += mine
        owners += [number] * len(mine)
    labels = [f"{piece.view.name} files {piece.first} to {piece.stop}" for piece in slices]
    found = context.map("frames", scan_slice, slices, labels)
    parts: list[list[FrameSummary]] = [[] for _ in views]
    for piece, owner, result in zip(slices, owners, found, strict=True):
        if isinstance(result, Failure):
            faults.append(_not_checked(piece.view.name, result.error))
        else:
            parts[owner].append(result)
    return [joined(some) if some else None for some in parts], faults


def _not_checked(dataset: str, fault: PrepError) -> Finding:
    return NOT_CHECKED.finding(hit(fault.message, fault.hint or ""), dataset)
