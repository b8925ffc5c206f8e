"""Every artifact with its state, asked of the room that makes it; nothing is computed or written.

Each function yields `ArtifactFacts`. A fault of one dataset hides no other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.artifacts.store import Inspection, State
from opentau_prep.errors import MetadataError, PrepError
from opentau_prep.speed.compute import EPISODES, KEPT_ROWS, inspect_speed, speed_place
from opentau_prep.speed.rows import decode_rows
from opentau_prep.stats.compute import inspect_stats
from opentau_prep.tokenizer.dataset_files import inspect_dataset_files
from opentau_prep.validate.artifacts import why_torn
from opentau_prep.verdict.facts import ArtifactFacts, Level

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.stats.dataset import FoundStats
    from opentau_prep.stats.faults import DataFault
    from opentau_prep.tokenizer.options import FitOptions

__all__ = [
    "QUANTILES_DIFFER",
    "UNDECIDED",
    "damaged",
    "judged",
    "speed_steps",
    "stats_steps",
    "token_steps",
]

_STATES: Mapping[State, tuple[str, Level]] = {
    State.MISSING: ("missing", "do"),
    State.FRESH: ("fresh", "ok"),
    State.STALE: ("stale", "do"),
    State.REPARAMETRIZED: ("other options", "ok"),
    State.EDITED: ("edited", "look"),
    State.FOREIGN: ("not ours", "look"),
    State.OTHER_MIXTURE: ("of another mixture", "do"),
}
_THEIRS = (State.EDITED, State.FOREIGN)
_SKETCHES = "quantile_sketch"
UNDECIDED = "differs from the frames"
"""The state of published stats that wait for `--published-stats keep` or `replace`."""
QUANTILES_DIFFER = "only its quantiles differ from the frames"
_ACCEPTED = {
    "kept": "its numbers differ from the frames and were kept on request",
    "quantiles kept": QUANTILES_DIFFER,
}


def judged(
    step: str,
    kind: str,
    datasets: Sequence[str],
    found: Inspection,
    *,
    root: str | None = None,
    decode: Callable[[bytes, str], object] | None = None,
) -> ArtifactFacts:
    """Return an artifact with what its state means.

    One that is not as it was written is damaged when it cannot be read as what it should be.

    Args:
        step: The command that makes it.
        kind: What it is.
        datasets: The entries it belongs to.
        found: Its state.
        root: The dataset's folder.
        decode: Reads its bytes (called with them and their place), or raises `PrepError`; by
            default, any JSON object will do.
    """
    state, level = _STATES[found.state]
    detail = "; ".join(found.changes)
    theirs = found.state in _THEIRS
    if theirs:
        try:
            (decode or _decode_object)(found.content or b"", str(found.path))
        except PrepError as fault:
            state, level, detail = "damaged", "do", fault.message
    return ArtifactFacts(step, kind, datasets, root, str(found.path), state, level, detail, theirs)


def _decode_object(content: bytes, where: str) -> None:
    torn = why_torn(where, content)
    if torn or (where.endswith(".json") and not isinstance(load_own(content, where=where), dict)):
        raise MetadataError(torn or "is not a JSON object", where=where)


def damaged(
    step: str,
    kind: str,
    datasets: Sequence[str],
    path: object,
    fault: PrepError,
    *,
    root: str | None = None,
) -> ArtifactFacts:
    """Return an artifact that cannot be read."""
    return ArtifactFacts(
        step, kind, datasets, root, str(path), "damaged", "do", str(fault), force=True
    )


def stats_steps(
    resolved: ResolvedMixture, context: RunContext
) -> tuple[list[ArtifactFacts], dict[str, Sequence[DataFault]]]:
    """Return the stats of every dataset, and by its name what they say of its frames."""
    steps: list[ArtifactFacts] = []
    faults: dict[str, Sequence[DataFault]] = {}
    for entry in resolved.first_entries:
        names, root = names_of(resolved, entry), entry.meta.root
        try:
            found = list(inspect_stats(resolved, entry, context))
        except PrepError as fault:
            steps.append(damaged("stats", "stats", names, root, fault, root=root))
            continue
        sketches = next(each for each in found if _SKETCHES in each.name)
        faults[entry.artifact_name] = sketches.findings
        for each in found:
            kind = "sketches" if each is sketches else "stats"
            facts = judged("stats", kind, names, each.inspection, root=root)
            steps.append(_compared(facts, each, sketches))
    return steps, faults


def _compared(facts: ArtifactFacts, found: FoundStats, sketches: FoundStats) -> ArtifactFacts:
    """Say what `stats` makes of files that others wrote: it compares them before anything else."""
    if found.left_alone and found.status in _ACCEPTED:
        return replace(
            facts, state="published", level="ok", detail=_ACCEPTED[found.status], force=False
        )
    if found.left_alone:
        detail = "its min, max, mean, std or count are not those of the frames"
        return replace(facts, state=UNDECIDED, level="do", detail=detail, force=False)
    if facts.state not in ("edited", "not ours"):
        return facts
    if _STATES[sketches.inspection.state][1] == "do":
        state = "published" if facts.state == "not ours" else facts.state
        return replace(facts, state=state, level="ok", detail="not compared yet", force=False)
    return replace(facts, force=False)


def speed_steps(resolved: ResolvedMixture, context: RunContext) -> Iterator[ArtifactFacts]:
    """Yield the speed percentiles of every dataset."""
    for entry in resolved.first_entries:
        names, root = names_of(resolved, entry), entry.meta.root
        try:
            found = inspect_speed(entry, artifact_root=context.artifact_root)
        except PrepError as fault:
            path = speed_place(entry, context.artifact_root).path
            yield damaged("speed-percentiles", "speed", names, path, fault, root=root)
            continue
        facts = judged("speed-percentiles", "speed", names, found, root=root, decode=decode_rows)
        yield _trusted(facts, found)


def _trusted(facts: ArtifactFacts, found: Inspection) -> ArtifactFacts:
    """Say what is special about this file: people edit it, and debug runs freeze it."""
    parameters: Mapping[str, Any] = {} if found.provenance is None else found.provenance.parameters
    if facts.state in ("stale", "damaged"):
        return replace(facts, force=True)
    if found.state is State.REPARAMETRIZED and EPISODES in parameters:
        words = f"made of {len(parameters[EPISODES]):,} selected episodes alone"
        return replace(facts, level="do", detail=words, force=True)
    if found.state is State.REPARAMETRIZED and KEPT_ROWS in parameters:
        words = "holds rows that were kept, though a recomputation would change them"
        return replace(facts, state="edited", level="look", detail=words, force=True)
    if facts.state in ("edited", "not ours"):
        return replace(facts, detail="it is trusted as it is")
    return facts


def token_steps(
    resolved: ResolvedMixture,
    document: Mapping[str, Any],
    options: FitOptions,
    context: RunContext,
) -> Iterator[ArtifactFacts]:
    """Yield each dataset's token lengths under the tokenizer that is there."""
    roots = {entry.name: entry.meta.root for entry in resolved.entries}
    try:
        found = inspect_dataset_files(resolved, document, options, context)
    except PrepError as fault:
        yield damaged("fit-tokenizer", "tokens", (), fault.where, fault)
        return
    for names, state in found:
        facts = judged("fit-tokenizer", "tokens", names, state, root=roots[names[0]])
        if facts.state in ("missing", "other options"):
            words = facts.detail and "of another fit"
            facts = replace(
                facts, state="stale" if words else "missing", detail=words, level="look"
            )
        yield facts


def names_of(resolved: ResolvedMixture, entry: ResolvedEntry) -> tuple[str, ...]:
    """Return the names of all entries of a dataset."""
    return tuple(each.name for each in resolved.entries_of(entry.dataset))


def optional(step: str, kind: str, path: Path) -> ArtifactFacts:
    """Return an artifact that nobody needs to make."""
    return ArtifactFacts(step, kind, (), None, str(path), "optional")
