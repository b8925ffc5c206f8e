"""One dataset's stats: what is there, what has to be read, and what is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Recipe, dataset_place, publish
from opentau_prep.artifacts.batches import leave_without
from opentau_prep.artifacts.place import Place
from opentau_prep.artifacts.provenance import sha256_of
from opentau_prep.artifacts.store import Inspection, OverwriteRefusedError, State, inspect
from opentau_prep.artifacts.together import pending_path, together
from opentau_prep.errors import ConfigError, MetadataError, PrepError
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.notices import some_names
from opentau_prep.stats.advice import stats_command
from opentau_prep.stats.columns import Layout, declared_features
from opentau_prep.stats.compare import sketch_bracket
from opentau_prep.stats.faults import PARTIAL_DATASET, DataFault
from opentau_prep.stats.files import OURS, Computed, StatsFile, settle, stats_files
from opentau_prep.stats.growth import Growth, grown, line_hashes, old_rows
from opentau_prep.stats.options import StatsOptions
from opentau_prep.stats.quantiles import quantile_name
from opentau_prep.stats.reading import Pass, Reader
from opentau_prep.stats.report import DIFFERS, Coverage, FileResult, StatsResult
from opentau_prep.stats.stack import (
    Stacked,
    stack_episodes,
    stack_whole,
    unstack,
    with_whole_quantiles,
)
from opentau_prep.stats.state import LeftAlone, StatsState

if TYPE_CHECKING:
    from opentau_prep.artifacts.place import Place
    from opentau_prep.metadata.resolve import ResolvedEntry
    from opentau_prep.stats.options import PublishedStats, StatsRun

__all__ = ["DatasetWork", "FoundStats", "recorded_stats_options"]

COMMAND = "stats"
SKETCH_FILE = "meta/quantile_sketch.json"


@dataclass(frozen=True)
class FoundStats:
    """One file of a dataset's stats, as it was found.

    Attributes:
        name: The file, relative to the dataset.
        inspection: Its state.
        left_alone: Whether an earlier run compared it, found other numbers, and left it as it is.
        status: What that run made of it; see `FileResult`. Empty where it was not left alone.
        findings: Of the sketches, what was wrong with the frames they were made of.
    """

    name: str
    inspection: Inspection
    left_alone: bool = False
    status: str = ""
    findings: tuple[DataFault, ...] = ()


class DatasetWork:
    """The work on one dataset.

    Args:
        entry: Any entry of it.
        run: How to run.
    """

    def __init__(self, entry: ResolvedEntry, run: StatsRun) -> None:
        self.entry = entry
        self.meta = entry.meta
        entry.dataset.check_not_empty()
        name, elsewhere = entry.artifact_name, run.context.artifact_root
        self.place = dataset_place(
            "quantile_sketch", self.meta.storage, dataset=name, artifact_root=elsewhere
        )
        if run.keep_options:
            run = replace(run, stats=recorded_stats_options(self.place, run.stats))
        self.run, self.q = run, run.stats.q
        there = self.meta.episodes.episode_index[entry.dataset.has_data_file]
        self.reader = Reader(entry, run, there.tolist() if self.is_partial else None)
        self.targets = stats_files(self.meta, name, elsewhere, episodes=run.stats.episode_stats)

    @property
    def places(self) -> Sequence[Place]:
        """The sketches, which are written last, and the files of stats."""
        return (self.place, *(target.place for target in self.targets))

    def finished(self) -> StatsResult | None:
        """Return the result of an earlier run when nothing has changed since; reads no frames."""
        found, state = self._inspected_state()
        if state is None or not found.fresh:
            return None
        policy = self.run.stats.published
        if any(not _decided(v.status, policy) for v in state.verdicts.values()):
            return None
        files = []
        for each in self._found_targets(state):
            here = each.inspection
            if here.fresh:
                files.append(FileResult(each.name, here.path, "up to date"))
            # Forced files are ours in the end: what was left alone before is not what will be.
            elif each.left_alone and not self.run.context.force:
                left = state.verdicts[each.name]
                files.append(
                    FileResult(
                        each.name, here.path, left.status, left.differences, pooled=left.pooled
                    )
                )
            else:
                return None
        return self._result(state, [*files, self._sketch_file("up to date")], files_read=0)

    @cached_property
    def is_partial(self) -> bool:
        """Whether some of the declared episodes are on disk, and some are not."""
        dataset = self.entry.dataset
        return dataset.is_partial and dataset.present.episodes > 0

    @property
    def _coverage(self) -> Coverage | None:
        dataset = self.entry.dataset
        return Coverage(dataset.present, dataset.declared) if self.is_partial else None

    def partial(self) -> StatsResult:
        """Return that only some of the episodes are on disk; reads no frames, writes nothing."""
        here = Coverage(self.entry.dataset.present, self.entry.dataset.declared)
        gone = ~self.entry.dataset.has_data_file
        missing = [rel for rel, lacks in zip(self.meta.data_paths, gone, strict=True) if lacks]
        files = f" (missing: {some_names(dict.fromkeys(missing))})" if missing else ""
        command = stats_command([self.meta.root], "--allow-partial", run=self.run)
        message = (
            f"only {here}{files}; stats of a part would pass for the whole dataset's. Fetch the"
            f" rest, or accept the part: `{command}`"
        )
        episodes = tuple(self.meta.episodes.episode_index[gone].tolist())
        finding = DataFault(PARTIAL_DATASET, message, self.meta.root, episodes=episodes)
        return StatsResult(
            self.entry.artifact_name,
            self.meta.root,
            self.meta.version,
            (),
            Layout(()),
            here.present.frames,
            here.present.episodes,
            {},
            "-",
            0,
            (finding,),
            here,
        )

    def found(self) -> list[FoundStats]:
        """Return every file as it is, the sketches last; reads no frames and changes nothing."""
        sketches, state = self._inspected_state()
        findings = state.findings if state is not None and sketches.fresh else ()
        return [
            *self._found_targets(state),
            FoundStats(SKETCH_FILE, sketches, findings=findings),
        ]

    def _found_targets(self, state: StatsState | None) -> Iterator[FoundStats]:
        recipe = self._recipe("exact")
        if state is not None:
            recipe = self._recipe(state.method, state.left_out)
        for target in self.targets:
            here = inspect(target.place, recipe)
            verdict = None if state is None else state.verdicts.get(target.name)
            same = verdict is not None and verdict.sha256 == sha256_of(here.content or b"")
            left_alone = not here.fresh and same
            status = verdict.status if left_alone and verdict is not None else ""
            yield FoundStats(target.name, here, left_alone, status)

    def make(self) -> StatsResult:
        """Read what has to be read, and write what may be written."""
        growth = None if self.run.context.force else self._growth()
        pass_ = self.reader.all() if growth is None else self.reader.grown(growth)
        recipe = self._recipe(pass_.state.method, pass_.state.left_out)
        with together(self.place.path.parent, dry_run=self.run.context.dry_run):
            settled = [self._settle(target, pass_, recipe) for target in self.targets]
            verdicts = {t.name: v for t, (_, v) in zip(self.targets, settled, strict=True) if v}
            state = pass_.with_outcome(self._lines(verdicts), verdicts)
            # Last, so that its presence says that all the others are as they should be.
            sketch = self._sketch_file(self._publish_state(state, recipe))
            for target in self.targets:
                if target.name in verdicts:
                    # What is left alone holds another program's numbers: a record that says that
                    # this tool wrote it would make it count as edited, and stale for ever.
                    leave_without(target.place.provenance_path)
        return self._result(state, [*(f for f, _ in settled), sketch], files_read=pass_.files_read)

    def _publish_state(self, state: StatsState, recipe: Recipe) -> str:
        # A sketch whose record was deleted is ours still: it may be replaced, with a backup.
        found = inspect(self.place, recipe)
        force = found.state not in OURS and (self.run.context.force or _is_sketch(found))
        dry_run = self.run.context.dry_run
        try:
            outcome = publish(self.place, state.to_bytes(), recipe, force=force, dry_run=dry_run)
        except OverwriteRefusedError:
            return "differs"
        return outcome.status

    def _recipe(self, method: str, left_out: Sequence[int] = ()) -> Recipe:
        parameters: dict[str, Any] = {
            "quantiles": list(self.q),
            "quantile_method": method,
            "episode_quantiles": self.run.stats.episode_quantiles,
            "features": declared_features(self.meta),
        }
        if left_out:
            parameters["left_out_episodes"] = left_out
        if self._coverage is not None:
            parameters["partial"] = self._coverage.as_json()
        partial = not self.run.read_data
        return Recipe(COMMAND, inputs=self._inputs, parameters=parameters, partial=partial)

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        return describe_inputs(self.meta, read=self.run.read_data)

    def _inspected_state(self) -> tuple[Inspection, StatsState | None]:
        found = inspect(self.place, self._recipe("exact"))
        if found.provenance is not None:
            # What the data decides is as it was while the data is; unusable files, where they may
            # be left out.
            recorded = found.provenance.parameters
            left_out = recorded.get("left_out_episodes") if self.run.context.keep_going else None
            method = str(recorded.get("quantile_method"))
            found = inspect(self.place, self._recipe(method, left_out or ()))
        if found.content is None or found.state not in (State.FRESH, State.STALE):
            return found, None
        return found, StatsState.from_bytes(found.content, str(found.path))

    def _growth(self) -> Growth | None:
        found, state = self._inspected_state()
        if state is None or self.is_partial:
            return None
        recipe = self._recipe(state.method)
        recorded = None if found.provenance is None else found.provenance.parameters
        if recorded is None or recorded.get("features") != recipe.parameters["features"]:
            return None
        inspected = {target.name: inspect(target.place, recipe) for target in self.targets}
        return grown(self.meta, state, self.reader.files, self.targets, inspected)

    def _settle(
        self, target: StatsFile, pass_: Pass, recipe: Recipe
    ) -> tuple[FileResult, LeftAlone | None]:
        found = inspect(target.place, recipe)
        run = self.run
        computed = self._computed(pass_)
        refreshed: bytes | None = None
        if pass_.before is not None and target.kind != "whole" and found.content is not None:
            document = target.document(found.content, str(found.path))
            old = old_rows(document, pass_.before, self._whole(pass_.before), computed.whole)
            refreshed = document.merged(*old, keep=False) if old[1] else None
        return settle(
            target,
            found,
            computed,
            recipe,
            refreshed=refreshed,
            published=run.stats.published,
            force=run.context.force,
            dry_run=run.context.dry_run,
        )

    def _computed(self, pass_: Pass) -> Computed:
        state, whole = pass_.state, self._whole(pass_.state)
        stacked = own = stack_episodes(state.layout, pass_.scan.episodes, self.q)
        if self.run.stats.episode_quantiles == "dataset":
            stacked = with_whole_quantiles(stacked, whole)
        names = {quantile_name(q): q for q in self.q}
        bracket = sketch_bracket(state.sketch, state.layout, names)
        return Computed(
            state.layout,
            whole,
            stacked,
            own,
            pass_.scan.episodes.episode_index.tolist(),
            state.sketch,
            bracket if state.method == "sketch" else lambda feature, stat: None,
        )

    def _whole(self, state: StatsState) -> Stacked:
        return stack_whole(state.layout, state.moments, state.quantiles, self.q, state.frames)

    def _lines(self, verdicts: Mapping[str, LeftAlone]) -> dict[int, str]:
        """Return the hash of each episode's line, for telling later which are unchanged."""
        for target in self.targets:
            if target.kind == "lines" and target.name not in verdicts:
                path = pending_path(target.place.path)
                # In a dry run the damaged file is there still that would be replaced.
                with contextlib.suppress(MetadataError):
                    return line_hashes(path.read_bytes(), str(path)) if path.is_file() else {}
        return {}

    def _sketch_file(self, status: str) -> FileResult:
        return FileResult(SKETCH_FILE, self.place.path, status)

    def _result(
        self, state: StatsState, files: list[FileResult], *, files_read: int
    ) -> StatsResult:
        return StatsResult(
            self.entry.artifact_name,
            self.meta.root,
            self.meta.version,
            tuple(files),
            state.layout,
            state.frames,
            len(state.digests),
            unstack(self._whole(state)),
            state.method,
            files_read,
            state.findings,
            self._coverage,
        )


def _is_sketch(found: Inspection) -> bool:
    try:
        StatsState.from_bytes(found.content or b"", str(found.path))
    except PrepError:
        return False
    return True


def _decided(status: str, published: PublishedStats) -> bool:
    """Tell whether a file that was left alone stays so, whatever is requested now."""
    if published == "replace":
        return status == "no finite value"
    return published == "stop" or status != DIFFERS


def recorded_stats_options(place: Place, options: StatsOptions) -> StatsOptions:
    """Return options with the quantiles that are on record next to a dataset's sketch.

    Args:
        place: The sketch.
        options: What holds where nothing is on record.
    """
    provenance = inspect(place, Recipe("stats", {})).provenance
    recorded = {} if provenance is None else provenance.parameters
    try:
        return replace(
            options,
            quantiles=tuple(float(q) for q in recorded["quantiles"]),
            episode_quantiles=recorded["episode_quantiles"],
            allow_partial=options.allow_partial or "partial" in recorded,
        )
    except (
        ConfigError,
        KeyError,
        TypeError,
        ValueError,
    ):  # a record that this tool did not write
        return options
