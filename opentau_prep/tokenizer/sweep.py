"""A sweep: what scale and vocabulary cost and give, before a tokenizer is chosen.

A coarser scale gives shorter sequences and a larger error; the chunks are read once and quantized
with every scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.errors import ConfigError
from opentau_prep.tokenizer.evaluate import ErrorSums, length_stats
from opentau_prep.tokenizer.fit import fit_corpus
from opentau_prep.tokenizer.options import SWEEP_CHUNKS
from opentau_prep.tokenizer.prepare import sample_mixture

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.engine import Failure
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.tokenizer.options import FitOptions
    from opentau_prep.tokenizer.prepare import Sampling

__all__ = ["SweepGrid", "SweepReport", "SweepRow", "parse_sweep", "sweep_tokenizers"]

_NAMES = ("scale", "vocab-size")


@dataclass(frozen=True)
class SweepGrid:
    """What is tried: every scale with every vocabulary; empty means the options' own."""

    scales: tuple[float, ...] = ()
    vocab_sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class SweepRow:
    """One tokenizer of a sweep, measured on held-out chunks.

    Attributes:
        scale: Its scale.
        vocab_size: Its vocabulary.
        mse: Mean squared error of a round trip in normalized units.
        native_mse: The same in the datasets' own units.
        mean: Mean tokens a chunk.
        p99: 99th percentile of them.
        vocabulary_share: Share of the vocabulary that is used.
    """

    scale: float
    vocab_size: int
    mse: float | None
    native_mse: float | None
    mean: float
    p99: float
    vocabulary_share: float


@dataclass(frozen=True)
class SweepReport:
    """The outcome of a sweep; nothing is written.

    Attributes:
        rows: One a tokenizer, by scale and then vocabulary.
        n_chunks: Chunks that each was fitted on.
        failures: Datasets that were left out.
    """

    rows: Sequence[SweepRow]
    n_chunks: int
    failures: Sequence[Failure]

    @property
    def needs_attention(self) -> bool:
        """Whether a dataset failed."""
        return bool(self.failures)

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {
            "n_chunks": self.n_chunks,
            "sweep": [asdict(row) for row in self.rows],
            "failures": [failure.as_json() for failure in self.failures],
        }


def parse_sweep(texts: Sequence[str]) -> SweepGrid:
    """Return the grid of texts such as `scale=5,10,20` and `vocab-size=1024,2048`.

    Raises:
        ConfigError: Another name, one that comes twice, or values that are no numbers.
    """
    found: dict[str, list[float]] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        name = name.replace("_", "-")
        if not separator or name not in _NAMES or name in found:
            known = " and ".join(f"{known}=N,N,..." for known in _NAMES)
            raise ConfigError(f"cannot sweep {text!r}", where="--sweep", hint=f"Use {known}.")
        try:
            found[name] = [float(value) for value in values.split(",")]
        except ValueError as error:
            raise ConfigError(f"not numbers: {values!r}", where=f"--sweep {name}") from error
    sizes = found.get("vocab-size", [])
    if any(size != int(size) for size in sizes):
        raise ConfigError("must be whole numbers", where="--sweep vocab-size")
    return SweepGrid(tuple(found.get("scale", [])), tuple(int(size) for size in sizes))


def sweep_tokenizers(
    resolved: ResolvedMixture, context: RunContext, options: FitOptions, grid: SweepGrid
) -> SweepReport:
    """Fit a tokenizer for every point of a grid on the same few chunks; write nothing.

    The chunks are 4,000 unless the options ask for fewer. A token may be of any length unless the
    options limit it: choosing the limit is for the fit itself.

    Raises:
        PrepError: As `prepare_tokenizer`.
    """
    scales = grid.scales or (options.scale,)
    sizes = grid.vocab_sizes or (options.vocab_size,)
    n_chunks = min(options.wanted_chunks, SWEEP_CHUNKS)
    cap = options.max_token_length
    small = replace(
        options, total_chunks=n_chunks, max_token_length=1 << 30 if cap == "auto" else cap
    )
    points = [replace(small, scale=scale, vocab_size=size) for scale in scales for size in sizes]
    with main_rank_notices(context.this_rank):
        sampling = sample_mixture(resolved, context, small, scales=scales)
        rows = []
        for point in points:
            rows.append(_row(sampling, point, scales.index(point.scale)))
            context.progress("fitting", len(rows), len(points))
    return SweepReport(
        rows, sum(sampling.corpus.counts(len(sampling.plans))), sampling.corpus.failures
    )


def _row(sampling: Sampling, point: FitOptions, scale_index: int) -> SweepRow:
    corpus = sampling.corpus
    fitted = fit_corpus(corpus, point, len(sampling.plans), scale_index=scale_index)
    errors = ErrorSums.total(corpus.errors[scale_index])
    stats = length_stats(fitted.measured.lengths[fitted.measured.in_share])
    return SweepRow(
        scale=point.scale,
        vocab_size=point.vocab_size,
        mse=None if errors is None else errors.normalized.result().mse,
        native_mse=None if errors is None else errors.native.result().mse,
        mean=stats.mean,
        p99=stats.p99,
        vocabulary_share=fitted.measured.vocabulary.share,
    )
