"""The few frames that a page shows: episodes of each dataset, and one held-out chunk per head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import PrepError
from opentau_prep.frames.read import read_frames
from opentau_prep.tokenizer.folder import recorded_fit
from opentau_prep.tokenizer.plan import split_episodes
from opentau_prep.tokenizer.quantize import (
    code_points,
    dequantize,
    quantize,
    values_of_code_points,
)
from opentau_prep.tokenizer.recipes import action_heads, chunk_recipes
from opentau_prep.verdict.tokens import check_folder

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.forecast.formulas import Affine
    from opentau_prep.forecast.members import Member
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.tokenizer.recipes import ChunkRecipe

__all__ = ["MAX_CHUNKS", "MAX_DATASETS", "ShownChunk", "ShownEpisode", "chunks", "episodes"]

Floats = NDArray[np.float64]

MAX_DATASETS = 20
MAX_CHUNKS = 6
_EPISODES = 3
_POINTS = 90
# A page reads no file larger than this for a picture.
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class ShownEpisode:
    """One episode, normalized.

    Attributes:
        dataset: The dataset's name.
        episode: Its `episode_index`.
        why: Why it was chosen.
        seconds: Its length.
        values: (P, D) normalized values at up to 90 even steps.
        peaks: (P, D) of each step, the normalized value of the largest size.
    """

    dataset: str
    episode: int
    why: str
    seconds: float
    values: Floats
    peaks: Floats


@dataclass(frozen=True)
class ShownChunk:
    """One action chunk on its way through the tokenizer; T steps, D dims.

    Attributes:
        head: The head's key.
        dataset: The dataset's name.
        episode: Its `episode_index`.
        held_out: Whether the tokenizer was not fitted on it.
        raw: (T, D) normalized actions.
        quantized: (T, D) what its whole numbers decode to.
        decoded: (T, D) what its tokens decode to.
        tokens: How many tokens it takes.
    """

    head: str
    dataset: str
    episode: int
    held_out: bool
    raw: Floats
    quantized: Floats
    decoded: Floats
    tokens: int


def episodes(member: Member, feature: str, affine: Affine) -> list[ShownEpisode]:
    """Return the shortest, a middling and the longest selected episode of a dataset.

    What cannot be read is left out: `validate` says what is wrong with it.
    """
    entry, own = member.entry, member.features[feature]
    try:
        chosen = list(_chosen(entry)) if _is_near(entry) else []
    except PrepError:
        return []
    shown = []
    for position, why in chosen:
        episode = int(entry.episodes[position])
        try:
            block = read_frames(entry.meta, [own.column], [episode])
            values = np.asarray(block.columns[own.column][:, own.index], dtype=np.float64)
            seconds = len(values) / float(entry.meta.fps)
        except (PrepError, IndexError):
            continue
        if len(values):
            normal = affine.normalize(values)
            at = np.unique(np.linspace(0, len(values) - 1, _POINTS).astype(np.intp))
            shown.append(
                ShownEpisode(member.name, episode, why, seconds, normal[at], _peaks(normal, at))
            )
    return shown


def _peaks(values: Floats, at: NDArray[np.intp]) -> Floats:
    """Return for each shown step the value of the largest size until the next one."""
    sizes = np.nan_to_num(np.abs(values))
    out = np.empty((len(at), values.shape[1]))
    for i, (first, last) in enumerate(zip(at, [*at[1:], len(values)], strict=True)):
        rows = first + sizes[first:last].argmax(axis=0)
        out[i] = values[rows, np.arange(values.shape[1])]
    return out


def _chosen(entry: ResolvedEntry) -> Iterator[tuple[int, str]]:
    table = entry.meta.episodes
    lengths = table.length[np.searchsorted(table.episode_index, entry.episodes)]
    order = np.argsort(lengths, kind="stable")
    places = {0: "shortest", len(order) // 2: "median length", len(order) - 1: "longest"}
    for place in sorted(places)[:_EPISODES]:
        yield int(order[place]), places[place]


def _is_near(entry: ResolvedEntry) -> bool:
    """Whether the data are on this machine, in files that are read in no time."""
    folder = entry.meta.storage.folder
    if folder is None:
        return False
    try:
        files = {folder / rel for rel in entry.meta.data_paths}
        return all(file.stat().st_size <= _MOST_BYTES for file in files if file.exists())
    except (OSError, PrepError):
        return False


def chunks(resolved: ResolvedMixture, context: RunContext, folder: Path) -> list[ShownChunk]:
    """Return one chunk per head, from held-out episodes where there are any; none on a fault."""
    options = recorded_fit(folder)
    if options is None or not (folder / "tokenizer.json").is_file():
        return []
    try:
        heads = action_heads(resolved, options, artifact_root=context.artifact_root)
        recipes = chunk_recipes(resolved, heads, options, (options.scale,))
        check_folder(folder, ours=True)  # `tokenizers` has no error of its own for a damaged file
        encode = _Encoder(folder, options.scale)
    except (PrepError, OSError, ValueError, KeyError):
        return []
    shown: list[ShownChunk] = []
    done: set[int] = set()
    for i, (member, recipe) in enumerate(zip(heads.members, recipes, strict=True)):
        row = heads.rows[i]
        if row in done or len(shown) >= MAX_CHUNKS or not _is_near(member.entry):
            continue
        try:
            _, held = split_episodes(member.entry, options)
            at = int(np.flatnonzero(held)[0]) if held.any() else 0
            episode = int(member.entry.episodes[at])
            raw = _chunk(member.entry, recipe, episode)
            quantized, decoded, tokens = encode(raw)
        except (PrepError, ValueError, IndexError):
            continue
        done.add(row)
        kept = slice(0, min(recipe.width, recipe.action_dim))
        shown.append(
            ShownChunk(
                heads.keys[row], member.name, episode, bool(held.any()),
                raw[:, kept].astype(np.float64), quantized[:, kept], decoded[:, kept], tokens,
            )
        )  # fmt: skip
    return shown


def _chunk(entry: ResolvedEntry, recipe: ChunkRecipe, episode: int) -> NDArray[np.float32]:
    """Return the (T, D) normalized chunk that starts a third into an episode."""
    frames = recipe.select(read_frames(entry.meta, recipe.columns, [episode]).columns)
    first, end = np.array([0]), np.array([len(frames.actions)])
    return np.asarray(recipe.normalized(frames, end // 3, first, end, first)[0])


class _Encoder:
    """A fitted tokenizer: whole numbers to tokens and back."""

    def __init__(self, folder: Path, scale: float) -> None:
        from tokenizers import Tokenizer

        from opentau_prep.tokenizer.folder import read_report

        self.scale = scale
        self.min_token = int(read_report(folder)["quantized"]["min_token"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def __call__(self, chunk: NDArray[np.float32]) -> tuple[Floats, Floats, int]:
        """Return the (T, D) chunk as quantized, as decoded, and how many tokens it took."""
        steps, dims = chunk.shape
        values = quantize(chunk[None], self.scale)
        quantized = dequantize(values, self.scale, time_horizon=steps, action_dim=dims)[0]
        points = code_points(values, self.min_token)[0]
        ids = self.tokenizer.encode(
            "".join(map(chr, points.tolist())), add_special_tokens=False
        ).ids
        back = np.array([ord(c) for c in self.tokenizer.decode(ids)], dtype=np.uint32)
        found = values_of_code_points(back, self.min_token)
        if len(found) != values.shape[1]:
            raise ValueError("the tokens decode to another number of values")
        decoded = dequantize(found[None], self.scale, time_horizon=steps, action_dim=dims)[0]
        return quantized, decoded, len(ids)
