"""How each dataset of a mixture is made into normalized chunks: columns, rates, ranges."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.errors import ConfigError, DataError, MetadataError, PrepError
from opentau_prep.frames.chunks import (
    ResampleStrategy,
    chunk_rows,
    gather_chunks,
    shifted_rows,
    subtract_state,
)
from opentau_prep.frames.delta import entry_delta_map
from opentau_prep.heads.build import build_norm_heads
from opentau_prep.heads.members import read_members
from opentau_prep.heads.options import HeadOptions
from opentau_prep.metadata.resolve import warn_vqa
from opentau_prep.notices import collect_notices, shorten_names, warn

if TYPE_CHECKING:
    from opentau_prep.heads.members import HeadMember
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.normalization import Convention
    from opentau_prep.tokenizer.options import FitOptions

__all__ = ["ActionFrames", "ActionHeads", "ChunkRecipe", "action_heads", "chunk_recipes"]

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]


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

    def select(self, frames: Mapping[str, npt.NDArray[Any]]) -> ActionFrames:
        """Return the dims of read columns that are kept.

        Raises:
            DataError: A selected dim does not exist, or the actions are not as wide as their stats.
        """
        actions = _indexed(frames[self.actions], self.action_index, self.actions)
        if actions.shape[1] != self.width:
            raise DataError(
                f"the actions have {actions.shape[1]} dims, but their stats have {self.width}",
                where=f"column {self.actions}",
                hint="Recompute the stats of this dataset with --force.",
            )
        if self.state is None:
            return ActionFrames(actions, None)
        return ActionFrames(actions, _indexed(frames[self.state], self.state_index, self.state))

    def normalized(
        self, frames: ActionFrames, start: IntArray, first: IntArray, end: IntArray, shift: IntArray
    ) -> npt.NDArray[np.float32]:
        """Return the (n, T, D) normalized chunks that start at some rows; D is `action_dim`.

        Args:
            frames: Actions, and the state where they are relative to it.
            start: (n,) start rows among the selected episodes, concatenated in order.
            first: (n,) the episode's first row there.
            end: (n,) one past its last row there.
            shift: (n,) what is added to such a row to get a row of `frames`.
        """
        soft = chunk_rows(
            start,
            first,
            end,
            chunk_size=self.chunk_size,
            fps=self.fps,
            action_freq=self.action_freq,
        )
        chunks = gather_chunks(
            frames.actions, shifted_rows(soft, shift, self.strategy), self.strategy
        )
        if frames.state is not None:
            chunks = subtract_state(chunks, frames.state[start + shift], self.delta_map)
        if chunks.shape[2] != self.action_dim or chunks.dtype != np.float32:
            kept = min(self.width, self.action_dim)
            padded = np.zeros((*chunks.shape[:2], self.action_dim), dtype=np.float32)
            with np.errstate(over="ignore"):  # too large for float32: infinite, and so left out
                padded[..., :kept] = chunks[..., :kept]
            chunks = padded
        return self.convention.normalize(chunks, *self.stats)


@dataclass(frozen=True)
class ActionFrames:
    """Rows of frames: (R, width) actions, and the (R, S) state where they are relative to it."""

    actions: npt.NDArray[Any]
    state: npt.NDArray[Any] | None


@dataclass(frozen=True)
class ActionHeads:
    """The norm heads of a mixture, as far as actions go.

    Attributes:
        members: The datasets, in mixture order.
        keys: Key of each head, by row.
        rows: The head of each dataset.
        convention: How the policy normalizes.
        stats: The two stats it takes, each (D,), of each head.
        whole: The same for all of them together; None unless those are min and max.
        per_head: Whether each dataset is normalized with its own head's.
    """

    members: Sequence[HeadMember]
    keys: Sequence[str]
    rows: Sequence[int]
    convention: Convention
    stats: Sequence[Pair]
    whole: Pair | None
    per_head: bool

    def stats_of(self, dataset: int) -> Pair:
        """Return the two stats that a dataset is normalized with."""
        if self.whole is not None and not self.per_head:
            return self.whole
        return self.stats[self.rows[dataset]]

    def half_ranges(self, dataset: int) -> npt.NDArray[np.float64]:
        """Return the native size of 1 in normalized units, of each dim that is not padding."""
        _, half = self.convention.affine(*self.stats_of(dataset))
        return half[: self.members[dataset].raw_dims[1]]

    @property
    def sha256(self) -> str:
        """A hash over what all datasets are normalized with."""
        digest = hashlib.sha256()
        for dataset in range(len(self.rows)):
            for side in self.stats_of(dataset):
                digest.update(np.asarray(side, dtype=np.float32).tobytes())
        return digest.hexdigest()

    def stats_json(self) -> dict[str, Mapping[str, Any]]:
        """Return head key -> stat name -> values, JSON-ready."""
        names = self.convention.stat_names
        return {
            key: dict(zip(names, pair, strict=True))
            for key, pair in zip(self.keys, self.stats, strict=True)
        }


def action_heads(
    resolved: ResolvedMixture, options: FitOptions, *, artifact_root: Path | None
) -> ActionHeads:
    """Return what the actions of each dataset are normalized with.

    With `options.truncate_dims`, dims beyond `options.action_dim` are cut off, with a notice that
    names datasets and widths.

    Raises:
        ConfigError: Heads cannot be built; see `mixture_norm_heads`. Or the datasets' delta
            maps do not go together; see `mixture_delta_map`. Or actions are wider than
            `options.action_dim`.
        MetadataError: Stats of datasets cannot be used; all of them are named.
    """
    if not resolved.entries:
        raise ConfigError(
            "there is no robot dataset in the mixture, so there are no actions",
            where=resolved.mixture.where("datasets"),
        )
    heads_options = HeadOptions(
        max_state_dim=_state_width(resolved),
        max_action_dim=options.action_dim,
        truncate_dims=options.truncate_dims,
        chunk_size=options.chunk_size,
    )
    warn_vqa(resolved.vqa)
    members = read_members(resolved, heads_options, artifact_root=artifact_root)
    # As `mixture_norm_heads`, without its look at quantiles, which have no part in this.
    built = build_norm_heads(
        dataset_names=[member.name for member in members],
        per_dataset_stats=[member.stats for member in members],
        metadatas=members,
        raw_dims=[member.raw_dims for member in members],
    )
    convention = options.convention
    stats = [
        _picked(convention, key, head["actions"])
        for key, head in zip(built.norm_keys, built.per_norm_key_stats, strict=True)
    ]
    whole = None
    if convention.mode == "MIN_MAX":
        whole = (
            np.min([np.asarray(lo, dtype=np.float64) for lo, _ in stats], axis=0),
            np.max([np.asarray(hi, dtype=np.float64) for _, hi in stats], axis=0),
        )
    rows = [built.dataset_to_norm_index[member.name] for member in members]
    per_head = options.per_head_norm
    return ActionHeads(members, built.norm_keys, rows, convention, stats, whole, per_head)


def _indexed(
    matrix: npt.NDArray[Any], index: tuple[int, ...] | None, column: str
) -> npt.NDArray[Any]:
    if index is None:
        return matrix
    beyond = [i for i in index if i >= matrix.shape[1]]
    if beyond:
        raise DataError(
            f"has {matrix.shape[1]} dims, not the selected {beyond}", where=f"column {column}"
        )
    return matrix[:, list(index)]


def _picked(convention: Convention, key: str, stats: Mapping[str, Any]) -> Pair:
    try:
        first, second = convention.pick(stats)
    except MetadataError as error:
        raise MetadataError(
            error.message, where=f"actions of head {key}", hint=error.hint
        ) from error
    return np.asarray(first), np.asarray(second)


def chunk_recipes(
    resolved: ResolvedMixture,
    heads: ActionHeads,
    options: FitOptions,
    scales: tuple[float, ...],
) -> list[ChunkRecipe]:
    """Return how the chunks of each dataset are made, in mixture order.

    Raises:
        ConfigError: A delta map names columns that the selections drop.
        MetadataError: A dataset does not say its frame rate.
    """
    recipes = [
        _recipe(resolved, heads, dataset, options, scales) for dataset in range(len(heads.members))
    ]
    _say_absolute(resolved, recipes)
    return recipes


def _recipe(
    resolved: ResolvedMixture,
    heads: ActionHeads,
    dataset: int,
    options: FitOptions,
    scales: tuple[float, ...],
) -> ChunkRecipe:
    member = heads.members[dataset]
    entry, config = member.entry, member.entry.config
    delta_map = entry_delta_map(config)
    return ChunkRecipe(
        actions=entry.name_map.columns["actions"],
        state=entry.name_map.columns["state"] if delta_map else None,
        action_index=config.action_index,
        state_index=config.state_index,
        delta_map=delta_map,
        width=member.raw_dims[1],
        chunk_size=options.chunk_size,
        action_dim=options.action_dim,
        fps=entry.meta.fps,
        action_freq=resolved.mixture.action_freq,
        strategy=resolved.mixture.vector_resample_strategy,
        convention=heads.convention,
        stats=heads.stats_of(dataset),
        scales=scales,
    )


def _say_absolute(resolved: ResolvedMixture, recipes: Sequence[ChunkRecipe]) -> None:
    words = []
    for entry, recipe in zip(resolved.entries, recipes, strict=True):
        absolute = [d for d in range(recipe.width) if d not in recipe.delta_map]
        if recipe.delta_map and absolute:
            words.append(f"{entry.name} (dims {', '.join(map(str, absolute))})")
    if words:
        shown, suffix = shorten_names(words)
        warn(
            "absolute_dims",
            "action dims that delta_action_state_map does not name stay absolute:"
            f" {', '.join(shown)}{suffix}",
            datasets=words,
        )


def _state_width(resolved: ResolvedMixture) -> int:
    """Return a width that no state exceeds: it has no part in actions, and must not be cut."""
    widths = [1]
    for entry in resolved.entries:
        column = entry.name_map.columns.get("state", "")
        feature = entry.meta.features.get(column)
        widths.append(int(np.prod(feature.shape)) if feature is not None and feature.shape else 1)
        index = entry.config.state_index
        if index:
            widths.append(len(index))
        # What is wrong with the stats is decided by the heads, which read them next.
        with contextlib.suppress(PrepError), collect_notices():
            stats = entry.stats_of([column]).get(column, {})
            widths.append(int(np.size(stats.get("mean", 0))))
    return max(widths)
