"""What must be done before training, and what is worth a look: each with the command for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opentau_prep.notices import some_names
from opentau_prep.text import several
from opentau_prep.verdict.artifacts import QUANTILES_DIFFER, UNDECIDED
from opentau_prep.verdict.commands import Commands
from opentau_prep.verdict.details import (
    HeadsFacts,
    LossFacts,
    TokenizerFacts,
    ValidationFacts,
)
from opentau_prep.verdict.facts import ArtifactFacts, Level, MixtureFacts, ToDo
from opentau_prep.verdict.heads import off_heads

__all__ = ["Gathered", "list_to_do"]

_VERBS = {
    "stats": "Compute the stats",
    "heads": "Build the norm heads",
    "speed-percentiles": "Compute the speed percentiles",
    "fit-tokenizer": "Fit the action tokenizer",
    "val-plan": "Plan the validation pass",
    "val-report": "Make the loss report again",
    "validate": "Check the datasets, and keep the findings",
}
_LOOKS = {
    "stats": "Stats that are used as they were found",
    "heads": "Norm heads that were changed by hand",
    "speed-percentiles": "Speed percentiles that are trusted as they are",
    "fit-tokenizer": "Files of the tokenizer that are not those of its fit",
    "val-plan": "The validation plan was changed by hand",
    "val-report": "The loss report is not of this mixture",
    "validate": "Findings that were changed by hand",
}
_IN_ONE_RUN = ("stats", "heads", "speed-percentiles", "fit-tokenizer", "validate")
_WHOLE = ("heads", "fit-tokenizer")
_PER_DATASET = ("stats", "speed-percentiles")
_MANY_CUT = 0.01
_MAX_ERRORS = 10


@dataclass(frozen=True)
class Gathered:
    """All that the list is made from.

    Attributes:
        mixture: The mixture.
        artifacts: Every artifact.
        heads: The norm heads.
        tokenizer: The tokenizer.
        validation: Findings.
        losses: Plan and losses.
        norm_heads: The mixture's file of heads.
        tokenizer_dir: The tokenizer's folder.
    """

    mixture: MixtureFacts
    artifacts: Sequence[ArtifactFacts]
    heads: HeadsFacts
    tokenizer: TokenizerFacts
    validation: ValidationFacts
    losses: LossFacts
    norm_heads: Path
    tokenizer_dir: Path


def list_to_do(gathered: Gathered, commands: Commands) -> list[ToDo]:
    """Return what must be done, in the order of the steps, then what is worth a look."""
    found = [
        *_unreadable(gathered),
        *_findings(gathered, commands),
        *_artifacts(gathered, commands),
        *_heads(gathered, commands),
        *_tokens(gathered, commands),
    ]
    return sorted(found, key=lambda each: each.level != "do")


def _needs_a_person(gathered: Gathered) -> bool:
    """Whether a dataset has a fault that no command settles, which the steps would stop at."""
    by_hand = (f.severity == "error" and not f.command for f in gathered.validation.findings)
    return any(by_hand) or any(each.fault for each in gathered.mixture.datasets)


def _unreadable(gathered: Gathered) -> Iterator[ToDo]:
    """Yield the datasets that cannot be read, but for those of which a finding says the same."""
    known = {each.dataset for each in gathered.validation.findings if each.severity == "error"}
    faults = [each for each in gathered.mixture.datasets if each.fault and each.name not in known]
    if faults:
        yield ToDo(
            "do",
            f"Repair {several(len(faults), 'dataset')} that cannot be read",
            [f"{each.name}: {each.fault}" for each in faults],
        )


def _artifacts(gathered: Gathered, commands: Commands) -> Iterator[ToDo]:
    levels: tuple[Level, ...] = ("do", "look")
    flags = (True, False)  # what is damaged would stop the command for the rest
    if _needs_a_person(gathered):
        if any(each.level == "do" for each in gathered.artifacts):
            # Each step would stop at that.
            yield ToDo("do", "Then prepare the mixture", (), commands.step("run"))
        return
    undecided = [each for each in gathered.artifacts if each.state == UNDECIDED]
    if undecided:
        keep, instead = commands.published_stats("keep"), commands.published_stats("replace")
        what = "Decide what becomes of published stats that differ from the frames"
        yield ToDo("do", what, _reasons(undecided), keep, instead)
    others = [each for each in gathered.artifacts if each.state != UNDECIDED]
    if any(each.level == "do" and each.state != "unknown" for each in others):
        # What cannot be judged follows from what is damaged, and comes after it.
        others = [
            replace(a, state="missing", detail="") if a.state == "unknown" else a for a in others
        ]
    # One command writes all files of such a step: when one of them needs force, it does.
    forced = {
        each.step for each in others if each.level == "do" and each.force and each.step in _WHOLE
    }
    others = [
        replace(each, force=True) if each.step in forced and each.level == "do" else each
        for each in others
    ]
    left = [each for each in others if each.level == "do"]
    of_run = [each for each in left if each.step in _IN_ONE_RUN and not each.force]
    several_steps = len({each.step for each in of_run}) > 1
    at_once = several_steps and not any(each.force and each.step in _WHOLE for each in left)
    if undecided or at_once:
        others = [each for each in others if each not in of_run]
    for step, level, force in itertools.product(_VERBS, levels, flags):
        key = (step, level, force)
        chosen = [a for a in others if (a.step, a.level, a.force) == key]
        if chosen:
            words = _VERBS[step] if level == "do" else _LOOKS[step]
            command = _command(gathered, commands, chosen)
            yield ToDo(level, words, _reasons(chosen), command)
    if at_once and not undecided:  # else the decision's command does them, too
        yield ToDo("do", "Prepare the mixture", _reasons(of_run), commands.step("run"))


def _reasons(chosen: Sequence[ArtifactFacts]) -> list[str]:
    """Return why, one line a state and reason."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for each in chosen:
        names = groups.setdefault((each.kind, each.state, each.detail), [])
        names += each.datasets or [each.path]
    lines = []
    for (kind, state, detail), names in groups.items():
        shown = some_names(dict.fromkeys(names))
        lines.append(f"{kind} {state}{f' ({detail})' if detail else ''}: {shown}")
    return lines


