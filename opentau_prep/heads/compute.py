"""The verb behind `heads`: the mixture's heads, each dataset's file, and the warnings."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Recipe, dataset_place
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.artifacts.place import Place, check_artifact_root, file_place
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.artifacts.store import Inspection, inspect, recorded
from opentau_prep.engine import Failure
from opentau_prep.errors import ConfigError, DataError
from opentau_prep.heads.audit import audit_heads
from opentau_prep.heads.explain import explain, parse_target
from opentau_prep.heads.files import encode_heads, head_document
from opentau_prep.heads.mixture import MixtureHeads, build_mixture_heads
from opentau_prep.heads.options import HeadOptions
from opentau_prep.heads.report import HeadFile, HeadsReport, HeadSummary
from opentau_prep.notices import Notice, collect_notices, emit, shorten_names, some_names, warn
from opentau_prep.stats.dataset import recorded_stats_options
from opentau_prep.stats.options import StatsOptions
from opentau_prep.text import several

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.heads.members import HeadMember, VqaMember
    from opentau_prep.metadata.dataset import Dataset
    from opentau_prep.metadata.records import StatsView
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = ["inspect_heads", "prepare_heads", "recorded_options", "summarize_heads"]

COMMAND = "heads"
_STALE = "stale_artifact"


def prepare_heads(
    resolved: ResolvedMixture,
    context: RunContext,
    options: HeadOptions,
    *,
    out: Path,
    audit: bool = False,
    explain_target: str | None = None,
    allow_partial: bool = False,
) -> HeadsReport:
    """Write a mixture's heads, to `out` and to each dataset, or say that they are up to date.

    Every rank computes them (from metadata, so that takes no time); the main one writes.

    Args:
        resolved: The mixture.
        context: How to run.
        options: Widths and the source of quantiles.
        out: The mixture's file.
        audit: Look for members that do not belong to their head.
        explain_target: `DATASET`, `DATASET:feature` or `DATASET:feature:dim`.
        allow_partial: Whether datasets count whose data files are not all here.

    Returns:
        The report; the same values on every rank.

    Raises:
        DataError: Only a part of a dataset is here, and nobody has accepted that: not here, and
            not when its stats were computed.
        PrepError: Stats cannot be used (all such datasets are listed, and nothing is written);
            or, when `context.keep_going` is off, a file could not be written; or a dataset lies
            in a store and there is no `context.artifact_root`.
    """
    check_artifact_root((entry.meta.root for entry in resolved.entries), context.artifact_root)
    with main_rank_notices(context.this_rank):
        built = build_mixture_heads(resolved, options, artifact_root=context.artifact_root)
        _check_whole(resolved, context, allow_partial=allow_partial)
        target = None if explain_target is None else parse_target(explain_target, built.heads)
        write = partial(_write, context=context.for_workers())
        jobs = _dataset_jobs(resolved, built, options, context)
        labels = [", ".join(job.datasets) for job in jobs]
        with _stale_reported_once():
            mixture_file = write(_mixture_job(resolved, built, options, out))
            # Small files wait for the disk, and for that one process does as well as several.
            done = context.map(COMMAND, write, jobs, labels, items_per_worker=len(jobs))
        return HeadsReport(
            heads=built.heads,
            summaries=summarize_heads(built),
            out=mixture_file,
            files=[each for each in done if isinstance(each, HeadFile)],
            failures=[each for each in done if isinstance(each, Failure)],
            audit=audit_heads(built.members) if audit else None,
            explanations=(
                () if target is None else explain(built, target, quantiles=options.quantiles)
            ),
        )


def _check_whole(resolved: ResolvedMixture, context: RunContext, *, allow_partial: bool) -> None:
    parts = []
    for entry in resolved.first_entries:
        dataset = entry.dataset
        dataset.check_not_empty()
        if allow_partial or not dataset.is_partial:
            continue
        sketch = dataset_place(
            "quantile_sketch",
            dataset.storage,
            dataset=dataset.artifact_name,
            artifact_root=context.artifact_root,
        )
        if not recorded_stats_options(sketch, StatsOptions()).allow_partial:
            here, of = dataset.present.episodes, dataset.declared.episodes
            parts.append(f"{entry.name} ({here:,} of {of:,} episodes)")
    if parts:
        raise DataError(
            f"only a part of {several(len(parts), 'dataset')} is here: {some_names(parts)}",
            hint="Download the rest; --allow-partial builds the heads from the metadata alone.",
        )


def inspect_heads(
    resolved: ResolvedMixture,
    built: MixtureHeads,
    options: HeadOptions,
    context: RunContext,
    *,
    out: Path,
) -> list[tuple[tuple[str, ...], Inspection]]:
    """Return the state of the mixture's file, and of each dataset's; nothing is changed.

    Args:
        resolved: The mixture.
        built: Its heads as they are now.
        options: What they were built with.
        context: Where artifacts are.
        out: The mixture's file.

    Returns:
        Pairs of the entries a file is for (none for the mixture's own) and its state.

    Raises:
        ConfigError: `out` is a folder.
        ArtifactError: A file cannot be read.
    """
    jobs = [
        _mixture_job(resolved, built, options, out),
        *_dataset_jobs(resolved, built, options, context),
    ]
    return [(job.datasets, inspect(job.place, job.recipe)) for job in jobs]


def recorded_options(out: Path) -> HeadOptions | None:
    """Return the options that a mixture's file was made with, as its provenance has them.

    Raises:
        ConfigError: `out` is a folder.
        ArtifactError: The file cannot be read.
    """
    record = recorded(file_place("norm_heads", out))
    if record is None:
        return None
    names = [each.name for each in fields(HeadOptions)]
    try:
        return HeadOptions(**{name: record.parameters[name] for name in names})
    except (KeyError, ConfigError):
        return None


@dataclass(frozen=True)
class _Job:
    """One file to be written."""

    datasets: tuple[str, ...]
    place: Place
    content: bytes
    recipe: Recipe


def _write(job: _Job, *, context: RunContext) -> HeadFile:
    outcome = context.ensure_file(job.place, lambda: job.content, job.recipe).outcome
    return HeadFile(job.datasets, outcome.path, outcome.status, outcome.changes, outcome.backup)


def _mixture_job(
    resolved: ResolvedMixture, built: MixtureHeads, options: HeadOptions, out: Path
) -> _Job:
    mixture_id = resolved.mixture.mixture_id
    hashes = [_hash_member(member) for member in built.everyone]
    inputs: dict[str, Any] = {
        "datasets": {
            "count": len(hashes),
            "frames": sum(int(member.weight) for member in built.members),
            "sha256": _hash_texts(hashes),
        }
    }
    facts = {"mixture_id": mixture_id, **options.as_json()}
    content = encode_heads(built.heads, facts)
    parameters = dict(facts)
    if options.quantiles == "sketch":
        parameters["sketches"] = _hash_texts(map(_hash_stats, built.heads.per_norm_key_stats))
    return _Job(
        (),
        file_place("norm_heads", out),
        content,
        Recipe(COMMAND, inputs, parameters, mixture_id=mixture_id),
    )


def _dataset_jobs(
    resolved: ResolvedMixture, built: MixtureHeads, options: HeadOptions, context: RunContext
) -> list[_Job]:
    """Return a job for each dataset; entries of one dataset share its file."""
    by_dataset: dict[Dataset, list[HeadMember]] = {}
    for member in built.members:
        by_dataset.setdefault(member.entry.dataset, []).append(member)
    encoder = _Encoder(resolved, built, options)
    jobs = []
    for dataset, members in by_dataset.items():
        place = dataset_place(
            "norm_head",
            dataset.storage,
            dataset=dataset.artifact_name,
            artifact_root=context.artifact_root,
            mixture_id=resolved.mixture.mixture_id,
        )
        names = tuple(member.name for member in members)
        jobs.append(_Job(names, place, encoder.content(members), encoder.recipe(members)))
    return jobs


class _Encoder:
    """Encodes each head once, however many datasets it is written to."""

    def __init__(
        self, resolved: ResolvedMixture, built: MixtureHeads, options: HeadOptions
    ) -> None:
        self._heads = built.heads
        self._from_sketch = options.quantiles == "sketch"
        self._facts = {"mixture_id": resolved.mixture.mixture_id, **options.as_json()}
        self._parameters = options.as_json()
        self._contents: dict[tuple[int, ...], bytes] = {}
        self._hashes = {member.name: _hash_member(member) for member in built.everyone}
        self._inputs = [self._inputs_of(row) for row in range(len(self._heads.norm_keys))]

    def content(self, members: Sequence[HeadMember]) -> bytes:
        """Return the file of a dataset: its head, and those of its other entries."""
        rows = self._rows(members)
        if rows not in self._contents:
            first, *others = (head_document(self._heads, row) for row in rows)
            more = {"other_heads": others} if others else {}
            self._contents[rows] = dump_own(
                {"format": "opentau-prep/norm-head", **self._facts, **first, **more}
            )
        return self._contents[rows]

    def recipe(self, members: Sequence[HeadMember]) -> Recipe:
        """Return what that file is made of: the dataset, and everyone in its heads."""
        info = members[0].info
        own = {"count": info["total_episodes"], "frames": info["total_frames"]}
        hashes = [self._hashes[member.name] for member in members]
        inputs: dict[str, Any] = {
            "episodes": own,
            "stats": {"sha256": _hash_texts(hashes)},
            "members": {
                "count": sum(self._inputs[row][0] for row in self._rows(members)),
                "sha256": _hash_texts(self._inputs[row][1] for row in self._rows(members)),
            },
        }
        if not self._from_sketch:
            return Recipe(COMMAND, inputs, self._parameters)
        # Among the parameters: taking quantiles from elsewhere makes no file stale.
        stats = (self._heads.per_norm_key_stats[row] for row in self._rows(members))
        sketches = _hash_texts(map(_hash_stats, stats))
        return Recipe(COMMAND, inputs, {**self._parameters, "sketches": sketches})

    def _rows(self, members: Sequence[HeadMember]) -> tuple[int, ...]:
        rows = self._heads.dataset_to_norm_index
        return tuple(dict.fromkeys(rows[member.name] for member in members))

    def _inputs_of(self, row: int) -> tuple[int, str]:
        names = self._heads.norm_key_to_dataset_names[self._heads.norm_keys[row]]
        return len(names), _hash_texts([str(row), *(self._hashes[name] for name in names)])


def summarize_heads(built: MixtureHeads) -> list[HeadSummary]:
    """Return each head in short, by row."""
    members = {member.name: member for member in built.everyone}
    vqa = {member.name for member in built.vqa}
    found = []
    for row, key in enumerate(built.heads.norm_keys):
        group = [members[name] for name in built.heads.norm_key_to_dataset_names[key]]
        found.append(
            HeadSummary(
                key=key,
                row=row,
                members=[member.name for member in group],
                frames=sum(member.weight for member in group if member.name not in vqa),
                state_dim=group[0].kept_dims("state"),
                action_dim=group[0].kept_dims("actions"),
                is_fallback=group[0].is_fallback,
                ranks=built.ranks.get(key, ()),
            )
        )
    return found


def _hash_member(member: HeadMember | VqaMember) -> str:
    return _hash_texts([member.name, repr(member.weight), _hash_stats(member.stats)])


def _hash_stats(stats: StatsView) -> str:
    digest = hashlib.sha256()
    for feature, entry in stats.items():
        for stat, values in entry.items():
            digest.update(f"{feature}\0{stat}\0{values.dtype.str}\0{values.shape}\n".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def _hash_texts(texts: Any) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


@contextlib.contextmanager
def _stale_reported_once() -> Iterator[None]:
    """Make one notice of all that the block says about stale files; pass on the others.

    A change in one dataset makes the files of its whole head stale: as many warnings would bury it.
    """
    collected: Sequence[Notice] = ()
    try:
        with collect_notices() as collected:
            yield
    finally:
        for notice in collected:
            if notice.kind != _STALE:
                emit(notice)
        _report_stale([notice for notice in collected if notice.kind == _STALE])


def _report_stale(stale: Sequence[Notice]) -> None:
    if len(stale) <= 1:
        for notice in stale:
            emit(notice)
        return
    changes = {str(each.dataset or each.details["artifact"]): each.details for each in stale}
    parts = [f"{name} ({', '.join(found['changes'])})" for name, found in changes.items()]
    shown, suffix = shorten_names(parts)
    warn(
        _STALE,
        f"{len(stale)} files are stale and are written again: {', '.join(shown)}{suffix}",
        artifacts={name: dict(found) for name, found in changes.items()},
    )
