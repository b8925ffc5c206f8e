"""The verbs behind `stats --format lerobot-relative` and `--format groot`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from opentau_prep.artifacts import Recipe, dataset_place, publish
from opentau_prep.artifacts.ensure import heal_places
from opentau_prep.artifacts.jsonio import dump_foreign
from opentau_prep.artifacts.place import Location, Place, check_artifact_root
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.artifacts.store import Inspection, inspect
from opentau_prep.engine import Failure
from opentau_prep.errors import ConfigError, DataError, MetadataError
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.metadata.jsonread import read_json_object
from opentau_prep.stats.compute import prepare_stats
from opentau_prep.stats.options import StatsOptions
from opentau_prep.stats.relative import RelativeActions, RelativeStats, joint_mask, relative_stats

if TYPE_CHECKING:
    from pathlib import Path

    from opentau_prep.context import RunContext
    from opentau_prep.metadata.dataset import DatasetMetadata
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.stats.report import StatsReport

__all__ = ["RelativeOptions", "RelativeReport", "RelativeResult", "prepare_relative"]

ACTION, STATE = "action", "observation.state"
MODALITY = "meta/modality.json"
# What GR00T's stats have, and its horizon where none is named.
_GROOT_STATS = ("min", "max", "mean", "std", "q01", "q99")
_GROOT_STEPS = 16
# The horizon of LeRobot's tool where none is named.
_LEROBOT_STEPS = 50
_LEROBOT_ABSOLUTE = ("gripper",)


@dataclass(frozen=True)
class RelativeOptions:
    """What to compute.

    Attributes:
        format: `lerobot-relative` or `groot`.
        chunk_size: Steps per chunk; by default 50 for LeRobot, 16 for GR00T.
        exclude_joints: Actions whose name holds one of these stay absolute; by default `gripper`
            for LeRobot, none for GR00T.
        stats: How the other stats are made, which are brought up to date first.
    """

    format: Literal["lerobot-relative", "groot"]
    chunk_size: int | None = None
    exclude_joints: tuple[str, ...] | None = None
    stats: StatsOptions = field(default_factory=StatsOptions)

    @property
    def steps(self) -> int:
        """Steps per chunk."""
        default = _GROOT_STEPS if self.format == "groot" else _LEROBOT_STEPS
        return default if self.chunk_size is None else self.chunk_size

    @property
    def absolute(self) -> tuple[str, ...]:
        """Names of actions that stay absolute."""
        default = () if self.format == "groot" else _LEROBOT_ABSOLUTE
        return default if self.exclude_joints is None else self.exclude_joints


@dataclass(frozen=True)
class RelativeResult:
    """One dataset's relative stats.

    Attributes:
        name: The dataset's name in the mixture.
        path: The file: `meta/stats.json`, or `meta/relative_stats.json` for GR00T.
        status: `written`, `up to date`, `would write` or `not persisted`.
        relative: Key -> the action dims that are relative to the state.
        left_out: Key -> why it has no relative stats.
        chunks: How many whole chunks; None when nothing was read.
        quantiles: `exact` or `sketch`; None when nothing was read.
        backup: Where the file that was there is kept.
    """

    name: str
    path: Location
    status: str
    relative: Mapping[str, Sequence[int]]
    left_out: Mapping[str, str]
    chunks: int | None = None
    quantiles: str | None = None
    backup: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the result JSON-ready."""
        return {
            "dataset": self.name,
            "path": str(self.path),
            "status": self.status,
            "relative": {key: list(dims) for key, dims in self.relative.items()},
            "left_out": dict(self.left_out),
            "chunks": self.chunks,
            "quantiles": self.quantiles,
            "backup": None if self.backup is None else str(self.backup),
        }


