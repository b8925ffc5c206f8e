"""Reading a dataset's frames for its stats: all of them, or only what is new."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from opentau_prep.artifacts.fingerprint import stored_hashes
from opentau_prep.errors import DataError
from opentau_prep.frames.columns import ColumnError
from opentau_prep.frames.rows import DataPart, data_parts
from opentau_prep.stats.columns import Layout, find_layout
from opentau_prep.stats.faults import frame_findings
from opentau_prep.stats.growth import Growth
from opentau_prep.stats.scan import Scan, scan_parts
from opentau_prep.stats.state import LeftAlone, StatsState

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedEntry
    from opentau_prep.stats.options import StatsRun

__all__ = ["Pass", "Reader"]


@dataclass(frozen=True, eq=False)
class Pass:
    """What was read, the state after it, and the one before where only what is new was read."""

    state: StatsState
    scan: Scan
    files_read: int
    before: StatsState | None = None

    def with_outcome(
        self, lines: Mapping[int, str], verdicts: Mapping[str, LeftAlone]
    ) -> StatsState:
        """Return the state with what became of the files."""
        return replace(self.state, lines=lines, verdicts=verdicts)


class Reader:
    """Reads the frames of one dataset.

    Args:
        entry: Any entry of it.
        run: How to run.
        episodes: The episodes to read; None for all.
    """

    def __init__(self, entry: ResolvedEntry, run: StatsRun, episodes: Sequence[int] | None) -> None:
        self._meta, self._name = entry.meta, entry.artifact_name
        self._run, self._q, self._episodes = run, run.stats.q, episodes

    @cached_property
    def files(self) -> dict[str, str]:
        """Data file -> its hash."""
        hashes = stored_hashes(self._meta.storage, list(dict.fromkeys(self._meta.data_paths)))
        return {rel: digest[:12] for rel, digest in hashes.items()}

    def all(self) -> Pass:
        """Read every file."""
        parts = data_parts(self._meta, self._episodes)
        layout, missing, scan, method, unusable = self._usable(parts)
        if scan.moments is None or scan.sketch is None:
            error = scan.faults[0].error if scan.faults else None
            raise error or DataError("no episode has frames", where=self._meta.root)
        quantiles = scan.sketch.quantiles(self._q) if scan.quantiles is None else scan.quantiles
        findings = frame_findings(
            self._meta.root,
            layout,
            scan.moments,
            faults=scan.faults,
            empty=scan.empty,
            missing=missing,
            unusable=unusable,
        )
        digests = zip(scan.episodes.episode_index.tolist(), scan.episodes.digests, strict=True)
        state = StatsState(
            layout,
            int(scan.episodes.frames.sum()),
            scan.moments,
            quantiles,
            method,
            scan.sketch,
            self.files,
            dict(digests),
            findings=findings,
        )
        return Pass(state, scan, len(parts))

    def _usable(
        self, parts: list[DataPart]
    ) -> tuple[Layout, list[str], Scan, str, list[ColumnError]]:
        """Read every file, again without a column that is found to be ragged."""
        unusable: dict[str, ColumnError] = {}
        while True:
            try:
                layout, missing = find_layout(
                    self._meta, parts, keep_going=self._run.context.keep_going, without=unusable
                )
                size = layout.row_bytes * self._meta.episodes.total_frames
                method = "exact" if size <= self._run.stats.memory_budget else "sketch"
                scan = self._scan(parts, layout, exact=method == "exact")
                return layout, missing, scan, method, list(unusable.values())
            except ColumnError as error:
                unusable[error.column] = error

    def grown(self, growth: Growth) -> Pass:
        """Read only what is new, after making sure that changed files hold the old episodes."""
        try:
            return self._read_grown(growth)
        except ColumnError:
            return self.all()

    def _read_grown(self, growth: Growth) -> Pass:
        state, layout = growth.state, growth.state.layout
        old = self._scan(growth.changed, layout, exact=False)
        known = zip(old.episodes.episode_index.tolist(), old.episodes.digests, strict=True)
        if any(state.digests.get(e) != digest for e, digest in known) or old.faults or old.empty:
            return self.all()
        scan = self._scan(growth.new, layout, exact=False)
        if scan.faults or scan.empty:
            return self.all()
        read = len({part.rel for part in (*growth.changed, *growth.new)})
        state = growth.merged(scan, self.files, self._q, self._meta.root)
        return Pass(state, scan, read, growth.state)

    def _scan(self, parts: list[DataPart], layout: Layout, *, exact: bool) -> Scan:
        done = itertools.count(1)
        progress, name = self._run.progress, self._name

        if progress is not None:
            progress("frames", 0, len(parts), name)

        def on_part() -> None:
            if progress is not None:
                progress("frames", next(done), len(parts), name)

        return scan_parts(
            self._meta.storage,
            parts,
            layout,
            self._q,
            exact=exact,
            keep_going=self._run.context.keep_going,
            workers=self._run.cluster or self._run.threads,
            on_part=on_part,
        )