def _command(gathered: Gathered, commands: Commands, chosen: Sequence[ArtifactFacts]) -> str:
    first = chosen[0]
    force = ("--force",) if first.force else ()
    if first.step == "heads":
        return commands.heads(gathered.norm_heads, *force)
    if first.step == "fit-tokenizer":
        return commands.tokenizer(gathered.tokenizer_dir, *force)
    if first.step in _PER_DATASET and first.force:
        roots = dict.fromkeys(str(each.root) for each in chosen)
        return commands.on_roots(first.step, roots, *force)
    if first.step == "validate":
        return commands.step(first.step, "--write", *force)
    if first.step == "val-plan":
        plan = gathered.losses.plan or {}
        sizes = [f"--{n.replace('_', '-')}={plan[n]}" for n in _PLAN_OPTIONS if n in plan]
        return commands.step(first.step, *sizes, "--out", first.path, *force)
    if first.step == "val-report":
        return commands.step(first.step, "LOSS_FILES", "--out", first.path, *force)
    return commands.step(first.step, *force)


_PLAN_OPTIONS = ("world_size", "batch_size", "split", "seed")


def _findings(gathered: Gathered, commands: Commands) -> Iterator[ToDo]:
    counts, found = gathered.validation.counts, gathered.validation.findings
    renewed = {(a.step, n) for a in gathered.artifacts if a.level == "do" for n in a.datasets}
    checks = {(step, name) for step, name in renewed if step == "validate"}
    # A file that a step is to make anyway is listed with that step.
    skipped = [e for e in found if (_step_of(e.command), e.dataset) in renewed - checks]
    errors = [e for e in found if e.severity == "error" and e not in skipped]
    for each in errors[:_MAX_ERRORS]:
        where = f"{each.dataset}, {each.place}" if each.place else each.dataset
        yield ToDo("do", f"{each.code} {where}: {each.message}", [each.hint], each.command)
    more_errors = counts["error"] - sum(e.severity == "error" for e in skipped) - _MAX_ERRORS
    if more_errors > 0:
        more = several(more_errors, "more error")
        yield ToDo("do", f"Settle {more} that validate found", (), commands.step("validate"))
    warnings = [each for each in found if each.severity == "warning" and each not in skipped]
    number = counts["warning"] - sum(each.severity == "warning" for each in skipped)
    if warnings:
        parts = [f"{each.code} {each.dataset}: {each.message}" for each in warnings]
        what = f"Read {several(number, 'warning')} that validate found"
        yield ToDo("look", what, _first(parts, number), commands.step("validate"))


def _step_of(command: str) -> str:
    words = command.split(" ", 2)
    return words[1] if words[0] == "opentau-prep" and len(words) > 1 else ""


def _heads(gathered: Gathered, commands: Commands) -> Iterator[ToDo]:
    heads = gathered.heads
    if heads.audit:
        command = commands.heads(gathered.norm_heads, "--audit", "--dry-run")
        many = several(len(heads.audit), "member")
        what = f"{many} of norm heads may not belong there"
        yield ToDo("look", what, _first(heads.audit, len(heads.audit)), command)
    off = off_heads(heads)
    if off:
        what = "Pooled q01 or q99 are not those of the frames: this matters to policies that"
        what += " normalize with quantiles"
        true_ones = commands.heads(gathered.norm_heads, "--quantiles", "sketch")
        if any(each.detail == QUANTILES_DIFFER for each in gathered.artifacts):
            replace_them = commands.published_stats("replace")
            yield ToDo("look", what, _first(off, len(off)), replace_them, true_ones)
        else:
            yield ToDo("look", what, _first(off, len(off)), true_ones)
    still = [
        f"{head.key}: {feature} {some_names(dims)}"
        for head in heads.heads
        for feature, all_dims in (("state", head.state), ("actions", head.actions))
        if (dims := [dim.dim for dim in all_dims if dim.zero_range])
    ]
    if still:
        yield ToDo("look", "Dims that never move", _first(still, len(still)))


def _tokens(gathered: Gathered, commands: Commands) -> Iterator[ToDo]:
    tokenizer = gathered.tokenizer
    cut = [g for g in tokenizer.groups if g.scope != "dataset" and (g.truncated or 0) > _MANY_CUT]
    if cut:
        what = f"Training would cut off chunks longer than {tokenizer.limit:,} tokens"
        parts = [f"{g.words}: {g.truncated:.2%} of the chunks" for g in cut]
        yield ToDo("look", what, _first(parts, len(parts)))


def _first(lines: Sequence[str], total: int, limit: int = 10) -> list[str]:
    more = total - min(limit, len(lines))
    return [*lines[:limit], *([f"and {more:,} more"] if more > 0 else [])]