@dataclass(frozen=True)
class RelativeReport:
    """The outcome for all datasets, in mixture order.

    Attributes:
        stats: Of the ordinary stats, which were made before.
        results: Of the datasets that worked.
        failures: Of those that did not.
    """

    stats: StatsReport
    results: Sequence[RelativeResult]
    failures: Sequence[Failure]

    @property
    def needs_attention(self) -> bool:
        """Whether a dataset failed, or its ordinary stats need a decision."""
        return bool(self.failures) or self.stats.needs_attention

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {
            "datasets": [result.as_json() for result in self.results],
            "failures": [failure.as_json() for failure in self.failures],
            "stats": self.stats.as_json(),
        }


def prepare_relative(
    resolved: ResolvedMixture, context: RunContext, options: RelativeOptions
) -> RelativeReport:
    """Compute the stats of relative actions of every dataset, or say that they are up to date.

    The ordinary stats come first: LeRobot's tool recomputes them too, and GR00T reads both files.

    Raises:
        PrepError: A dataset failed and `context.keep_going` is off.
    """
    check_artifact_root((entry.meta.root for entry in resolved.entries), context.artifact_root)
    here = context.for_workers()
    stale = []
    for entry in resolved.first_entries:
        work = _Work(entry, options, here)
        if context.this_rank.is_main and not context.dry_run:
            heal_places(work.places)
        if context.force or not work.found().fresh:
            stale.append(entry)
    ordinary = prepare_stats(replace(resolved, entries=stale), context, options.stats)
    waiting = {result.root for result in (*ordinary.partial, *ordinary.undecided)}
    failed = {failure.label for failure in ordinary.failures}
    jobs = [
        entry
        for entry in resolved.first_entries
        if entry.meta.root not in waiting and entry.name not in failed
    ]
    with main_rank_notices(context.this_rank):
        names = [entry.name for entry in jobs]
        prepare = partial(_prepare_one, options=options, context=here)
        results = context.map("relative stats", prepare, jobs, names)
    return RelativeReport(
        ordinary,
        [r for r in results if isinstance(r, RelativeResult)],
        [r for r in results if isinstance(r, Failure)],
    )


def _prepare_one(
    entry: ResolvedEntry, *, options: RelativeOptions, context: RunContext
) -> RelativeResult:
    return context.ensure(_Work(entry, options, context))


class _Work:
    """The work on one dataset."""

    def __init__(self, entry: ResolvedEntry, options: RelativeOptions, context: RunContext) -> None:
        self.entry, self.meta, self.options = entry, entry.meta, options
        self.dry_run = context.dry_run
        groot = options.format == "groot"
        self.place: Place = dataset_place(
            "relative_stats" if groot else "stats",
            self.meta.storage,
            dataset=entry.artifact_name,
            artifact_root=context.artifact_root,
        )
        self.keys, self.left_out = (
            _groot_keys(self.meta, options)
            if groot
            else (
                {ACTION: _lerobot_actions(self.meta, options)},
                {},
            )
        )

    @property
    def places(self) -> Sequence[Place]:
        return (self.place,)

    @property
    def recipe(self) -> Recipe:
        options = self.options
        parameters = {
            "format": options.format,
            "quantiles": list(options.stats.q),
            "memory_budget": options.stats.memory_budget,
            "relative_actions": {key: what.as_json() for key, what in self.keys.items()},
        }
        return Recipe("stats", inputs=describe_inputs(self.meta), parameters=parameters)

    def found(self) -> Inspection:
        return inspect(self.place, self.recipe)

    def finished(self) -> RelativeResult | None:
        return self.result("up to date") if self.found().fresh else None

    def make(self) -> RelativeResult:
        content, stats = self.build()
        outcome = publish(self.place, content, self.recipe, force=True, dry_run=self.dry_run)
        done = self.result(outcome.status)
        return replace(done, chunks=stats.chunks, quantiles=stats.quantiles, backup=outcome.backup)

    def result(self, status: str) -> RelativeResult:
        relative = {
            key: [dim for dim, minus in zip(what.dims, what.minus, strict=True) if minus >= 0]
            for key, what in self.keys.items()
        }
        name = self.entry.artifact_name
        return RelativeResult(name, self.place.path, status, relative, self.left_out)

    def build(self) -> tuple[bytes, RelativeStats]:
        options = self.options.stats
        found = {
            key: relative_stats(self.meta, what, q=options.q, memory_budget=options.memory_budget)
            for key, what in self.keys.items()
        }
        first = next(iter(found.values()))
        if self.options.format == "groot":
            document: dict[str, Any] = {
                key: {stat: stats.per_step[stat].tolist() for stat in _GROOT_STATS}
                for key, stats in found.items()
            }
        else:
            document = read_json_object(self.meta.storage, "meta/stats.json")
            document[ACTION] = {stat: value.tolist() for stat, value in first.pooled.items()}
        return dump_foreign(document, where=str(self.place.path), allow_non_finite=True), first


