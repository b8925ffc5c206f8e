"""The files of one dataset that stats are written to, and what becomes of each (artifacts, rule 5).

A file that this toolkit did not write is compared first: equal within its own precision, it is left
as it is; lacking something, it is completed without a number being changed; really different, it is
left alone and the difference is reported, unless forced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.artifacts import Recipe, dataset_place, publish
from opentau_prep.artifacts.place import Place
from opentau_prep.artifacts.provenance import sha256_of
from opentau_prep.artifacts.store import Inspection, Outcome, State
from opentau_prep.errors import MetadataError
from opentau_prep.metadata.jsonread import read_json_object
from opentau_prep.metadata.statsread import STATS
from opentau_prep.notices import warn
from opentau_prep.pooling import is_quantile
from opentau_prep.stats.compare import Bracket, Comparison, Difference, compare, pooled_difference
from opentau_prep.stats.documents import LinesDocument, StatsDocument, WholeDocument
from opentau_prep.stats.report import DIFFERS, KEPT, QUANTILES_KEPT, FileResult
from opentau_prep.stats.stack import Stacked
from opentau_prep.stats.state import LeftAlone

if TYPE_CHECKING:
    from opentau_prep.metadata.dataset import DatasetMetadata
    from opentau_prep.stats.columns import Layout
    from opentau_prep.stats.options import PublishedStats
    from opentau_prep.stats.sketch import QuantileSketch

__all__ = ["Computed", "StatsFile", "settle", "stats_files"]

OURS = (State.FRESH, State.STALE, State.REPARAMETRIZED)
EPISODES_DIR = "meta/episodes/"


@dataclass(frozen=True, eq=False)
class StatsFile:
    """A file that stats go to.

    Attributes:
        kind: `whole`, `lines` or `table`.
        name: The file, relative to the dataset.
        place: Where it is written.
        with_count: Whether `count` is part of its format.
        carried: Stats of features that are not computed, which new lines get; see `LinesDocument`.
    """

    kind: str
    name: str
    place: Place
    with_count: bool = True
    carried: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def document(
        self, content: bytes | None, where: str, without: Iterable[str] = ()
    ) -> StatsDocument:
        """Return the file read.

        Args:
            content: The file, or None.
            where: Its place, for errors.
            without: Features of `meta/stats.json` whose stats are passed over.

        Raises:
            MetadataError: It is damaged.
        """
        if self.kind == "whole":
            return WholeDocument(content, where, with_count=self.with_count, without=without)
        if self.kind == "lines":
            return LinesDocument(content, where, self.carried)
        from opentau_prep.stats.episodes_table import TableDocument

        return TableDocument(content or b"", where)


@dataclass(frozen=True, eq=False)
class Computed:
    """Computed stats to be written.

    Attributes:
        layout: The features.
        whole: Of the whole dataset.
        stacked: Of episodes, with the quantiles that their rows get.
        own: Of episodes, with their own quantiles.
        episodes: Which episodes.
        sketch: Of all frames.
        bracket: Which values agree with whole-dataset quantiles that are not exact.
    """

    layout: Layout
    whole: Stacked
    stacked: Stacked
    own: Stacked
    episodes: Sequence[int]
    sketch: QuantileSketch
    bracket: Bracket

    def for_file(self, target: StatsFile, document: StatsDocument) -> tuple[Stacked, list[int]]:
        """Return what goes to one file."""
        if target.kind == "whole":
            return self.whole, [-1]
        if target.kind == "lines":
            return self.stacked, list(self.episodes)
        mine = set(document.episodes)
        rows = [k for k, episode in enumerate(self.episodes) if episode in mine]
        part = {f: {s: v[rows] for s, v in stats.items()} for f, stats in self.stacked.items()}
        return part, [self.episodes[k] for k in rows]


def stats_files(
    meta: DatasetMetadata, dataset: str, artifact_root: Path | None, *, episodes: bool = True
) -> list[StatsFile]:
    """Return the files of a dataset's version; `meta/stats.json` is written for every version.

    Args:
        meta: The dataset.
        dataset: Its name below `artifact_root`.
        artifact_root: Where artifacts go instead of the dataset.
        episodes: Whether files with each episode's stats are among them.
    """

    def place(artifact: str, **fields: str) -> Place:
        return dataset_place(
            artifact, meta.storage, dataset=dataset, artifact_root=artifact_root, **fields
        )

    with_count = meta.version != "v2.0"
    targets = [StatsFile("whole", "meta/stats.json", place("stats"), with_count)]
    if meta.version == "v2.1" and episodes:
        name = "meta/episodes_stats.jsonl"
        targets.append(
            StatsFile("lines", name, place("episodes_stats"), carried=_camera_stats(meta))
        )
    if meta.is_v3 and episodes:
        for rel in meta.storage.list_files("meta/episodes", ".parquet"):
            file = rel.removeprefix(EPISODES_DIR).removesuffix(".parquet")
            targets.append(StatsFile("table", rel, place("episodes", file=file)))
    return targets


def _camera_stats(meta: DatasetMetadata) -> dict[str, dict[str, Any]]:
    """Return the cameras' stats in `meta/stats.json`, as they are written there."""
    raw: Mapping[str, Any] = {}
    with contextlib.suppress(MetadataError):  # which the file's own target reports
        raw = read_json_object(meta.storage, STATS) if meta.storage.exists(STATS) else {}
    cameras = [name for name, feature in meta.features.items() if feature.is_camera]
    return {name: dict(raw[name]) for name in cameras if isinstance(raw.get(name), dict)}


