"""From a corpus to a tokenizer, and from a tokenizer to what it does to held-out chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.notices import warn
from opentau_prep.tokenizer.bpe import Encoded, affordable_words, decode_points
from opentau_prep.tokenizer.choose import (
    AUTO_CAPS,
    BpeFit,
    BpePlan,
    Candidate,
    fit_bpe,
    proportional_order,
)
from opentau_prep.tokenizer.evaluate import (
    Explained,
    Halved,
    VocabularyUse,
    explain,
    vocabulary_use,
)
from opentau_prep.tokenizer.quantize import (
    MAX_DISTANCE,
    clip_values,
    code_points,
    dequantize,
    min_token_of,
    quantize,
)

if TYPE_CHECKING:
    from opentau_prep.tokenizer.corpus import Corpus
    from opentau_prep.tokenizer.options import FitOptions

__all__ = ["Clipped", "Fitted", "Measured", "affordable_chunks", "fit_corpus", "inexact_rows"]

# A chunk's numbers take one to four bytes in UTF-8; one is what a fit can hope for at best.
_BEST_BYTES = 1
_MEASURED_WITHOUT_HELD_OUT = 2_000
_BLOCK = 2_000
# Held-out chunks whose tokens are explained: enough for shares of a percent.
_EXPLAINED = 1_000

Points = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Measured:
    """What a tokenizer does to the chunks it is measured on; M of them.

    Attributes:
        lengths: (M,) int64, tokens per chunk.
        dataset: (M,) int64, each chunk's dataset.
        in_share: (M,) whether it counts in totals and heads.
        vocabulary: What is used of the vocabulary.
        n_inexact: Chunks that do not decode to their code points; 0 unless something is broken.
        held_out: Whether they come from held-out episodes; else they were fitted on.
    """

    lengths: npt.NDArray[np.int64]
    dataset: npt.NDArray[np.int64]
    in_share: npt.NDArray[np.bool_]
    vocabulary: VocabularyUse
    n_inexact: int
    held_out: bool


@dataclass(frozen=True)
class Clipped:
    """What the headroom of a tokenizer does not cover in some chunks.

    Attributes:
        values: Quantized numbers without a code point.
        chunks: Chunks with such numbers.
        max_abs_error: Largest error of an action because of them, in normalized units.
    """

    values: int
    chunks: int
    max_abs_error: float


@dataclass(frozen=True)
class Fitted:
    """A tokenizer, and how it came about.

    Attributes:
        fit: The tokenizer and the candidates.
        min_token: The number with code point 0.
        counts: Chunks it was fitted on, by dataset.
        measured: What it does.
        clipped: What the headroom does not cover, in all chunks, held-out ones too.
        explained: Where its tokens come from.
        seconds: What fitting and measuring took.
    """

    fit: BpeFit
    min_token: int
    counts: tuple[int, ...]
    measured: Measured
    clipped: Clipped
    explained: Explained
    seconds: tuple[float, float]


def affordable_chunks(options: FitOptions) -> int:
    """Return how many chunks a fit within the memory budget can use at the very best."""
    values = options.chunk_size * options.action_dim
    return affordable_words(values * _BEST_BYTES, options.vocab_size, options.memory_limit)


def fit_corpus(
    corpus: Corpus,
    options: FitOptions,
    n_datasets: int,
    *,
    scale_index: int = 0,
    progress: Callable[[Candidate], None] | None = None,
) -> Fitted:
    """Return the tokenizer of a corpus.

    `min_token` goes by the whole corpus to fit on, also by chunks that an early stop leaves out, so
    that it does not depend on where the fit stops.

    Args:
        corpus: The chunks, at least one of them to fit on.
        options: The fit's options.
        n_datasets: How many datasets the corpus is of.
        scale_index: Which of its scales.
        progress: Called after every fit that was tried.
    """
    started = time.perf_counter()
    values = corpus.values[scale_index]
    rows = np.flatnonzero(~corpus.is_held)
    own = values[rows]
    min_token = min_token_of(
        int(own.min()),
        chunk_size=options.chunk_size,
        scale=options.scale,
        headroom=options.headroom,
    )
    points = code_points(own, min_token)
    order = proportional_order(corpus.counts(n_datasets))
    chosen_rows = _measured_rows(corpus, rows, order)
    held = code_points(values[chosen_rows], min_token)
    counted = corpus.in_share[chosen_rows]
    held_out = bool(counted.any())
    if not held_out:
        counted = np.ones(len(chosen_rows), dtype=np.bool_)
    fit = fit_bpe(points, order, held[counted], _plan(options, min_token), progress=progress)
    fitted_rows = rows[order[: fit.chosen.n_chunks]]
    counts = np.bincount(corpus.dataset[fitted_rows], minlength=n_datasets)
    fitted = time.perf_counter()
    share = np.flatnonzero(counted)
    shown = share[:: max(1, -(-len(share) // _EXPLAINED))]
    halves = _halves(corpus.normal[shown], options) if held_out else []
    half_points = [code_points(quantize(*half), min_token) for half in halves]
    encoded, *half_encoded = fit.trained.encode(held, *half_points)
    measured = Measured(
        lengths=encoded.lengths,
        dataset=corpus.dataset[chosen_rows],
        in_share=counted,
        vocabulary=vocabulary_use(encoded.ids, fit.tokenizer.get_vocab_size()),
        n_inexact=_count_inexact(fit, held, encoded),
        held_out=held_out,
    )
    explained = explain(
        fit.tokenizer,
        held[shown],
        encoded.take(shown),
        measured.dataset[shown],
        n_datasets=n_datasets,
        options=options,
        min_token=min_token,
        halves=[
            Halved.of(*half, each.lengths) for half, each in zip(halves, half_encoded, strict=True)
        ],
    )
    beyond = _clipped(values, min_token, options)
    seconds = (fitted - started, time.perf_counter() - fitted)
    return Fitted(fit, min_token, tuple(counts.tolist()), measured, beyond, explained, seconds)


def _halves(
    chunks: npt.NDArray[np.float32], options: FitOptions
) -> list[tuple[npt.NDArray[np.float32], float]]:
    """Return chunks and the scale to quantize them with: half the scale, and half the rate."""
    return [(chunks, options.scale / 2), (chunks[:, ::2], options.scale)]


def _clipped(values: npt.NDArray[np.integer[Any]], min_token: int, options: FitOptions) -> Clipped:
    """Return what is clipped, with a notice that names the price."""
    rows = np.flatnonzero(
        (values < min_token).any(axis=1) | (values > min_token + MAX_DISTANCE).any(axis=1)
    )
    if not len(rows):
        return Clipped(0, 0, 0.0)
    lost = values[rows].astype(np.int64)
    lost -= clip_values(lost, min_token)
    shape = {"time_horizon": options.chunk_size, "action_dim": options.action_dim}
    error = float(np.abs(dequantize(lost, options.scale, **shape)).max())
    warn(
        "values_clipped",
        f"{len(rows):,} of {len(values):,} chunks hold values beyond the headroom of"
        f" {options.headroom:g}; they are clipped, which changes actions by up to {error:.2g} in"
        " normalized units. Give a larger --headroom, or look for outliers with"
        " the command `validate --deep`",
        chunks=len(rows),
        max_abs_error=error,
    )
    return Clipped(int(np.count_nonzero(lost)), len(rows), error)


def _plan(options: FitOptions, min_token: int) -> BpePlan:
    cap = options.max_token_length
    return BpePlan(
        vocab_size=options.vocab_size,
        caps=AUTO_CAPS if cap == "auto" else (cap,),
        grow=options.total_chunks == "auto",
        memory_bytes=options.memory_limit,
        asked=None if options.total_chunks == "auto" else options.wanted_chunks,
        bytes_per_number=len(chr(max(0, -min_token)).encode()),
    )


def _measured_rows(
    corpus: Corpus, rows: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    if corpus.in_share.any():
        return np.flatnonzero(corpus.is_held)
    warn(
        "no_held_out",
        "no dataset has an episode to hold out: token lengths are measured on chunks that were"
        " fitted on, and may be longer in training",
    )
    return np.sort(rows[order[:_MEASURED_WITHOUT_HELD_OUT]])


def _count_inexact(fit: BpeFit, points: Points, encoded: Encoded) -> int:
    rows = encoded.rows()
    n_inexact = 0
    for start in range(0, len(points), _BLOCK):
        stop = start + _BLOCK
        flat, counts = decode_points(fit.tokenizer, rows[start:stop])
        n_inexact += int(inexact_rows(points[start:stop], flat, counts).sum())
    return n_inexact


def inexact_rows(
    block: Points, flat: Points, counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return which rows of (N, L) code points are not what `decode_points` gave for them."""
    if len(flat) == block.size and (counts == block.shape[1]).all():
        return np.asarray((flat.reshape(block.shape) != block).any(axis=1))
    ends: Sequence[int] = np.cumsum(counts).tolist()
    starts = [0, *ends[:-1]]
    spans = zip(starts, ends, block, strict=True)
    return np.array([not np.array_equal(flat[a:b], row) for a, b, row in spans], dtype=np.bool_)
