"""Why chunks are long: which dims and frequencies take the tokens, and what scale and rate do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.tokenizer.bpe import Encoded, Trained
from opentau_prep.tokenizer.quantize import code_points, dequantize, quantize

if TYPE_CHECKING:
    from opentau_prep.tokenizer.options import FitOptions

__all__ = ["Explained", "Halved", "explain", "explained_json", "token_shares"]

Points = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]

# Held-out chunks that are looked at: enough for shares of a percent.
_CHUNKS = 2_000
_BLOCK = 256
_WIDER = (0x80, 0x800, 0x10000)


@dataclass(frozen=True)
class Halved:
    """Held-out chunks under half of something, encoded with the same tokenizer.

    Attributes:
        mean: Mean tokens per chunk.
        p99: 99th percentile of them.
        mse: Mean squared error of a round trip, normalized units.
    """

    mean: float
    p99: float
    mse: float


@dataclass(frozen=True)
class Explained:
    """Where the tokens of held-out chunks come from.

    Attributes:
        counts: (N,) int64, chunks of each dataset.
        tokens: (N, T, D) float64, tokens of each dataset's chunks by DCT frequency and action dim;
            their sum is the sum of the chunks' lengths.
        half_scale: The chunks quantized with half the scale; None where nothing is held out.
        half_rate: Every second step of the chunks: the same time at half the rate.
    """

    counts: npt.NDArray[np.int64]
    tokens: Floats
    half_scale: Halved | None
    half_rate: Halved | None


def explain(
    trained: Trained,
    points: Points,
    encoded: Encoded,
    dataset: npt.NDArray[np.int64],
    normal: npt.NDArray[np.float32] | None,
    *,
    n_datasets: int,
    options: FitOptions,
    min_token: int,
) -> Explained:
    """Return where the tokens of N chunks come from, of at most 2,000 of them.

    Args:
        trained: The tokenizer.
        points: (N, T * D) code points of the chunks.
        encoded: What the tokenizer makes of them.
        dataset: (N,) each chunk's dataset.
        normal: (N, T, D) the chunks before they were quantized; None leaves out the halves.
        n_datasets: How many datasets there are.
        options: The fit's options.
        min_token: The number with code point 0.
    """
    every = slice(None, None, max(1, -(-len(points) // _CHUNKS)))
    vocabulary = trained.tokenizer.get_vocab()
    sizes = np.zeros(len(vocabulary), dtype=np.int64)
    # A byte-level token has one character per byte.
    sizes[list(vocabulary.values())] = [len(token) for token in vocabulary]
    chosen = encoded.take(np.arange(len(points))[every])
    tokens = token_shares(
        points[every], chosen, sizes, dataset[every], n_groups=n_datasets, zero=-min_token
    )

    def halved(chunks: npt.NDArray[np.float32], scale: float) -> Halved:
        values = quantize(chunks, scale)
        size = {"time_horizon": chunks.shape[1], "action_dim": chunks.shape[2]}
        lengths = trained.encode(code_points(values, min_token)).lengths
        mse = float(np.mean((dequantize(values, scale, **size) - chunks) ** 2))
        return Halved(float(lengths.mean()), float(np.percentile(lengths, 99)), mse)

    return Explained(
        np.bincount(dataset[every], minlength=n_datasets),
        tokens.reshape(n_datasets, options.chunk_size, options.action_dim),
        None if normal is None else halved(normal[every], options.scale / 2),
        None if normal is None else halved(normal[every][:, ::2], options.scale),
    )


def token_shares(
    points: Points,
    encoded: Encoded,
    token_bytes: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    *,
    n_groups: int,
    zero: int,
) -> Floats:
    """Return how many tokens each of L places takes in the chunks of each group, (n_groups, L).

    A token counts in equal parts for the bytes of the numbers in it that are not 0; one that holds
    zeros alone, for all of its bytes. So a run of zeros that ends in a number counts for that
    number, which ends it.

    Args:
        points: (N, L) code points.
        encoded: Their tokens, which spell them exactly.
        token_bytes: (V,) bytes of each token.
        group: (N,) each chunk's group.
        n_groups: How many groups there are.
        zero: The code point of 0.
    """
    length = points.shape[1]
    total = np.zeros(n_groups * length)
    ends = np.concatenate([[0], np.cumsum(encoded.lengths)])
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        widths = np.ones(block.shape, dtype=np.int64)
        for edge in _WIDER:
            widths += block >= edge
        ids = encoded.ids[ends[start] : ends[start + len(block)]]
        sizes = token_bytes[ids]
        number = np.repeat(np.arange(block.size), widths.ravel())
        counts = (block != zero).ravel()[number].astype(np.float64)
        first = np.cumsum(sizes) - sizes
        n_counted = np.add.reduceat(counts, first)
        only_zeros = n_counted == 0
        counts[np.repeat(only_zeros, sizes)] = 1
        counts /= np.repeat(np.where(only_zeros, sizes, n_counted), sizes)
        place = number + np.repeat(
            (group[start : start + len(block)] - np.arange(len(block))) * length,
            widths.sum(axis=1),
        )
        total += np.bincount(place, weights=counts, minlength=len(total))
    return total.reshape(n_groups, length)


def explained_json(found: Explained, head_of: Sequence[str], scale: float) -> dict[str, Any]:
    """Return it JSON-ready: tokens per chunk in all by frequency, of heads by dim as well.

    Args:
        found: What was found.
        head_of: The head of each dataset.
        scale: Of the tokenizer.
    """

    def group(mine: npt.NDArray[np.bool_]) -> dict[str, Any]:
        n = int(found.counts[mine].sum())
        tokens = found.tokens[mine].sum(axis=0) / n
        return {
            "chunks": n,
            "mean": float(tokens.sum()),
            "per_frequency": tokens.sum(axis=1).tolist(),
            "per_dim": tokens.sum(axis=0).tolist(),
        }

    heads = np.array(head_of)
    steps = found.tokens.shape[1]
    document = {
        "total": group(found.counts > 0),
        "heads": {
            head: group(heads == head)
            for head in dict.fromkeys(head_of)
            if found.counts[heads == head].any()
        },
    }
    if found.half_scale is not None:
        document["half_scale"] = {"scale": scale / 2, **asdict(found.half_scale)}
    if found.half_rate is not None:
        document["half_rate"] = {"chunk_size": -(-steps // 2), **asdict(found.half_rate)}
    return document
