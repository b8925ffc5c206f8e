"""Stats of actions as they are trained: whole chunks, minus the state at their start.

Training estimates them per data file: a running mean that is fed episode by episode, quantiles from
a histogram over the file's range, and the files' results pooled by their counts. Order and size of
what is fed, and the layout in memory, decide the last bits; so they are training's here.

Source: OpenTau 0b153a9, datasets/delta_action_stats.py, pinned by recorded values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.artifacts import Recipe
from opentau_prep.artifacts.store import Inspection, inspect
from opentau_prep.engine import Failure
from opentau_prep.errors import ColumnIndexError, ConfigError, DataError
from opentau_prep.frames.chunks import chunk_rows, nearest_rows
from opentau_prep.frames.columns import is_vector
from opentau_prep.frames.delta import resolve_delta_map
from opentau_prep.frames.rows import DataPart, data_parts, episode_rows
from opentau_prep.frames.window import to_matrices
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.pooling import aggregate_stats
from opentau_prep.stats.binning import ColumnHistogram
from opentau_prep.stats.delta import (
    ESTIMATOR,
    DeltaRecipe,
    DeltaStats,
    delta_place,
    delta_recipe,
)
from opentau_prep.stats.options import StatsRun
from opentau_prep.stats.report import DeltaResult
from opentau_prep.stats.sketch import QuantileSketch, SketchTree

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.storage import Storage

__all__ = ["compute_delta_stats", "inspect_delta", "prepare_delta"]

Matrix = NDArray[np.float64]
FileStats = dict[str, dict[str, NDArray[Any]]]

# Part of the answer, like the bins: chunks that are fed to the running mean at a time.
_ANCHORS_FED = 4096
# OpenTau's: its quantiles are edges of so many bins between the extremes.
_BINS = 5000
_SKETCHED_AT_A_TIME = 1 << 20


def prepare_delta(
    resolved: ResolvedMixture, context: RunContext, run: StatsRun
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
    entry: ResolvedEntry, recipe: DeltaRecipe, *, chunk_size: int
) -> DeltaStats:
    """Compute the stats of an entry's delta actions, and of its state, as training does.

    Every selected frame starts a chunk (with `recipe.max_rows`, every n-th one of each data file);
    steps past the episode's end repeat its last frame. A data file with one chunk start is left
    out.

    Memory: state and actions of one data file in float64, and a few thousand chunks.

    Args:
        entry: The entry.
        recipe: What its delta actions are.
        chunk_size: Steps per chunk.

    Raises:
        DataError: Frames cannot be read, state or actions are no vectors, or there are too few.
        ConfigError: The map or an index names dims that the columns do not have.
    """
    storage = entry.meta.storage
    parts = data_parts(entry.meta, entry.episodes.tolist())
    budgets = _row_budgets(storage, parts, recipe.max_rows)
    tree = SketchTree()
    found: list[FileStats] = []
    starts = 0
    for part, budget in zip(parts, budgets, strict=True):
        file = _File.read(storage, part, recipe, budget)
        rows = np.concatenate([rows for rows, _, _ in file.anchors] or [np.empty(0, np.int64)])
        if len(rows) < 2:
            continue
        slabs = partial(file.delta_actions, recipe, chunk_size)
        state = partial(iter, [file.state[rows]])
        found.append({"actions": _statistics(slabs), "state": _statistics(state)})
        _sketch(slabs(), tree)
        starts += len(rows)
    sketch = tree.finish()
    if sketch is None:
        raise DataError(
            "no data file has two frames of selected episodes that start a chunk",
            where=entry.meta.root,
            hint="Correct `episodes`, or raise delta_stats_max_rows.",
        )
    return DeltaStats(_pooled(found), sketch, chunk_size, starts)


def _row_budgets(
    storage: Storage, parts: Sequence[DataPart], max_rows: int | None
) -> list[int | None]:
    """Share out the most chunk starts of a dataset among its files, by their selected frames."""
    if max_rows is None:
        return [None] * len(parts)
    sizes = [
        int(np.diff(episode_rows(storage, part, storage.open_parquet(part.rel))).sum())
        for part in parts
    ]
    if sum(sizes) <= max_rows:
        return [None] * len(parts)
    return [max(2, max_rows * size // sum(sizes)) for size in sizes]


@dataclass(frozen=True)
class _File:
    """One data file: state and actions, and where chunks start.

    Attributes:
        state: (R, S) float64, the selected columns.
        actions: (R, D) float64, likewise.
        delta_map: Position among the actions -> position in the state.
        anchors: Per episode with chunk starts: their rows, the first row of the episode, and the
            row after its last.
    """

    state: Matrix
    actions: Matrix
    delta_map: Mapping[int, int]
    anchors: list[tuple[NDArray[np.int64], int, int]]

    @classmethod
    def read(
        cls, storage: Storage, part: DataPart, recipe: DeltaRecipe, budget: int | None
    ) -> _File:
        file = storage.open_parquet(part.rel)
        where = f"{storage.url}/{part.rel}"
        names = list(dict.fromkeys([recipe.state, recipe.action]))
        table = storage.read_table(part.rel, names, file=file)
        matrices = to_matrices(table, names, file, storage, part.rel)
        for name in names:
            if not is_vector(table.column(name).type):
                raise DataError(
                    f"column {name!r} holds {table.column(name).type}, and training computes stats"
                    " of delta actions from vectors only",
                    where=where,
                )
        delta_map = resolve_delta_map(
            recipe.delta_map,
            action_index=recipe.action_index,
            state_index=recipe.state_index,
            where=where,
        )
        state = _selected(matrices[recipe.state], recipe.state_index, "state_index", where)
        actions = _selected(matrices[recipe.action], recipe.action_index, "action_index", where)
        _check_map(delta_map, actions.shape[1], state.shape[1], where)
        spans = episode_rows(storage, part, file)
        return cls(state, actions, delta_map, _anchors(np.sort(spans, axis=0), budget))

    def delta_actions(self, recipe: DeltaRecipe, chunk_size: int) -> Iterator[Matrix]:
        """Yield (n, T, D) delta actions, episode by episode."""
        mapped = sorted(self.delta_map)
        states = [self.delta_map[dim] for dim in mapped]
        for rows, first, end in self.anchors:
            for begin in range(0, len(rows), _ANCHORS_FED):
                fed = rows[begin : begin + _ANCHORS_FED]
                soft = chunk_rows(
                    fed,
                    first,
                    end,
                    chunk_size=chunk_size,
                    fps=recipe.fps,
                    action_freq=recipe.action_freq,
                )
                chunks = self._at(soft, recipe.strategy)
                chunks[:, :, mapped] -= self.state[fed][:, None, states]
                yield chunks

    def _at(self, soft: Matrix, strategy: str) -> Matrix:
        if strategy == "nearest":
            nearest: Matrix = self.actions[nearest_rows(soft)]
            return nearest
        below = np.floor(soft)
        weight = (soft - below)[..., None]
        lower = self.actions[below.astype(np.int64)]
        upper = self.actions[np.ceil(soft).astype(np.int64)]
        # One product, where a sample of training has two (`gather_chunks`): the last bit differs.
        between: Matrix = lower + weight * (upper - lower)
        return between


def _selected(
    matrix: NDArray[Any], index: tuple[int, ...] | None, option: str, where: str
) -> Matrix:
    values = matrix.astype(np.float64)
    if index is None:
        return values
    outside = [column for column in index if not 0 <= column < values.shape[1]]
    if outside:
        raise ColumnIndexError(
            f"{option} refers to column(s) {outside}, but there are {values.shape[1]}", where=where
        )
    return values[:, list(index)]


def _check_map(delta_map: Mapping[int, int], actions: int, state: int, where: str) -> None:
    for side, dims, width in (
        ("action", delta_map.keys(), actions),
        ("state", delta_map.values(), state),
    ):
        wrong = [dim for dim in dims if not 0 <= dim < width]
        if wrong:
            raise ConfigError(
                f"delta_action_state_map names {side} dims {wrong}, but there are {width}",
                where=where,
            )


def _anchors(
    spans: NDArray[np.int64], budget: int | None
) -> list[tuple[NDArray[np.int64], int, int]]:
    """Return the rows where chunks start, per episode: all, or every n-th over all episodes."""
    total = int(np.diff(spans).sum())
    stride = 1 if budget is None or total <= budget else -(-total // budget)
    anchors, seen = [], 0
    for first, end in spans.tolist():
        rows = np.arange(first + (-seen) % stride, end, stride, dtype=np.int64)
        seen += end - first
        if len(rows):
            anchors.append((rows, first, end))
    return anchors


@np.errstate(invalid="ignore", over="ignore")
def _statistics(slabs: Callable[[], Iterator[Matrix]]) -> dict[str, NDArray[Any]]:
    """Return the stats of (..., D) slabs, which are gone through twice: range first, then bins."""
    count = 0
    for slab in slabs():
        rows = slab.reshape(-1, slab.shape[-1])
        lows, highs = rows.min(axis=0), rows.max(axis=0)
        means = np.stack([rows.mean(axis=0), np.square(rows).mean(axis=0)])
        if not count:
            low, high, moments = lows, highs, means.copy()
        else:
            low, high = np.minimum(low, lows), np.maximum(high, highs)
        count += len(rows)
        moments += (means - moments) * (len(rows) / count)
    bins = [_histogram(a, b) for a, b in zip(low, high, strict=True)]
    for slab in slabs():
        columns = np.ascontiguousarray(slab.reshape(-1, slab.shape[-1]).T)
        for dim, values in zip(bins, columns, strict=True):
            dim.add(values)
    mean, squares = moments
    stats = {
        "mean": mean,
        "std": np.sqrt(np.maximum(0, squares - mean**2)),
        "min": low,
        "max": high,
    }
    for name, fraction in (("q01", 0.01), ("q99", 0.99)):
        stats[name] = np.array([dim.quantile_edge(fraction * count) for dim in bins])
    kept = {stat: values.astype(np.float32) for stat, values in stats.items()}
    return {**kept, "count": np.array([count], dtype=np.int64)}


def _histogram(low: float, high: float) -> ColumnHistogram | _OpenHistogram:
    kind = ColumnHistogram if np.isfinite(low) and np.isfinite(high) else _OpenHistogram
    return kind(low, high, _BINS, np.dtype(np.float64))


class _OpenHistogram:
    """The histogram of a dim with NaN or infinities: whatever NumPy makes of such edges."""

    def __init__(self, low: float, high: float, num_bins: int, _: np.dtype[Any]) -> None:
        self._edges = np.linspace(low - 1e-10, high + 1e-10, num_bins + 1)
        self._counts = np.zeros(num_bins)

    def add(self, values: NDArray[Any]) -> None:
        self._counts += np.histogram(values, bins=self._edges)[0]

    def quantile_edge(self, target: float) -> Any:
        return self._edges[np.searchsorted(np.cumsum(self._counts), target)]


def _sketch(slabs: Iterator[Matrix], tree: SketchTree) -> None:
    waiting: list[Matrix] = []
    for slab in slabs:
        waiting.append(slab.reshape(-1, slab.shape[-1]))
        if sum(rows.size for rows in waiting) >= _SKETCHED_AT_A_TIME:
            tree.add(QuantileSketch.of(np.concatenate(waiting)))
            waiting = []
    if waiting:
        tree.add(QuantileSketch.of(np.concatenate(waiting)))


def _pooled(found: Sequence[FileStats]) -> FileStats:
    """Return the stats of all files, in float32 as every run of training but the first reads them.

    The first one computes them and goes on with what it pooled, in float64.
    """
    pooled = aggregate_stats(found) if len(found) > 1 else found[0]
    return {
        feature: {
            stat: values if stat == "count" else values.astype(np.float32)
            for stat, values in pooled[feature].items()
        }
        for feature in ("actions", "state")
    }


def _prepare_one(entry: ResolvedEntry, *, mixture: Mixture, run: StatsRun) -> DeltaResult:
    recipe = delta_recipe(entry, mixture)
    size = run.stats.chunk_size
    place = delta_place(entry, recipe, size, run.context.artifact_root)
    made = run.context.ensure_file(
        place,
        lambda: compute_delta_stats(entry, recipe, chunk_size=size).to_bytes(recipe),
        _artifact_recipe(entry, recipe, run),
    )
    stats = DeltaStats.from_bytes(made.content, str(place.path))
    return DeltaResult(
        entry.name, made.outcome.path, made.outcome.status, recipe.action, size, stats.starts
    )


def inspect_delta(entry: ResolvedEntry, mixture: Mixture, run: StatsRun) -> Inspection:
    """Return the state of an entry's artifact in chunks of this run's size; reads no frames."""
    recipe = delta_recipe(entry, mixture)
    place = delta_place(entry, recipe, run.stats.chunk_size, run.context.artifact_root)
    return inspect(place, _artifact_recipe(entry, recipe, run))


def _artifact_recipe(entry: ResolvedEntry, recipe: DeltaRecipe, run: StatsRun) -> Recipe:
    parameters = {
        **recipe.as_json(),
        "chunk_size": run.stats.chunk_size,
        "estimator": ESTIMATOR,
    }
    inputs = describe_inputs(entry.meta, read=run.read_data)
    return Recipe("stats", inputs=inputs, parameters=parameters, partial=not run.read_data)
