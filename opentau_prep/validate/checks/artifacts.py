"""A: what this toolkit wrote into the dataset's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING

from opentau_prep.artifacts.catalog import CATALOG
from opentau_prep.artifacts.store import Inspection, State
from opentau_prep.errors import PrepError
from opentau_prep.validate.artifacts import spec_of
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import RUN_FIX, RUN_STATS, RUN_STATS_AGAIN, Rule

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]


SPEED_FILE = CATALOG["speed_percentiles"].template
# Which command writes an artifact again; delta stats need a chunk size that no record here has.
_COMMANDS = MappingProxyType(
    {
        "stats": RUN_STATS_AGAIN,
        "episodes_stats": RUN_STATS_AGAIN,
        "episodes": RUN_STATS_AGAIN,
        "quantile_sketch": RUN_STATS_AGAIN,
        "norm_stats": (*RUN_STATS, "--format", "openpi", "--force"),
        "speed_percentiles": ("opentau-prep", "speed-percentiles", "{root}", "--force"),
        "norm_head": ("opentau-prep", "heads", "{mixture}", "--force"),
        "action_tokens": ("opentau-prep", "run", "{mixture}"),
    }
)


def _again(rel: str, found: Inspection | None = None) -> tuple[str, ...]:
    """Return the command that writes an artifact again; none where a person must choose options."""
    words = _COMMANDS.get(spec_of(rel).name, ())
    recorded = found.provenance.parameters if found and found.provenance else {}
    if recorded.get("clip_abnormal"):
        words = tuple("kai0" if word == "openpi" else word for word in words)
    if recorded.get("action_dim") is not None:
        words = (*words, "--action-dim", str(recorded["action_dim"]))
    of = f"{{mixture {PurePosixPath(rel).stem}}}"
    return tuple(of if word == "{mixture}" else word for word in words)


def _whole(view: DatasetView) -> Iterator[tuple[str, Inspection]]:
    """Yield the artifacts that can be read as what they should be, and those that are gone."""
    for rel, found in view.artifacts.items():
        if rel not in view.torn:
            yield rel, found


def torn(view: DatasetView) -> Iterator[Hit]:
    for rel, why in view.torn.items():
        yield hit(why, file=rel, command=_again(rel))


def edited(view: DatasetView) -> Iterator[Hit]:
    for rel, found in _whole(view):
        if found.state is State.EDITED:
            yield hit(f"was edited since `{spec_of(rel).command}` wrote it", file=rel)


def foreign(view: DatasetView) -> Iterator[Hit]:
    for rel, found in _whole(view):
        if found.state is State.FOREIGN:
            yield hit(
                "has no provenance: it is not known what it was made from",
                file=rel,
                command=RUN_FIX if rel == SPEED_FILE else _again(rel),
            )


def stale(view: DatasetView) -> Iterator[Hit]:
    for rel, found in _whole(view):
        if found.changes:
            yield hit(f"is stale: {listed(found.changes)}", file=rel, command=_again(rel, found))


def orphan(view: DatasetView) -> Iterator[Hit]:
    for rel, found in view.artifacts.items():
        if found.content is None:
            yield hit("is gone, but its provenance is there", file=rel, command=_again(rel, found))


def speed_incomplete(view: DatasetView) -> Iterator[Hit]:
    speed = view.artifacts.get(SPEED_FILE)
    if speed is None or speed.content is None or speed.changes:
        return
    if view.tasks is None or view.episodes is None:
        return
    from opentau_prep.speed.rows import decode_rows

    try:
        rows = decode_rows(speed.content, SPEED_FILE)
    except PrepError as fault:
        if SPEED_FILE not in view.torn:
            yield hit(fault.message, fault.hint or "", file=SPEED_FILE)
        return
    strange = [row.task_index for row in rows if row.task_index not in view.tasks]
    episodes = sum(row.n_episodes for row in rows)
    if strange:
        yield hit(f"has rows of tasks that do not exist: {listed(strange)}", file=SPEED_FILE)
    if episodes > len(view.episodes):
        yield hit(
            f"was computed from {episodes:,} episodes, the dataset has {len(view.episodes):,}",
            file=SPEED_FILE,
        )
    elif episodes < len(view.episodes):
        yield hit(f"covers {episodes:,} of {len(view.episodes):,} episodes", file=SPEED_FILE)


RULES = (
    Rule(
        "A001",
        "artifact-torn",
        "error",
        "An artifact is cut off, is not the JSON it should be, or was edited and no longer follows"
        " its schema.",
        "Training reads it and stops, or takes what is left for all of it.",
        "Remove it and run its command again.",
        torn,
    ),
    Rule(
        "A002",
        "artifact-stale",
        "warning",
        "An artifact was made of other episodes, tasks or data than are there now (content, not"
        " modification time; without `--deep`, data files are compared by number and size).",
        "Training reads it as if it were up to date: buckets, heads and tokens of another dataset.",
        "Recompute it; the old file is kept. `--fix` does so for stats, speed percentiles and the"
        " heads of the mixture.",
        stale,
    ),
    Rule(
        "A003",
        "artifact-foreign",
        "warning",
        "An artifact has no provenance, or one that cannot be read: another tool wrote it.",
        "Nobody can tell whether it fits the data, and it will never be renewed on its own.",
        "Run its command: a file with the same content is adopted (`--fix` does so).",
        foreign,
    ),
    Rule(
        "A004",
        "artifact-edited",
        "warning",
        "An artifact was changed after it was written.",
        "It is trusted as it is, and not renewed without --force.",
        "Keep it if that was meant; else run its command with --force.",
        edited,
    ),
    Rule(
        "A005",
        "artifact-gone",
        "warning",
        "There is the provenance of an artifact, but not the artifact.",
        "It was removed, or never copied along: training does without or stops.",
        "Run its command again (`--fix` does so for stats and the heads of the mixture).",
        orphan,
    ),
    Rule(
        "A006",
        "speed-rows",
        "warning",
        "`meta/speed_percentiles.jsonl` covers more or fewer episodes than there are, names tasks"
        " that do not exist, or has rows that training cannot read.",
        "It was computed from a subset of the episodes, as in a debug run: everyone's speed"
        " buckets are that subset's.",
        "Recompute it from all episodes; the old file is kept.",
        speed_incomplete,
        command=("opentau-prep", "speed-percentiles", "{root}", "--force"),
    ),
)
