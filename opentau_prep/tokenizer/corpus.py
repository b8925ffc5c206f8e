"""Sampling a mixture: the quantized chunks of all its datasets, in mixture order.

A job reads each of its files once, and of each chunk it keeps the whole numbers, and of held-out
chunks the normalized actions as well. The corpus is allocated once, and every job's chunks are put
where they belong, whichever finishes first: the same seed gives the same corpus for any number of
workers and on any engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.engine import Failure
from opentau_prep.errors import DataError
from opentau_prep.frames.read import merge_blocks, read_part
from opentau_prep.frames.rows import DataPart, data_parts
from opentau_prep.notices import some_names, warn
from opentau_prep.storage.urls import shell_command
from opentau_prep.text import several
from opentau_prep.tokenizer.plan import Draws
from opentau_prep.tokenizer.quantize import quantize
from opentau_prep.tokenizer.recipes import ActionFrames, ChunkRecipe

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.storage import Storage
    from opentau_prep.tokenizer.plan import DatasetPlan

__all__ = ["Corpus", "sample_corpus"]

Values = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]

_JOB_FILES = 100
_JOB_CHUNKS = 4_000
# Below this, starting processes costs more than the work: bench_tokenizer.py.
_SMALL_FILES = 200
_SMALL_CHUNKS = 40_000
_BLOCK_CHUNKS = 512
_BLOCK_ROWS = 200_000


@dataclass(frozen=True)
class Corpus:
    """Quantized chunks in mixture order; R of them, H of these held out.

    Attributes:
        values: (R, T * D) int16 or int32 for each scale.
        dataset: (R,) int64, position of each chunk's dataset among the plans.
        is_held: (R,) whether it is held out.
        in_share: (R,) whether it is held out and counts for its dataset in the mixture's
            proportions; those that are there only to measure a small dataset do not.
        normal: (H, T, D) float32, the held-out chunks before they are quantized.
        n_left_out: Chunks without finite numbers, by dataset.
        failures: Datasets that could not be sampled.
    """

    values: tuple[Values, ...]
    dataset: npt.NDArray[np.int64]
    is_held: npt.NDArray[np.bool_]
    in_share: npt.NDArray[np.bool_]
    normal: Floats
    n_left_out: tuple[int, ...]
    failures: tuple[Failure, ...]

    def counts(self, n_datasets: int) -> list[int]:
        """Return how many chunks there are to fit on, by dataset."""
        found = np.bincount(self.dataset[~self.is_held], minlength=n_datasets)
        return [int(count) for count in found]


@dataclass(frozen=True)
class _Job:
    """Chunks to take from some files of one dataset.

    Attributes:
        dataset: Its position among the datasets.
        name: Its name.
        storage: Where its files are.
        parts: The files, and the episodes in them.
        draws: The chunks; n of them.
        n_fit: Slots from this one on hold held-out chunks.
        recipe: How they are made.
    """

    dataset: int
    name: str
    storage: Storage
    parts: Sequence[DataPart]
    draws: Draws
    n_fit: int
    recipe: ChunkRecipe


@dataclass(frozen=True)
class _Sampled:
    """The chunks of a job.

    Attributes:
        dataset: As in the job.
        slot: (m,) int64, slots of the chunks that hold finite numbers; m <= n.
        values: (m, T * D) int16 or int32 whole numbers for each scale.
        normal: (h, T, D) float32, the held-out ones before they are quantized.
        n_left_out: Chunks to fit on, and held-out ones, that do not hold finite numbers.
        wrong_lengths: Episodes whose files have another length than the episodes table says.
    """

    dataset: int
    slot: IntArray
    values: tuple[Values, ...]
    normal: Floats
    n_left_out: tuple[int, int]
    wrong_lengths: tuple[int, ...]


def sample_corpus(
    plans: Sequence[DatasetPlan], recipes: Sequence[ChunkRecipe], context: RunContext
) -> Corpus:
    """Read the planned chunks of all datasets.

    Memory is that of the chunks as int16, where their numbers fit, else int32.

    Args:
        plans: What to take, by dataset.
        recipes: How chunks are made, by dataset; all have the same shape and scales.
        context: How to run.

    Raises:
        PrepError: A dataset cannot be read, and `context.keep_going` is off.
    """
    jobs: list[_Job] = []
    failures: dict[int, Failure] = {}
    for i, (plan, recipe) in enumerate(zip(plans, recipes, strict=True)):
        jobs += _jobs(i, plan, recipe)
    n_files = sum(len(job.parts) for job in jobs)
    n_chunks = sum(len(job.draws.slot) for job in jobs)
    small = n_files <= _SMALL_FILES and n_chunks <= _SMALL_CHUNKS
    results = context.map(
        "sampling chunks",
        _sample_files,
        jobs,
        [job.name for job in jobs],
        items_per_worker=len(jobs) if small else 1,
    )
    sampled: list[_Sampled] = []
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, Failure):
            failures.setdefault(job.dataset, result)
        else:
            sampled.append(result)
    _say_wrong_lengths(plans, sampled)
    return _assembled(plans, recipes, sampled, failures, context.keep_going)


def _jobs(dataset: int, plan: DatasetPlan, recipe: ChunkRecipe) -> list[_Job]:
    """Cut a dataset's work into jobs at file boundaries, so that no file is read twice."""
    needed = np.unique(plan.draws.episode)
    if not len(needed):
        return []
    meta = plan.entry.meta
    by_episode = np.sort(plan.draws.episode)
    groups: list[list[DataPart]] = [[]]
    n_chunks = 0
    for part in data_parts(meta, needed.tolist()):
        if len(groups[-1]) >= _JOB_FILES or n_chunks >= _JOB_CHUNKS:
            groups.append([])
            n_chunks = 0
        groups[-1].append(part)
        edges = [np.searchsorted(by_episode, part.episodes, side=s) for s in ("left", "right")]
        n_chunks += int((edges[1] - edges[0]).sum())
    jobs = []
    for group in groups:
        mine = np.isin(plan.draws.episode, np.concatenate([part.episodes for part in group]))
        draws = plan.draws.take(np.flatnonzero(mine))
        jobs.append(_Job(dataset, plan.entry.name, meta.storage, group, draws, plan.n_fit, recipe))
    return jobs


