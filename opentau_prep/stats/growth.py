"""A dataset that only grew since its stats were made: what is new, and how it is added."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from opentau_prep.artifacts.provenance import sha256_of
from opentau_prep.artifacts.store import Inspection, State
from opentau_prep.errors import MetadataError
from opentau_prep.frames.rows import DataPart, data_parts
from opentau_prep.pooling import is_quantile
from opentau_prep.stats.documents import LinesDocument, StatsDocument
from opentau_prep.stats.faults import frame_findings
from opentau_prep.stats.files import OURS, StatsFile
from opentau_prep.stats.scan import Scan
from opentau_prep.stats.stack import Stacked
from opentau_prep.stats.state import StatsState

if TYPE_CHECKING:
    from opentau_prep.metadata.dataset import DatasetMetadata

__all__ = ["Growth", "grown", "line_hashes"]

_LINE_START = re.compile(rb'\{"episode_index": ?(\d{1,18}),')


@dataclass(frozen=True, eq=False)
class Growth:
    """What is new.

    Attributes:
        state: As it was.
        changed: Files that changed, with their old episodes, which have to be as they were.
        new: Files with new episodes, and those.
    """

    state: StatsState
    changed: list[DataPart]
    new: list[DataPart]

    def merged(
        self, scan: Scan, files: Mapping[str, str], q: Sequence[float], root: str
    ) -> StatsState:
        """Return the state with the new episodes; its quantiles then come from the sketch."""
        state = self.state
        if scan.moments is None or scan.sketch is None:
            return replace(state, files=files)
        moments = state.moments.merge(scan.moments)
        sketch = state.sketch.merge(scan.sketch)
        digests = zip(scan.episodes.episode_index.tolist(), scan.episodes.digests, strict=True)
        return replace(
            state,
            frames=state.frames + int(scan.episodes.frames.sum()),
            moments=moments,
            sketch=sketch,
            quantiles=sketch.quantiles(q),
            method="sketch",
            files=files,
            digests={**state.digests, **dict(digests)},
            findings=frame_findings(root, state.layout, moments),
        )


def grown(
    meta: DatasetMetadata,
    state: StatsState,
    files: Mapping[str, str],
    targets: Sequence[StatsFile],
    inspected: Mapping[str, Inspection],
) -> Growth | None:
    """Return what was added since, or None when everything has to be read again.

    That is so when an episode is gone, a file that was left alone differs, something was wrong with
    the frames, or rows of old episodes were edited.
    """
    episodes = meta.episodes.episode_index.tolist()
    gone = set(state.digests) - set(episodes)
    bad = any(finding.code != "non_finite" for finding in state.findings)
    if gone or bad or state.verdicts:
        return None
    new = [episode for episode in episodes if episode not in state.digests]
    if not all(_old_rows_stand(t, inspected[t.name], state) for t in targets):
        return None
    changed_files = {rel for rel, digest in files.items() if state.files.get(rel) != digest}
    old = [e for e, rel in zip(episodes, meta.data_paths, strict=True) if rel in changed_files]
    old = [episode for episode in old if episode in state.digests]
    return Growth(state, _parts(meta, old), _parts(meta, new))


def old_rows(
    document: StatsDocument, before: StatsState, old: Stacked, new: Stacked
) -> tuple[Stacked, list[int]]:
    """Return a file's rows of old episodes, with the whole dataset's quantiles brought up to date.

    Args:
        document: The file, as it was left.
        before: The state that it was left with.
        old: The whole dataset's stats then.
        new: The whole dataset's stats now.
    """
    rows = [row for row, episode in enumerate(document.episodes) if episode in before.digests]
    stacked: Stacked = {}
    for column in before.layout.columns:
        entry: dict[str, NDArray[Any]] = {}
        for stat, values in old[column.name].items():
            found = document.published(column.name, stat, values[0].size)[0][rows]
            if is_quantile(stat):
                shared = (found == values.reshape(1, -1)).all(axis=1)
                found[shared] = new[column.name][stat].reshape(-1)
            entry[stat] = found.reshape(len(rows), *values.shape[1:]).astype(values.dtype)
        stacked[column.name] = entry
    return stacked, [document.episodes[row] for row in rows]


def line_hashes(content: bytes, where: str) -> dict[int, str]:
    """Return episode -> hash of its line."""
    lines = [line for line in content.split(b"\n") if line.strip()]
    starts = [_LINE_START.match(line) for line in lines]
    # To parse thousands of lines takes as long as to write them: most begin with their episode.
    if all(starts):
        episodes: Sequence[int] = [int(start[1]) for start in starts if start]
    else:
        episodes = LinesDocument(content, where).episodes
    return {e: sha256_of(x)[:12] for e, x in zip(episodes, lines, strict=True)}


def _parts(meta: DatasetMetadata, episodes: list[int]) -> list[DataPart]:
    return data_parts(meta, episodes) if episodes else []


def _old_rows_stand(target: StatsFile, found: Inspection, state: StatsState) -> bool:
    """Tell whether a file's rows of old episodes are as they were left."""
    if target.kind == "whole":
        return found.content is not None
    if found.content is None or found.state is State.MISSING:
        return False
    try:
        document = target.document(found.content, str(found.path))
        if any(document.is_per_element(c.name, c.dims) for c in state.layout.columns):
            return False
        if found.state in OURS:
            return True
        if target.kind == "table":
            return not set(document.episodes) & set(state.digests)
        now = line_hashes(found.content, str(found.path))
    except MetadataError:
        return False
    return all(now.get(episode) == digest for episode, digest in state.lines.items()) and set(
        state.digests
    ) <= set(state.lines)