def settle(
    target: StatsFile,
    found: Inspection,
    computed: Computed,
    recipe: Recipe,
    *,
    refreshed: bytes | None = None,
    published: PublishedStats,
    force: bool,
    dry_run: bool,
) -> tuple[FileResult, LeftAlone | None]:
    """Write, complete, confirm or leave alone one file.

    Args:
        target: The file.
        found: As it was found.
        computed: The stats of the frames.
        recipe: What they were made of.
        refreshed: The file with its old rows brought up to date, where only new episodes were read.
        published: What becomes of numbers that differ, in a file that this toolkit did not write.
        force: Replace whatever is there.
        dry_run: Change nothing.

    Returns:
        What became of it, and, for a file that was left alone, what it was found to be.
    """
    found, document = _opened(target, found, force=force)
    if refreshed is not None:
        document = target.document(refreshed, str(found.path))
    stacked, episodes = computed.for_file(target, document)
    pooled = None if force else _pooled(target, document, computed)
    comparison = _compared(target, found, document, stacked, episodes, computed)
    ours = found.content is None or found.state in OURS
    blocked = any(np.isnan(stats["min"]).any() for stats in stacked.values() if len(episodes))
    differences = () if ours else comparison.differences
    replaced = force or (published == "replace" and bool(comparison.differences or pooled))
    words = _Decision(target, found, comparison, None if replaced else pooled)
    if found.fresh and not replaced:  # by a run that was interrupted before it wrote the others
        return words.result("up to date"), words.remaining(found.content)
    left = "no finite value" if blocked and not force else None
    if left is None and (differences or words.pooled) and not replaced:
        left = _left_as(differences, comparison.missing, published)
    if left is not None:
        return words.result(left), words.verdict(found.content, left)
    if ours or replaced:
        content = document.merged(stacked, episodes, keep=False) if episodes else refreshed
        content = found.content if content is None else content
        outcome = publish(
            target.place, content or b"", recipe, force=force or replaced, dry_run=dry_run
        )
        return words.outcome(outcome, "written"), None
    if not comparison.missing:
        content = found.content or b"" if refreshed is None else refreshed
        outcome = publish(target.place, content, recipe, extends=True, dry_run=dry_run)
        done = "up to date" if content == found.content else "extended"
        return words.outcome(outcome, done), None
    content = document.merged(stacked, episodes, keep=True)
    outcome = publish(target.place, content, recipe, extends=True, dry_run=dry_run)
    # What a run that finds the completed file would find in it.
    completed = target.document(content, str(found.path))
    words = replace(words, pooled=_pooled(target, completed, computed))
    return words.outcome(outcome, "extended"), words.remaining(content)