def _sample_files(job: _Job) -> _Sampled:
    """Return the quantized chunks of a job.

    Raises:
        DataError: A file cannot be read or lacks a column, the actions have another width than
            their stats, or a value is too large for a token.
    """
    slots: list[IntArray] = [np.zeros(0, dtype=np.int64)]
    normals: list[Floats] = []
    n_scales, length = len(job.recipe.scales), job.recipe.chunk_size * job.recipe.action_dim
    values: list[list[Values]] = [[np.zeros((0, length), np.int16)] for _ in range(n_scales)]
    left_out = np.zeros(2, dtype=np.int64)
    wrong: list[int] = []
    for frames in _frames(job):
        wrong += frames.episodes[frames.lengths != frames.promised].tolist()
        at = np.searchsorted(frames.episodes, job.draws.episode)
        at[at == len(frames.episodes)] = 0
        mine = np.flatnonzero(frames.episodes[at] == job.draws.episode)
        for i in range(0, len(mine), _BLOCK_CHUNKS):
            keep = mine[i : i + _BLOCK_CHUNKS]
            draws = job.draws.take(keep)
            normal = _chunks(job.recipe, frames, draws, at[keep])
            slot, held = draws.slot, draws.slot >= job.n_fit
            if not np.isfinite(normal).all():
                finite = np.isfinite(normal).all(axis=(1, 2))
                left_out += (np.sum(~finite & ~held), np.sum(~finite & held))
                normal, slot, held = normal[finite], slot[finite], held[finite]
            slots.append(slot)
            normals.append(normal[held])
            for own, scale in zip(values, job.recipe.scales, strict=True):
                own.append(_narrow(quantize(normal, scale)))
    return _Sampled(
        dataset=job.dataset,
        slot=np.concatenate(slots),
        values=tuple(np.concatenate(own) for own in values),
        normal=np.concatenate(normals) if normals else np.zeros((0, 1, 1), dtype=np.float32),
        n_left_out=(int(left_out[0]), int(left_out[1])),
        wrong_lengths=tuple(wrong),
    )


@dataclass(frozen=True)
class _Frames:
    """Rows of some whole episodes, which are in increasing order."""

    rows: ActionFrames
    episodes: IntArray
    first: IntArray
    lengths: IntArray
    promised: IntArray


def _frames(job: _Job) -> Iterator[_Frames]:
    """Read the files; small ones are put together, since a gather costs as much for few rows."""
    names = job.recipe.columns
    blocks = (b for part in job.parts for b in read_part(job.storage, part, names))
    for block in merge_blocks(blocks, _BLOCK_ROWS):
        try:
            rows = job.recipe.select(block.columns)
        except DataError as error:
            raise DataError(
                error.message, where=f"{job.storage.url}, {error.where}", hint=error.hint
            ) from error
        order = np.argsort(block.episode_index, kind="stable")
        spans = block.spans[order]
        yield _Frames(
            rows,
            block.episode_index[order],
            spans[:, 0],
            spans[:, 1] - spans[:, 0],
            block.lengths[order],
        )


