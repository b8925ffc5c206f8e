"""Stats of actions relative to the state at the start of their chunk, as LeRobot and GR00T train.

Only whole chunks count: a chunk starts at every frame that has `chunk_size` - 1 frames of its
episode after it. Frames are streamed once, and relative actions are float32, as in both trainers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.frames.read import iter_frames
from opentau_prep.stats.moments import Moments, block_moments, merge_moments
from opentau_prep.stats.quantiles import quantile_name, sort_columns
from opentau_prep.stats.scan import BLOCK_BYTES
from opentau_prep.stats.sketch import QuantileSketch, SketchTree

if TYPE_CHECKING:
    from opentau_prep.metadata.dataset import DatasetMetadata

__all__ = ["RelativeActions", "RelativeStats", "joint_mask", "relative_stats"]

Floats = NDArray[np.float64]
_MOMENTS = ("min", "max", "mean", "std")


@dataclass(frozen=True)
class RelativeActions:
    """Which actions are relative to what.

    Attributes:
        action: The action column.
        state: The state column.
        dims: The action dims that stats are of, in order: all of them, or some.
        minus: For each, the state dim that is subtracted, or -1 for one that stays absolute.
        chunk_size: Steps per chunk, T.
    """

    action: str
    state: str
    dims: tuple[int, ...]
    minus: tuple[int, ...]
    chunk_size: int

    def as_json(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self.__dict__, "dims": list(self.dims), "minus": list(self.minus)}


@dataclass(frozen=True, eq=False)
class RelativeStats:
    """Stats of relative actions; D dims, T steps.

    Attributes:
        per_step: stat -> (T, D) float64, over the chunks.
        pooled: stat -> (D,) float64, over the chunks and their steps; and `count`, (1,) int64.
        chunks: How many chunks.
        quantiles: `exact`, or `sketch`: within `RANK_ERROR` per step, and 0.00125 pooled.
    """

    per_step: dict[str, Floats]
    pooled: dict[str, NDArray[Any]]
    chunks: int
    quantiles: str


def joint_mask(names: Sequence[str], excluded: Sequence[str], width: int) -> NDArray[np.bool_]:
    """Return which of `width` action dims are relative.

    A dim stays absolute where its name holds an excluded name, in any casing; dims beyond the names
    are relative.

    Source: LeRobot, processor/relative_action_processor.py@7427f31.
    """
    tokens = [token.lower() for token in excluded if token]
    kept = [not any(token in name.lower() for token in tokens) for name in names[:width]]
    return np.array([*kept, *[True] * (width - len(kept))], dtype=np.bool_)


def relative_stats(
    meta: DatasetMetadata, what: RelativeActions, *, q: Sequence[float], memory_budget: int
) -> RelativeStats:
    """Compute the stats of a dataset's relative actions.

    Memory: a few blocks; with exact quantiles, three times all chunks' values too.

    Args:
        meta: The dataset.
        what: Its relative actions.
        q: Fractions of the quantiles.
        memory_budget: Bytes of chunk values up to which quantiles are exact.

    Raises:
        DataError: Frames cannot be read, dims are not there, or fewer than two chunks are whole.
    """
    steps, width = what.chunk_size, len(what.dims)
    number = np.maximum(meta.episodes.length - (steps - 1), 0).sum()
    exact = int(number) * steps * width * 4 <= memory_budget
    moments: list[Moments] = []
    tree, kept, chunks = SketchTree(), [], 0
    for rows in _chunk_rows(meta, what):
        chunks += len(rows)
        moments.append(block_moments(rows))
        if exact:
            kept.append(rows)
        else:
            tree.add(QuantileSketch.of(rows))
    if chunks < 2:
        raise DataError(
            f"{chunks} whole chunks of {steps} steps; stats need 2",
            where=meta.root,
            hint="Choose a smaller --chunk-size.",
        )
    total = merge_moments(moments)
    sketch = tree.finish()
    if sketch is None:
        matrix = np.concatenate(kept)
        step_quantiles = sort_columns(matrix).quantiles(q)
        pooled_quantiles = sort_columns(matrix.reshape(-1, width)).quantiles(q)
    else:
        step_quantiles = sketch.quantiles(q)
        parts = [sketch.select(range(t * width, (t + 1) * width)) for t in range(steps)]
        pooled_quantiles = parts[0].merge(*parts[1:]).quantiles(q)
    pooled = _over_steps(total, steps)
    names = [quantile_name(fraction) for fraction in q]
    shape = (steps, width)
    per_step = {name: getattr(total, name).reshape(shape) for name in _MOMENTS}
    per_step |= {n: row.reshape(shape) for n, row in zip(names, step_quantiles, strict=True)}
    flat: dict[str, NDArray[Any]] = {name: getattr(pooled, name) for name in _MOMENTS}
    flat["count"] = np.array([chunks * steps])
    flat |= dict(zip(names, pooled_quantiles, strict=True))
    return RelativeStats(per_step, flat, chunks, "exact" if sketch is None else "sketch")


def _over_steps(moments: Moments, steps: int) -> Moments:
    """Return the moments (D,) of all steps together, from (T * D,)."""
    width = len(moments.count) // steps
    return merge_moments([moments[t * width : (t + 1) * width] for t in range(steps)])


def _chunk_rows(meta: DatasetMetadata, what: RelativeActions) -> Iterator[NDArray[np.float32]]:
    """Yield (n, T * D) float32 relative actions of whole chunks, a block's worth at a time."""
    steps = what.chunk_size
    relative = np.array([state >= 0 for state in what.minus])
    minus = np.array(what.minus, dtype=np.int64)[relative]
    slab = max(1, BLOCK_BYTES // (4 * steps * max(len(what.dims), 1)))
    for block in iter_frames(meta, [what.state, what.action], max_rows=100_000):
        actions, states = block.columns[what.action], block.columns[what.state]
        _check(actions, what.dims, meta.root, what.action)
        _check(states, minus.tolist(), meta.root, what.state)
        actions = actions[:, list(what.dims)].astype(np.float32)
        states = states[:, minus].astype(np.float32)
        spans = block.spans.tolist()
        starts = np.concatenate([np.arange(a, max(a, b - steps + 1)) for a, b in spans])
        for first in range(0, len(starts), slab):
            some = starts[first : first + slab]
            chunks = actions[some[:, np.newaxis] + np.arange(steps)]
            chunks[:, :, relative] -= states[some][:, np.newaxis]
            yield chunks.reshape(len(some), -1)


def _check(matrix: NDArray[Any], dims: Sequence[int], root: str, column: str) -> None:
    beyond = [dim for dim in dims if dim >= matrix.shape[1]]
    if beyond:
        raise DataError(
            f"column {column!r} has {matrix.shape[1]} dims, not {beyond}",
            where=root,
            hint="Check meta/modality.json, or the shapes in meta/info.json.",
        )