def _lerobot_actions(meta: DatasetMetadata, options: RelativeOptions) -> RelativeActions:
    """Return LeRobot's relative actions: dim i minus the state's, but for excluded joints."""
    missing = [column for column in (ACTION, STATE) if column not in meta.features]
    if missing:
        raise DataError(
            f"has no feature {' and '.join(missing)}, which LeRobot's relative actions need",
            where=meta.root,
        )
    width = math.prod(meta.features[ACTION].shape)
    # LeRobot reads the names as they are written: of an object, that is its keys.
    names = (meta.info.get("features") or {}).get(ACTION, {}).get("names") or []
    listed = [str(name) for name in names] if isinstance(names, list | dict) else []
    mask = joint_mask(listed, options.absolute if listed else (), width)
    minus = tuple(dim if relative else -1 for dim, relative in enumerate(mask.tolist()))
    return RelativeActions(ACTION, STATE, tuple(range(width)), minus, options.steps)


def _groot_keys(
    meta: DatasetMetadata, options: RelativeOptions
) -> tuple[dict[str, RelativeActions], dict[str, str]]:
    """Return GR00T's action keys that are relative to the state key of the same name."""
    modality = read_json_object(meta.storage, MODALITY)
    where = f"{meta.root}/{MODALITY}"
    actions, states = (_slices(modality.get(kind), kind, where) for kind in ("action", "state"))
    keys: dict[str, RelativeActions] = {}
    left_out: dict[str, str] = {}
    for key, (column, dims, entry) in actions.items():
        state = states.get(key)
        if any(token.lower() in key.lower() for token in options.absolute):
            left_out[key] = "excluded"
        elif entry.get("absolute") is False:
            left_out[key] = "is relative in the data already"
        elif entry.get("rotation_type") is not None:
            left_out[key] = f"is a rotation ({entry['rotation_type']}), not a difference"
        elif state is None:
            left_out[key] = "the state has no key of that name"
        elif len(state[1]) != len(dims):
            left_out[key] = f"has {len(dims)} dims, the state's {len(state[1])}"
        else:
            keys[key] = RelativeActions(column, state[0], dims, state[1], options.steps)
    if not keys:
        words = "; ".join(f"{key} {why}" for key, why in left_out.items()) or "it names none"
        raise ConfigError(f"no action key can be relative to the state: {words}", where=where)
    return keys, left_out


def _slices(
    entries: Any, kind: str, where: str
) -> dict[str, tuple[str, tuple[int, ...], Mapping[str, Any]]]:
    """Return key -> (column, dims of it, entry) of one part of modality.json."""
    default = ACTION if kind == "action" else STATE
    if not isinstance(entries, dict):
        raise MetadataError(f"must have an object `{kind}`: key -> start, end", where=where)
    found = {}
    for key, entry in entries.items():
        start, end = (entry.get(n) if isinstance(entry, dict) else None for n in ("start", "end"))
        if type(start) is not int or type(end) is not int or not 0 <= start < end:
            raise MetadataError(
                f"{kind}.{key} must have start and end, 0 <= start < end", where=where
            )
        column = str(entry.get("original_key") or default)
        found[str(key)] = (column, tuple(range(start, end)), entry)
    return found