def _pooled(target: StatsFile, document: StatsDocument, computed: Computed) -> Difference | None:
    """Return what episodes' own quantiles pool to, unless they were asked for."""
    if target.kind != "lines" or computed.stacked is computed.own:
        return None
    found = pooled_difference(document, computed.whole, computed.layout)
    return None if found is None else _with_rank(found, computed)


def _left_as(
    differences: Sequence[Difference], missing: Sequence[str], published: PublishedStats
) -> str | None:
    """Return as what a file with other numbers is left alone; None when it is only completed."""
    if any(not is_quantile(d.stat) for d in differences):
        return KEPT if published == "keep" else DIFFERS
    return None if missing else QUANTILES_KEPT


def _opened(
    target: StatsFile, found: Inspection, *, force: bool
) -> tuple[Inspection, StatsDocument]:
    """Read a file; a damaged one of stats alone counts as missing when it will be replaced."""
    relative: Iterable[str] = ()
    if found.state is State.REPARAMETRIZED and found.provenance is not None:
        relative = found.provenance.parameters.get("relative_actions") or ()
    if relative:  # only these were computed: the others may be published, and are to stay
        found = replace(found, state=State.FOREIGN)
    try:
        return found, target.document(found.content, str(found.path), relative)
    except MetadataError as error:
        if target.kind == "table" or not force:  # a table holds more than can be made from frames
            raise
        message = error.message
    warn(
        "damaged_stats",
        f"{found.path} {message}: it is made from the frames; what else it held, such as image"
        " stats, is only in the old file, which is kept",
        dataset=target.place.dataset,
        file=target.name,
    )
    return replace(found, content=None), target.document(None, str(found.path))


def _compared(
    target: StatsFile,
    found: Inspection,
    document: StatsDocument,
    stacked: Stacked,
    episodes: list[int],
    computed: Computed,
) -> Comparison:
    if found.content is None or not episodes:
        return Comparison((), (), None)
    if target.kind != "whole":
        own, _ = replace(computed, stacked=computed.own).for_file(target, document)
        return compare(document, stacked, episodes, computed.layout, own=own)
    comparison = compare(
        document,
        stacked,
        episodes,
        computed.layout,
        with_count=target.with_count,
        bracket=computed.bracket,
    )
    ranked = tuple(_with_rank(d, computed) for d in comparison.differences)
    return replace(comparison, differences=ranked)


def _with_rank(difference: Difference, computed: Computed) -> Difference:
    """Say which quantile a published one really is."""
    if not difference.stat.startswith("q"):
        return difference
    dim = computed.layout.slices[difference.feature].start + difference.dim
    rank = float(computed.sketch.select([dim]).ranks([difference.published])[0])
    return replace(difference, rank=rank if np.isfinite(rank) else None)


@dataclass(frozen=True)
class _Decision:
    target: StatsFile
    found: Inspection
    comparison: Comparison
    pooled: Difference | None

    def result(self, status: str, backup: Path | None = None) -> FileResult:
        return FileResult(
            self.target.name,
            self.found.path,
            status,
            self.comparison.differences,
            self.comparison.missing,
            self.comparison.biggest,
            backup,
            self.pooled,
        )

    def verdict(self, content: bytes | None, status: str) -> LeftAlone:
        return LeftAlone(
            sha256_of(content or b""), self.comparison.differences, status, self.pooled
        )

    def remaining(self, content: bytes | None) -> LeftAlone | None:
        """Return what is still different in a completed file, if anything is."""
        if not (self.comparison.differences or self.pooled):
            return None
        return self.verdict(content, QUANTILES_KEPT)

    def outcome(self, outcome: Outcome, done: str) -> FileResult:
        status = outcome.status
        if status == "would write" and done == "up to date":
            status = "up to date"
        return replace(
            self.result(done if status == "written" else status, outcome.backup), path=outcome.path
        )
