"""`--deep`: every selected frame, normalized in each mode, counted and its extremes located."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.forecast.distribution import SLACK, Distribution, from_sketch
from opentau_prep.forecast.formulas import BOUNDS, Affine
from opentau_prep.frames.read import FrameBlock, iter_frames, merge_blocks
from opentau_prep.stats.moments import Moments, block_moments
from opentau_prep.stats.sketch import QuantileSketch, SketchTree
from opentau_prep.storage.urls import shell_command

if TYPE_CHECKING:
    from opentau_prep.metadata.dataset import DatasetMetadata
    from opentau_prep.metadata.records import IntArray

__all__ = ["Counted", "DeepFeature", "DeepJob", "DeepResult", "count_frames"]

# As in validate: a block of small files.
_BLOCK_ROWS = 1 << 16
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """What one mode makes of D dims, from every frame.

    Attributes:
        beyond: (3, D) shares of normalized values beyond 1, 2 and 5.
        largest: (D,) the normalized value of the largest size.
        largest_raw: (D,) the same in dataset units.
        episode: (D,) its episode.
        frame: (D,) its frame in the episode.
    """

    beyond: Floats
    largest: Floats
    largest_raw: Floats
    episode: IntArray
    frame: IntArray


@dataclass(frozen=True)
class DeepFeature:
    """What to count of one feature: its column, which dims of it, and each mode's normalization."""

    column: str
    index: NDArray[np.intp]
    affines: Mapping[str, Affine]


@dataclass(frozen=True)
class DeepJob:
    """The frames of one entry."""

    meta: DatasetMetadata
    episodes: Sequence[int]
    features: Mapping[str, DeepFeature]


@dataclass(frozen=True)
class DeepResult:
    """Feature -> distribution of the frames, and mode -> counts."""

    distributions: Mapping[str, Distribution]
    counts: Mapping[str, Mapping[str, Counted]]


def count_frames(job: DeepJob) -> DeepResult:
    """Read the frames of an entry once, in bounded blocks.

    Non-finite values are left out: `validate --deep` finds them.

    Raises:
        DataError: A file is missing or damaged, or holds no frames.
    """
    columns = list(dict.fromkeys(f.column for f in job.features.values()))
    running = {name: _Running(feature) for name, feature in job.features.items()}
    for block in merge_blocks(iter_frames(job.meta, columns, job.episodes), _BLOCK_ROWS):
        for name, feature in job.features.items():
            matrix = block.columns[feature.column]
            if len(feature.index) and feature.index.max() >= matrix.shape[1]:
                again = shell_command("stats", [job.meta.root], "--force")
                raise DataError(
                    f"{feature.column!r} has {matrix.shape[1]} dims, its stats have more",
                    where=job.meta.root,
                    hint=f"Recompute the stats: `{again}`.",
                )
            running[name].add(np.asarray(matrix[:, feature.index], dtype=np.float64), block)
    results = {name: run.result(job.meta.root) for name, run in running.items()}
    return DeepResult(
        {name: result[0] for name, result in results.items()},
        {name: result[1] for name, result in results.items()},
    )


class _Running:
    """Sums over the blocks of one feature."""

    def __init__(self, feature: DeepFeature) -> None:
        dims = len(feature.index)
        self.affines = feature.affines
        self.moments: Moments | None = None
        self.tree = SketchTree()
        self.beyond = {mode: np.zeros((3, dims), dtype=np.int64) for mode in self.affines}
        self.size = {mode: np.full(dims, -1.0) for mode in self.affines}
        self.raw = {mode: np.full(dims, np.nan) for mode in self.affines}
        self.where = {mode: np.full((2, dims), -1, dtype=np.int64) for mode in self.affines}

    def add(self, values: Floats, block: FrameBlock) -> None:
        if not len(values):
            return
        finite = np.isfinite(values)
        part = block_moments(values)
        self.moments = part if self.moments is None else self.moments.merge(part)
        self.tree.add(QuantileSketch.of(values))
        for mode, done in self.affines.items():
            sizes = np.where(finite, np.abs(done.normalize(values)), -1.0)
            for i, bound in enumerate(BOUNDS):
                self.beyond[mode][i] += (sizes > bound * (1 + SLACK)).sum(axis=0)
            rows = sizes.argmax(axis=0)
            best = sizes[rows, np.arange(len(rows))]
            for d in np.flatnonzero(best > self.size[mode]):
                self.size[mode][d] = best[d]
                self.raw[mode][d] = values[rows[d], d]
                self.where[mode][:, d] = _place(block, int(rows[d]))

    def result(self, where: str) -> tuple[Distribution, dict[str, Counted]]:
        sketch, moments = self.tree.finish(), self.moments
        if sketch is None or moments is None:
            raise DataError("has no frames in the selected episodes", where=where)
        total = np.maximum(moments.count, 1)
        mean, std = np.nan_to_num(moments.mean), np.nan_to_num(moments.std)
        distribution = from_sketch(sketch, mean, std, "frames")
        counts = {}
        for mode, done in self.affines.items():
            raw = self.raw[mode]
            counts[mode] = Counted(
                self.beyond[mode] / total, done.normalize(raw), raw, *self.where[mode]
            )
        return distribution, counts


def _place(block: FrameBlock, row: int) -> tuple[int, int]:
    """Return episode and frame of a row of a block."""
    inside = (block.spans[:, 0] <= row) & (row < block.spans[:, 1])
    at = int(np.flatnonzero(inside)[0])
    return int(block.episode_index[at]), row - int(block.spans[at, 0])
