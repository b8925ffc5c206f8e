"""Judge a mixture from what the other rooms find: metadata and artifacts are read, frames never."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import opentau_prep
from opentau_prep.artifacts.fingerprint import cache_left_alone
from opentau_prep.choices import Choices
from opentau_prep.errors import ArtifactError, PrepError
from opentau_prep.heads.audit import audit_heads
from opentau_prep.heads.compute import inspect_heads
from opentau_prep.heads.files import decode_heads
from opentau_prep.heads.mixture import MixtureHeads, build_mixture_heads
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.metadata.resolve import warn_vqa
from opentau_prep.notices import collect_notices
from opentau_prep.tokenizer.folder import inspect_tokenizer, read_report
from opentau_prep.verdict.artifacts import damaged, judged, speed_steps, stats_steps, token_steps
from opentau_prep.verdict.commands import Commands
from opentau_prep.verdict.details import HeadsFacts, TokenizerFacts
from opentau_prep.verdict.facts import ArtifactFacts, Verdict
from opentau_prep.verdict.findings import validation_facts
from opentau_prep.verdict.heads import heads_facts
from opentau_prep.verdict.losses import loss_facts
from opentau_prep.verdict.mixture import mixture_facts
from opentau_prep.verdict.speed import speed_facts
from opentau_prep.verdict.to_do import Gathered, list_to_do
from opentau_prep.verdict.tokens import check_folder, tokenizer_facts

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = ["IN_VERDICT", "OutputPaths", "judge_mixture"]

IN_VERDICT = frozenset(
    {
        "pooled_quantile_rank",
        "pooled_quantiles",
        "published_quantiles",
        "version_mismatch",
        "data_path_mismatch",
        "episode_lengths_differ",
        "stale_artifact",
        "fallback_heads",
    }
)
"""Notices of what the verdict or a finding says, with the command for each."""

_AS_WRITTEN = ("fresh", "stale", "other options")


@dataclass(frozen=True)
class OutputPaths:
    """Where things are that do not lie with the datasets; None: where `run` puts them.

    Attributes:
        norm_heads: The mixture's file of heads.
        tokenizer: The tokenizer's folder.
        val_plan: The file of `val-plan --out`; else `val_plan.json` in the mixture's folder, if it
            is there.
        val_report: The file of `val-report --out`; else `val_report.json`, likewise.
        max_length: The policy's `discrete_action_max_length`, for a forecast of truncation.
    """

    norm_heads: Path | None = None
    tokenizer: Path | None = None
    val_plan: Path | None = None
    val_report: Path | None = None
    max_length: int | None = None


def judge_mixture(
    resolved: ResolvedMixture, context: RunContext, options: OutputPaths | None = None
) -> Verdict:
    """Return the state of a mixture's preparation.

    Reads metadata and artifacts, and the footers of data files where findings are not fresh; reads
    no frames and writes nothing. What is missing, stale or
    damaged is a fact of the report, never an error. Notices are in the report.

    Args:
        resolved: The mixture; datasets that could not be opened are in its `lost`.
        context: Where artifacts are.
        options: Where other things are.
    """
    with cache_left_alone(context.dry_run), collect_notices() as emitted:
        warn_vqa(resolved.vqa)
        facts = _Collector(resolved, context, options or OutputPaths()).facts()
    distinct = [notice for i, notice in enumerate(emitted) if notice not in emitted[:i]]
    return replace(facts, notices=[notice.as_json() for notice in distinct])


class _Collector:
    """The parts of one report, in the order in which they need each other."""

    def __init__(
        self, resolved: ResolvedMixture, context: RunContext, options: OutputPaths
    ) -> None:
        self.resolved, self.context, self.options = resolved, context, options
        chosen = Choices(resolved, context, {}, options.norm_heads, options.tokenizer)
        self.heads_path, self.folder = chosen.heads_path, chosen.tokenizer_path
        self.head_options, self.fit_options = chosen.heads(), chosen.fit()
        self.artifacts: list[ArtifactFacts] = []

    def facts(self) -> Verdict:
        """Return the report, but for its notices."""
        resolved, context = self.resolved, self.context
        gathered = self._gathered()
        commands = Commands(resolved, context, self.head_options, self.fit_options)
        to_do = list_to_do(gathered, commands)
        return Verdict(
            tool_version=opentau_prep.__version__,
            ready=all(each.level != "do" for each in to_do),
            to_do=to_do,
            mixture=gathered.mixture,
            artifacts=gathered.artifacts,
            by_size=list(_by_size(resolved)),
            heads=gathered.heads,
            speed=list(speed_facts(resolved, context)),
            tokenizer=gathered.tokenizer,
            validation=gathered.validation,
            losses=gathered.losses,
            notices=(),
        )

    def _gathered(self) -> Gathered:
        resolved, context, options = self.resolved, self.context, self.options
        mixture = mixture_facts(resolved)
        steps, faults = stats_steps(resolved, context)
        self.artifacts += steps
        heads = self._heads()
        self.artifacts += speed_steps(resolved, context)
        tokenizer = self._tokenizer()
        folder = context.prep_path(resolved.mixture, "val_plan").parent
        losses, states = loss_facts(resolved, options.val_plan, options.val_report, folder)
        validation, checked = validation_facts(resolved, context, faults)
        self.artifacts += [*states, *checked]
        return Gathered(
            mixture,
            self.artifacts,
            heads,
            tokenizer,
            validation,
            losses,
            self.heads_path,
            self.folder,
        )

    def _heads(self) -> HeadsFacts:
        path, resolved, root = self.heads_path, self.resolved, self.context.artifact_root
        try:
            self._check_complete()
            options = self.head_options
            built = build_mixture_heads(resolved, options, artifact_root=root)
            facts = heads_facts(built, options, audit_heads(built.members, remembering=True))
        except PrepError as fault:
            self.artifacts.append(self._unknown("heads", "norm heads", path, fault))
            return HeadsFacts(fault=str(fault))
        self.artifacts += self._head_files(built)
        return facts

    def _head_files(self, built: MixtureHeads) -> Iterator[ArtifactFacts]:
        roots = {entry.name: entry.meta.root for entry in self.resolved.entries}
        path, options = self.heads_path, self.head_options
        try:
            states = inspect_heads(self.resolved, built, options, self.context, out=path)
        except PrepError as fault:
            yield damaged("heads", "norm heads", (), fault.where or path, fault)
            return
        for names, state in states:
            if names:
                found = judged("heads", "norm head", names, state, root=roots[names[0]])
            else:
                found = judged("heads", "norm heads", (), state, decode=_decode_heads)
            if found.state == "other options":
                found = replace(found, state="stale", level="do")
            yield found

    def _tokenizer(self) -> TokenizerFacts:
        folder = self.folder
        try:
            self._check_complete()
            found = inspect_tokenizer(self.resolved, self.context, folder)
        except PrepError as fault:
            self.artifacts.append(self._unknown("fit-tokenizer", "tokenizer", folder, fault))
            return TokenizerFacts(str(folder), fault=str(fault))
        self.fit_options = found.options
        state = judged(
            "fit-tokenizer",
            "tokenizer",
            (),
            found.inspection,
            decode=partial(check_folder, folder, ours=found.inspection.provenance is not None),
        )
        if state.state == "missing":
            self.artifacts.append(state)
            return TokenizerFacts(str(folder), fault="no folder")
        return self._fit(state)

    def _fit(self, state: ArtifactFacts) -> TokenizerFacts:
        """Return what the fit's report says, and what follows from it."""
        folder = self.folder
        try:
            document = read_report(folder)
            facts = tokenizer_facts(folder, document, self.options.max_length)
        except ArtifactError as fault:
            document, facts = {}, TokenizerFacts(str(folder), fault=str(fault))
        if facts.fault is not None and state.state != "not ours":
            # Of samples alone there are settings, but no tokenizer.
            damage = "missing" if facts.settings else "damaged"
            state = replace(state, state=damage, level="do", detail=facts.fault)
        self.artifacts.append(state)
        if facts.fault is None and state.state in _AS_WRITTEN:
            self.artifacts += token_steps(self.resolved, document, self.fit_options, self.context)
        return facts

    def _check_complete(self) -> None:
        if self.resolved.faults:
            raise ArtifactError("cannot be judged while datasets of the mixture cannot be opened")

    def _unknown(self, step: str, kind: str, path: Path, fault: PrepError) -> ArtifactFacts:
        # Lost datasets are reported once, as what must be done first.
        level: Any = "ok" if self.resolved.faults else "do"
        return ArtifactFacts(step, kind, (), None, str(path), "unknown", level, str(fault))


def _decode_heads(content: bytes, where: str) -> None:
    decode_heads(content, where=where)


def _by_size(resolved: ResolvedMixture) -> Iterator[str]:
    """Yield the datasets whose data files' hashes are not remembered on this machine."""
    for entry in resolved.first_entries:
        try:
            inputs = describe_inputs(entry.meta, read=False)
        except PrepError:
            continue
        if "sha256" not in inputs["data"]:
            yield entry.name