def _chunks(recipe: ChunkRecipe, frames: _Frames, draws: Draws, at: IntArray) -> Floats:
    # A file that is shorter than the table says ends where it ends.
    end = np.minimum(draws.end, draws.first + frames.lengths[at])
    start = np.minimum(draws.start, end - 1)
    shift = frames.first[at] - draws.first
    return recipe.normalized(frames.rows, start, draws.first, end, shift)


def _narrow(values: npt.NDArray[np.int32]) -> Values:
    limits = np.iinfo(np.int16)
    if not values.size or (values.min() >= limits.min and values.max() <= limits.max):
        return values.astype(np.int16)
    return values


def _assembled(
    plans: Sequence[DatasetPlan],
    recipes: Sequence[ChunkRecipe],
    sampled: Sequence[_Sampled],
    failures: dict[int, Failure],
    keep_going: bool,
) -> Corpus:
    sizes = [plan.n_fit + plan.n_held for plan in plans]
    first = np.cumsum([0, *sizes])
    there = np.zeros(first[-1], dtype=np.bool_)
    n_left_out = np.zeros((len(plans), 2), dtype=np.int64)
    for part in sampled:
        there[first[part.dataset] + part.slot] = part.dataset not in failures
        n_left_out[part.dataset] += part.n_left_out
    failures.update(_all_left_out(plans, first, there, n_left_out))
    if failures and not keep_going:
        raise failures[min(failures)].error
    slot = np.concatenate([np.arange(size) for size in sizes])
    n_fit = np.repeat([plan.n_fit for plan in plans], sizes)
    n_share = np.repeat([plan.n_fit + plan.n_share for plan in plans], sizes)
    is_held = slot >= n_fit
    place = np.cumsum(there) - 1
    held_place = np.cumsum(there & is_held) - 1
    recipe = recipes[0]
    wide = any(values.dtype != np.int16 for part in sampled for values in part.values)
    shape = (int(there.sum()), recipe.chunk_size * recipe.action_dim)
    values = [np.zeros(shape, dtype=np.int32 if wide else np.int16) for _ in recipe.scales]
    normal = np.zeros(
        (int((there & is_held).sum()), recipe.chunk_size, recipe.action_dim), dtype=np.float32
    )
    for part in sampled:
        if part.dataset not in failures:
            at = first[part.dataset] + part.slot
            for placed, own in zip(values, part.values, strict=True):
                placed[place[at]] = own
            normal[held_place[at[is_held[at]]]] = part.normal
    _say_left_out(plans, n_left_out)
    return Corpus(
        values=tuple(values),
        dataset=np.repeat(np.arange(len(plans)), sizes)[there],
        is_held=is_held[there],
        in_share=(is_held & (slot < n_share))[there],
        normal=normal,
        n_left_out=tuple(int(n) for n in n_left_out.sum(axis=1)),
        failures=tuple(failures[i] for i in sorted(failures)),
    )


def _all_left_out(
    plans: Sequence[DatasetPlan],
    first: npt.NDArray[np.int64],
    there: npt.NDArray[np.bool_],
    n_left_out: npt.NDArray[np.int64],
) -> dict[int, Failure]:
    found = {}
    for i, plan in enumerate(plans):
        lost = int(n_left_out[i, 0])
        if lost and lost == plan.n_fit and not there[first[i] : first[i] + plan.n_fit].any():
            error = DataError(
                f"every one of {lost:,} sampled action chunks holds values that are not finite",
                where=plan.entry.name,
                hint="Look at the actions:"
                f" `{shell_command('validate', [plan.entry.meta.root], '--deep')}`.",
            )
            found[i] = Failure(plan.entry.name, error)
    return found


def _say_left_out(plans: Sequence[DatasetPlan], n_left_out: npt.NDArray[np.int64]) -> None:
    for plan, counts in zip(plans, n_left_out, strict=True):
        total = plan.n_fit + plan.n_held
        if counts.any():
            warn(
                "chunks_left_out",
                f"{plan.entry.name}: {int(counts.sum()):,} of {total:,} sampled action chunks hold"
                " values that are not finite and were left out; training would see them",
                dataset=plan.entry.name,
                chunks=int(counts.sum()),
            )


def _say_wrong_lengths(plans: Sequence[DatasetPlan], sampled: Sequence[_Sampled]) -> None:
    wrong: dict[int, list[int]] = {}
    for part in sampled:
        wrong.setdefault(part.dataset, []).extend(part.wrong_lengths)
    for dataset, episodes in wrong.items():
        if episodes:
            name = plans[dataset].entry.name
            warn(
                "episode_lengths_differ",
                f"{name}: {several(len(episodes), 'episode')} ({some_names(episodes)}) with another"
                " number of rows than the episodes table says; their chunks end where the rows end",
                dataset=name,
                episodes=episodes,
            )
