"""Stats of actions as they are trained: whole chunks, minus the state at their start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.artifacts import Recipe, ensure_file
from opentau_prep.artifacts.store import Inspection, inspect
from opentau_prep.engine import Failure
from opentau_prep.errors import DataError
from opentau_prep.frames.chunks import chunk_rows, gather_chunks, shifted_rows, subtract_state
from opentau_prep.frames.read import FrameBlock, iter_frames
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.stats.delta import DeltaRecipe, DeltaStats, delta_place, delta_recipe
from opentau_prep.stats.moments import Moments, block_moments, merge_moments
from opentau_prep.stats.options import RunOptions
from opentau_prep.stats.quantiles import quantile_name, sort_columns
from opentau_prep.stats.report import DeltaResult
from opentau_prep.stats.scan import BLOCK_BYTES
from opentau_prep.stats.sketch import QuantileSketch, SketchTree

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["compute_delta_stats", "inspect_delta", "prepare_delta"]

Matrix = NDArray[Any]


def prepare_delta(
    resolved: ResolvedMixture, context: RunContext, run: RunOptions
) -> tuple[list[DeltaResult], list[Failure]]:
    """Make the artifact of every entry with delta actions, each dataset and recipe once.

    Raises:
        PrepError: One failed and `context.keep_going` is off.
    """
    jobs: dict[object, ResolvedEntry] = {}
    for entry in resolved.entries:
        if entry.config.use_delta_joint_actions:
            jobs.setdefault((entry.dataset, delta_recipe(entry, resolved.mixture).digest), entry)
    entries = list(jobs.values())
    # One dataset can be several entries with delta actions of their own: no callback travels.
    work = partial(_prepare_one, mixture=resolved.mixture, run=replace(run, progress=None))
    names = [entry.name for entry in entries]
    results = context.map("stats of delta actions", work, entries, names)
    done = [r for r in results if isinstance(r, DeltaResult)]
    return done, [r for r in results if isinstance(r, Failure)]


def compute_delta_stats(
    entry: ResolvedEntry,
    recipe: DeltaRecipe,
    *,
    chunk_size: int,
    q: Sequence[float],
    memory_budget: int,
) -> DeltaStats:
    """Compute the stats of an entry's delta actions from its frames.

    Every selected frame starts a chunk (with `recipe.max_rows`, every n-th one, counted over all
    selected frames); steps past the episode's end repeat its last frame, as in training.

    Memory: a few blocks; with exact quantiles, three times all chunks' values too.

    Args:
        entry: The entry.
        recipe: What its delta actions are.
        chunk_size: Steps per chunk.
        q: Fractions of the quantiles.
        memory_budget: Bytes of chunk values up to which quantiles are exact.

    Raises:
        DataError: Frames cannot be read, or there are none.
        ConfigError: The map names dims that the columns do not have.
    """
    moments: list[Moments] = []
    tree = SketchTree()
    kept: list[Matrix] | None = [] if _fits(entry, recipe, chunk_size, memory_budget) else None
    starts = 0
    for chunks in _chunk_slabs(entry, recipe, chunk_size):
        starts += len(chunks)
        rows = chunks.reshape(-1, chunks.shape[-1])
        moments.append(block_moments(rows))
        if kept is None:
            tree.add(QuantileSketch.of(rows))
        else:
            kept.append(rows)
    if not moments:
        raise DataError("no selected episode has frames", where=entry.meta.root)
    total = merge_moments(moments)
    sketch = tree.finish()
    if sketch is not None:
        quantiles = sketch.quantiles(q)
    else:
        columns = sort_columns(np.concatenate(kept or []))
        sketch, quantiles = QuantileSketch.of_sorted(columns), columns.quantiles(q)
    stats = {name: getattr(total, name) for name in ("min", "max", "mean", "std")}
    stats["count"] = np.array([starts * chunk_size])
    stats.update({quantile_name(f): row for f, row in zip(q, quantiles, strict=True)})
    method = "sketch" if kept is None else "exact"
    return DeltaStats(stats, sketch, recipe.action, chunk_size, starts, method, total.non_finite)


def _prepare_one(entry: ResolvedEntry, *, mixture: Mixture, run: RunOptions) -> DeltaResult:
    recipe = delta_recipe(entry, mixture)
    size, q = run.stats.chunk_size, run.stats.q
    place = delta_place(entry, recipe, size, run.artifact_root)

    def build() -> bytes:
        found = compute_delta_stats(
            entry, recipe, chunk_size=size, q=q, memory_budget=run.stats.memory_budget
        )
        return found.to_bytes(recipe)

    made = ensure_file(
        place,
        build,
        _artifact_recipe(entry, recipe, run),
        rank=run.rank,
        force=run.force,
        dry_run=run.dry_run,
    )
    stats = DeltaStats.from_bytes(made.content, str(place.path))
    return DeltaResult(
        entry.name,
        made.outcome.path,
        made.outcome.status,
        stats.column,
        size,
        stats.starts,
        stats.quantiles,
    )


def inspect_delta(entry: ResolvedEntry, mixture: Mixture, run: RunOptions) -> Inspection:
    """Return the state of an entry's artifact in chunks of this run's size; reads no frames."""
    recipe = delta_recipe(entry, mixture)
    place = delta_place(entry, recipe, run.stats.chunk_size, run.artifact_root)
    return inspect(place, _artifact_recipe(entry, recipe, run))


def _artifact_recipe(entry: ResolvedEntry, recipe: DeltaRecipe, run: RunOptions) -> Recipe:
    size = run.stats.chunk_size
    exact = _fits(entry, recipe, size, run.stats.memory_budget)
    parameters = {
        **recipe.as_json(),
        "chunk_size": size,
        "quantiles": list(run.stats.q),
        "quantile_method": "exact" if exact else "sketch",
    }
    inputs = describe_inputs(entry.meta, read=run.read_data)
    return Recipe("stats", inputs=inputs, parameters=parameters, partial=not run.read_data)


def _fits(entry: ResolvedEntry, recipe: DeltaRecipe, chunk_size: int, budget: int) -> bool:
    """Tell from the metadata whether all chunks' values fit the budget, as float32 mostly."""
    frames = sum(_lengths(entry).values())
    starts = -(-frames // _stride(frames, recipe.max_rows))
    feature = entry.meta.features.get(recipe.action)
    width = int(np.prod(feature.shape)) if feature is not None and feature.shape else 32
    itemsize = 8 if recipe.strategy == "linear" or (feature and "64" in feature.dtype) else 4
    return starts * chunk_size * width * itemsize <= budget


def _lengths(entry: ResolvedEntry) -> dict[int, int]:
    table = entry.meta.episodes
    return {e: int(table.length[table.position(e)]) for e in entry.episodes.tolist()}


def _stride(frames: int, max_rows: int | None) -> int:
    return 1 if not max_rows else max(1, -(-frames // max_rows))


def _chunk_slabs(entry: ResolvedEntry, recipe: DeltaRecipe, chunk_size: int) -> Iterator[Matrix]:
    """Yield (n, T, D) delta actions, a block's worth at a time, in order."""
    lengths = _lengths(entry)
    ends = np.cumsum(list(lengths.values()))
    first_row = dict(zip(lengths, (ends - list(lengths.values())).tolist(), strict=True))
    stride = _stride(int(ends[-1]), recipe.max_rows)
    for block in iter_frames(
        entry.meta, [recipe.state, recipe.action], entry.episodes.tolist(), max_rows=100_000
    ):
        actions = block.columns[recipe.action]
        width = max(1, actions.shape[1] * chunk_size * 8)
        anchors, owner = _anchors(block, first_row, stride)
        step = max(1, BLOCK_BYTES // width)
        for start in range(0, len(anchors), step):
            chosen = slice(start, start + step)
            yield _chunks(block, recipe, chunk_size, first_row, anchors[chosen], owner[chosen])


def _anchors(
    block: FrameBlock, first_row: dict[int, int], stride: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the global rows where chunks start, and which episode of the block each is in."""
    rows, owners = [], []
    for k, episode in enumerate(block.episode_index.tolist()):
        first, n = first_row[episode], int(block.spans[k, 1] - block.spans[k, 0])
        mine = np.arange(first + (-first) % stride, first + n, stride, dtype=np.int64)
        rows.append(mine)
        owners.append(np.full(len(mine), k, dtype=np.int64))
    return np.concatenate(rows), np.concatenate(owners)


def _chunks(
    block: FrameBlock,
    recipe: DeltaRecipe,
    chunk_size: int,
    first_row: dict[int, int],
    anchors: NDArray[np.int64],
    owner: NDArray[np.int64],
) -> Matrix:
    firsts = np.array([first_row[e] for e in block.episode_index.tolist()], dtype=np.int64)[owner]
    spans = block.spans[owner]
    shift = firsts - spans[:, 0]
    rows = chunk_rows(
        anchors,
        firsts,
        firsts + spans[:, 1] - spans[:, 0],
        chunk_size=chunk_size,
        fps=recipe.fps,
        action_freq=recipe.action_freq,
    )
    local = shifted_rows(rows, -shift, recipe.strategy)
    actions = gather_chunks(block.columns[recipe.action], local, recipe.strategy)
    states = block.columns[recipe.state][anchors - shift]
    return subtract_state(actions, states, recipe.delta_map)
