"""One job of sampling: from some data files of a dataset to quantized chunks.

A job reads each of its files once, and of each chunk it keeps only the whole numbers: what goes
back to the main process is a tenth of what passed through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import DataError
from opentau_prep.frames.chunks import (
    ResampleStrategy,
    chunk_rows,
    gather_chunks,
    shifted_rows,
    subtract_state,
)
from opentau_prep.frames.read import FrameBlock, read_part
from opentau_prep.tokenizer.evaluate import ErrorSums, error_sums
from opentau_prep.tokenizer.plan import Draws
from opentau_prep.tokenizer.quantize import dequantize, quantize

if TYPE_CHECKING:
    from opentau_prep.frames.rows import DataPart
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.normalization import Convention
    from opentau_prep.storage import Storage

__all__ = ["ChunkRecipe", "SampleJob", "Sampled", "sample_files"]

_BLOCK_CHUNKS = 512
_BLOCK_ROWS = 200_000


@dataclass(frozen=True)
class ChunkRecipe:
    """How a dataset's frames become normalized chunks.

    Attributes:
        actions: The action column.
        state: The state column where actions are relative to it; else None.
        action_index: Columns of the actions to keep, or None.
        state_index: Columns of the state to keep, or None.
        delta_map: Action dim -> state dim that is subtracted, both after that selection.
        width: Action dims that there are after the selection.
        chunk_size: Steps per chunk, T.
        action_dim: Width to pad or cut to, D.
        fps: Frame rate, Hz.
        action_freq: Control rate, Hz; None means `fps`.
        strategy: How steps between two frames are made.
        convention: How the policy normalizes.
        stats: The two stats it takes, (D,) each.
        scales: Quantization scales; the chunks are quantized with each of them.
    """

    actions: str
    state: str | None
    action_index: tuple[int, ...] | None
    state_index: tuple[int, ...] | None
    delta_map: Mapping[int, int]
    width: int
    chunk_size: int
    action_dim: int
    fps: float
    action_freq: float | None
    strategy: ResampleStrategy
    convention: Convention
    stats: tuple[npt.NDArray[Any], npt.NDArray[Any]]
    scales: tuple[float, ...]

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [self.actions] if self.state is None else [self.actions, self.state]


@dataclass(frozen=True)
class SampleJob:
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
class Sampled:
    """The chunks of a job.

    Attributes:
        dataset: As in the job.
        slot: (m,) int64, slots of the chunks that hold finite numbers; m <= n.
        values: (m, T * D) int16 or int32 whole numbers for each scale.
        errors: What quantization loses of the held-out ones, for each scale; None without any.
        n_left_out: Chunks to fit on, and held-out ones, that do not hold finite numbers.
        wrong_lengths: Episodes whose files have another length than the episodes table says.
    """

    dataset: int
    slot: IntArray
    values: tuple[npt.NDArray[np.integer[Any]], ...]
    errors: tuple[ErrorSums | None, ...]
    n_left_out: tuple[int, int]
    wrong_lengths: tuple[int, ...]


def sample_files(job: SampleJob) -> Sampled:
    """Return the quantized chunks of a job.

    Raises:
        DataError: A file cannot be read or lacks a column, the actions have another width than
            their stats, or a value is too large for a token.
    """
    parts: list[_Chunks] = []
    wrong: list[int] = []
    for frames in _merged_blocks(job):
        wrong += frames.episodes[frames.lengths != frames.promised].tolist()
        at = np.searchsorted(frames.episodes, job.draws.episode)
        at[at == len(frames.episodes)] = 0
        mine = np.flatnonzero(frames.episodes[at] == job.draws.episode)
        for i in range(0, len(mine), _BLOCK_CHUNKS):
            keep = mine[i : i + _BLOCK_CHUNKS]
            parts.append(_make(job, frames, job.draws.take(keep), at[keep]))
    return _collected(job, parts, wrong)


@dataclass(frozen=True)
class _Frames:
    """Rows of some whole episodes, which are in increasing order."""

    actions: npt.NDArray[Any]
    state: npt.NDArray[Any] | None
    episodes: IntArray
    first: IntArray
    lengths: IntArray
    promised: IntArray


@dataclass(frozen=True)
class _Chunks:
    slot: IntArray
    values: tuple[npt.NDArray[np.integer[Any]], ...]
    errors: tuple[ErrorSums | None, ...]
    n_left_out: tuple[int, int]


def _merged_blocks(job: SampleJob) -> Iterator[_Frames]:
    """Read the files; small ones are put together, since a gather costs as much for few rows."""
    waiting: list[FrameBlock] = []
    rows = 0
    for part in job.parts:
        for block in read_part(job.storage, part, job.recipe.columns):
            waiting.append(block)
            rows += block.n_frames
            if rows >= _BLOCK_ROWS:
                yield _merge(job, waiting)
                waiting, rows = [], 0
    if waiting:
        yield _merge(job, waiting)


def _merge(job: SampleJob, blocks: Sequence[FrameBlock]) -> _Frames:
    recipe = job.recipe
    offsets = np.cumsum([0, *(block.n_frames for block in blocks[:-1])])
    spans = np.concatenate([b.spans + o for b, o in zip(blocks, offsets, strict=True)])
    episodes = np.concatenate([block.episode_index for block in blocks])
    promised = np.concatenate([block.lengths for block in blocks])
    order = np.argsort(episodes, kind="stable")
    actions = _selected(job, blocks, recipe.actions, recipe.action_index)
    if actions.shape[1] != recipe.width:
        raise DataError(
            f"the actions have {actions.shape[1]} dims, but their stats have {recipe.width}",
            where=f"{job.storage.url}, column {recipe.actions}",
            hint="Recompute the stats: `opentau-prep stats`.",
        )
    state = None
    if recipe.state is not None:
        state = _selected(job, blocks, recipe.state, recipe.state_index)
    lengths = spans[:, 1] - spans[:, 0]
    return _Frames(
        actions, state, episodes[order], spans[order, 0], lengths[order], promised[order]
    )


def _selected(
    job: SampleJob, blocks: Sequence[FrameBlock], column: str, index: tuple[int, ...] | None
) -> npt.NDArray[Any]:
    matrices = [block.columns[column] for block in blocks]
    widths = {matrix.shape[1] for matrix in matrices}
    where = f"{job.storage.url}, column {column}"
    if len(widths) > 1:
        raise DataError(f"has different widths {sorted(widths)}", where=where)
    matrix = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
    if index is None:
        return matrix
    beyond = [i for i in index if i >= matrix.shape[1]]
    if beyond:
        raise DataError(f"has {matrix.shape[1]} dims, not the selected {beyond}", where=where)
    return matrix[:, list(index)]


def _make(job: SampleJob, frames: _Frames, draws: Draws, at: IntArray) -> _Chunks:
    recipe = job.recipe
    native = _padded(recipe, _native_chunks(recipe, frames, draws, at))
    normal = recipe.convention.normalize(native, *recipe.stats)
    held = draws.slot >= job.n_fit
    slot = draws.slot
    left_out = (0, 0)
    if not np.isfinite(normal).all():
        finite = np.isfinite(normal).all(axis=(1, 2))
        left_out = (int(np.sum(~finite & ~held)), int(np.sum(~finite & held)))
        native, normal, held, slot = native[finite], normal[finite], held[finite], slot[finite]
    values = tuple(_narrow(quantize(normal, scale)) for scale in recipe.scales)
    errors = tuple(
        _errors(recipe, scale, native[held], normal[held], found[held])
        for scale, found in zip(recipe.scales, values, strict=True)
    )
    return _Chunks(slot, values, errors, left_out)


def _native_chunks(
    recipe: ChunkRecipe, frames: _Frames, draws: Draws, at: IntArray
) -> npt.NDArray[Any]:
    """Return (n, T, width) actions in dataset units."""
    # A file that is shorter than the table says ends where it ends.
    end = np.minimum(draws.end, draws.first + frames.lengths[at])
    start = np.minimum(draws.start, end - 1)
    soft = chunk_rows(
        start,
        draws.first,
        end,
        chunk_size=recipe.chunk_size,
        fps=recipe.fps,
        action_freq=recipe.action_freq,
    )
    shift = frames.first[at] - draws.first
    local = shifted_rows(soft, shift, recipe.strategy)
    chunks = gather_chunks(frames.actions, local, recipe.strategy)
    if frames.state is None:
        return chunks
    return subtract_state(chunks, frames.state[start + shift], recipe.delta_map)


def _padded(recipe: ChunkRecipe, chunks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    kept = min(recipe.width, recipe.action_dim)
    if chunks.shape[2] == recipe.action_dim and chunks.dtype == np.float32:
        return chunks
    padded = np.zeros((*chunks.shape[:2], recipe.action_dim), dtype=np.float32)
    with np.errstate(over="ignore"):  # too large for float32: infinite, and so left out
        padded[..., :kept] = chunks[..., :kept]
    return padded


def _narrow(values: npt.NDArray[np.int32]) -> npt.NDArray[np.integer[Any]]:
    limits = np.iinfo(np.int16)
    if not values.size or (values.min() >= limits.min and values.max() <= limits.max):
        return values.astype(np.int16)
    return values


def _errors(
    recipe: ChunkRecipe,
    scale: float,
    native: npt.NDArray[np.float32],
    normal: npt.NDArray[np.float32],
    values: npt.NDArray[np.integer[Any]],
) -> ErrorSums | None:
    if not len(values):
        return None
    steps, dims = recipe.chunk_size, recipe.action_dim
    decoded = dequantize(values, scale, time_horizon=steps, action_dim=dims)
    restored = recipe.convention.unnormalize(decoded, *recipe.stats)
    kept = min(recipe.width, dims)
    return ErrorSums(
        error_sums(normal, decoded), error_sums(native[..., :kept], restored[..., :kept])
    )


def _collected(job: SampleJob, parts: Sequence[_Chunks], wrong: Sequence[int]) -> Sampled:
    n_scales = len(job.recipe.scales)
    length = job.recipe.chunk_size * job.recipe.action_dim
    empty = [np.zeros((0, length), dtype=np.int16)]
    return Sampled(
        dataset=job.dataset,
        slot=np.concatenate([np.zeros(0, dtype=np.int64), *(part.slot for part in parts)]),
        values=tuple(
            np.concatenate([part.values[i] for part in parts] or empty) for i in range(n_scales)
        ),
        errors=tuple(ErrorSums.total(part.errors[i] for part in parts) for i in range(n_scales)),
        n_left_out=(
            sum(part.n_left_out[0] for part in parts),
            sum(part.n_left_out[1] for part in parts),
        ),
        wrong_lengths=tuple(wrong),
    )
