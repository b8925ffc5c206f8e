"""Plans the pass over the frames, and carries out its slices anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.notices import collect_notices
from opentau_prep.pooling import is_quantile
from opentau_prep.validate.checks.stats import relative_chunk
from opentau_prep.validate.quantiles import fraction_of
from opentau_prep.validate.scan import ScanPlan, scan_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from opentau_prep.validate.frames import FrameSummary
    from opentau_prep.validate.view import DatasetView

__all__ = ["Slice", "plan_slices", "scan_slice"]

_SLICE_ROWS = 250_000
_SAMPLED_EPISODES = 24


@dataclass(frozen=True)
class Slice:
    """Some of a dataset's files.

    Attributes:
        view: The dataset.
        first: The first file.
        stop: The file after the last.
        sample: Episodes whose motion is looked at more closely.
    """

    view: DatasetView
    first: int
    stop: int
    sample: frozenset[int]


def plan_slices(view: DatasetView) -> list[Slice]:
    """Return slices of about 250,000 frames; none where no episode can be located."""
    with collect_notices():
        parts = view.data_parts
    if not parts:
        return []
    sizes = np.cumsum([int(part.lengths.sum()) for part in parts])
    cuts = np.flatnonzero(np.diff(np.maximum(sizes - 1, 0) // _SLICE_ROWS)) + 1
    edges = [0, *cuts.tolist(), len(parts)]
    every = np.concatenate([part.episodes for part in parts])
    spread = np.linspace(0, len(every) - 1, min(_SAMPLED_EPISODES, len(every))).astype(int)
    sample = frozenset(int(e) for e in np.sort(every)[spread])
    return [
        Slice(view.unread(), first, stop, sample) for first, stop in pairwise(edges) if first < stop
    ]


def scan_slice(piece: Slice) -> FrameSummary:
    """Read a slice once."""
    with collect_notices(), np.errstate(all="ignore"):
        view = piece.view.unread()
        parts = view.data_parts[piece.first : piece.stop]
        return scan_parts(view.storage, parts, _plan(view, piece.sample))


def _plan(view: DatasetView, sample: frozenset[int]) -> ScanPlan:
    vectors = view.vectors
    features = view.features or {}
    others = [
        name
        for name, feature in features.items()
        if feature.dtype in ("float32", "float64")
        and name not in vectors.values()
        and name != "timestamp"
    ]
    wanted = [*vectors.values(), *others]
    asked = {name: _quantiles(view, name) for name in wanted}
    quantiles = {name: block for name, block in asked.items() if block is not None}
    limits = {name: ends for name, c in vectors.items() if (ends := _limits(view, c)) is not None}
    return ScanPlan(vectors, others, view.fps, quantiles, sample, limits)


def _limits(view: DatasetView, column: str) -> NDArray[np.float64] | None:
    """Return (2, D) smallest and largest value by the stats; None where those are of no vectors."""
    if relative_chunk(view, column) is not None:
        return None
    entry = (view.stats or {}).get(column, {})
    ends = [np.atleast_1d(entry[s]).astype(np.float64) for s in ("min", "max") if s in entry]
    if len(ends) < 2 or ends[0].ndim != 1 or ends[0].shape != ends[1].shape:
        return None
    return np.stack(ends)


def _quantiles(view: DatasetView, column: str) -> NDArray[np.float64] | None:
    """Return (Q, D) of `meta/stats.json`, in order of their names' fractions."""
    entry = (view.whole_stats or {}).get(column, {})
    names = sorted((s for s in entry if is_quantile(s)), key=lambda s: fraction_of(s) or 0)
    rows = [np.atleast_1d(entry[name]).astype(np.float64) for name in names]
    if not rows or len({row.shape for row in rows}) > 1 or rows[0].ndim != 1:
        return None
    return np.stack(rows)
