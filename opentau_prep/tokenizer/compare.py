"""Tokenizers compared without writing one: a sweep of settings, and one that exists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.errors import ConfigError, DataError
from opentau_prep.metadata.locate import check_repo_id, hub_snapshots
from opentau_prep.tokenizer.bpe import decode_points, encode_points, unknown_bytes
from opentau_prep.tokenizer.evaluate import length_stats, vocabulary_use
from opentau_prep.tokenizer.fit import Measured, fit_corpus, inexact_rows
from opentau_prep.tokenizer.folder import load_tokenizer
from opentau_prep.tokenizer.options import SWEEP_CHUNKS
from opentau_prep.tokenizer.prepare import sample_mixture
from opentau_prep.tokenizer.quantize import clip_values, code_points
from opentau_prep.tokenizer.report import (
    head_names_of,
    length_groups,
    round_trips,
    with_forecast,
)

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.engine import Failure
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.tokenizer.options import FitOptions
    from opentau_prep.tokenizer.prepare import Sampling

__all__ = [
    "MeasureReport",
    "SweepGrid",
    "SweepReport",
    "SweepRow",
    "measure_tokenizer",
    "parse_sweep",
    "sweep_tokenizers",
]

_NAMES = ("scale", "vocab-size")
_CONFIG, _TOKENIZER = "processor_config.json", "tokenizer.json"
# save_pretrained of transformers 5 moves the tokenizer there.
_SUBFOLDER = "bpe_tokenizer"


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
        mean: Mean tokens per chunk.
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
        rows: One per tokenizer, by scale and then vocabulary.
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
            context.progress("fitting", len(rows), len(points), "")
    return SweepReport(
        rows, sum(sampling.corpus.counts(len(sampling.plans))), sampling.corpus.failures
    )


def _row(sampling: Sampling, point: FitOptions, scale_index: int) -> SweepRow:
    corpus = sampling.corpus
    fitted = fit_corpus(corpus, point, len(sampling.plans), scale_index=scale_index)
    errors = round_trips(sampling.plans, corpus, sampling.heads, point.scale, scale_index)
    stats = length_stats(fitted.measured.lengths[fitted.measured.in_share])
    return SweepRow(
        scale=point.scale,
        vocab_size=point.vocab_size,
        mse=errors["roundtrip_mse"],
        native_mse=errors["native_mse"],
        mean=stats.mean,
        p99=stats.p99,
        vocabulary_share=fitted.measured.vocabulary.share,
    )


@dataclass(frozen=True)
class MeasureReport:
    """What an existing tokenizer does to a mixture's chunks; nothing is written.

    Attributes:
        folder: The tokenizer's folder.
        document: Lengths, and losses under `losses`, in all, by head and by dataset.
    """

    folder: Path
    document: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {"measured": str(self.folder), **self.document}


def measure_tokenizer(
    resolved: ResolvedMixture,
    context: RunContext,
    options: FitOptions,
    given: str | Path,
    *,
    max_length: int | None = None,
) -> MeasureReport:
    """Encode and decode held-out chunks of a mixture with any FAST tokenizer.

    The chunks are those that `fit-tokenizer` would measure with the same options; scale and
    `min_token`, and where the folder names them chunk size and width, are the folder's own. No code
    of the folder is run.

    Args:
        resolved: The mixture.
        context: How to run.
        options: How chunks are cut and normalized.
        given: A folder that holds `processor_config.json` and `tokenizer.json`, or the hub id of
            one that is in the local hub cache.
        max_length: The policy's limit, to forecast what it cuts off.

    Raises:
        PrepError: The folder cannot be found or read, or as `prepare_tokenizer`.
    """
    folder = _folder(str(given))
    settings = _settings(folder)
    moved = (folder / _SUBFOLDER / _TOKENIZER).is_file()
    tokenizer = load_tokenizer(_content(folder / _SUBFOLDER if moved else folder, _TOKENIZER))
    own = {"chunk_size": settings.get("time_horizon"), "action_dim": settings.get("action_dim")}
    options = replace(
        options,
        total_chunks=min(options.wanted_chunks, SWEEP_CHUNKS),
        scale=float(settings["scale"]),
        **{name: value for name, value in own.items() if value is not None},
    )
    min_token = int(settings["min_token"])
    with main_rank_notices(context.this_rank):
        sampling = sample_mixture(resolved, context, options)
    corpus = sampling.corpus
    held_out = bool(corpus.in_share.any())
    rows = np.flatnonzero(corpus.is_held if held_out else ~corpus.is_held)
    values = corpus.values[0][rows]
    points = code_points(values, min_token)
    encoded = encode_points(tokenizer, points)
    flat, counts = decode_points(tokenizer, encoded.rows())
    unknown, n_bytes = unknown_bytes(tokenizer, points)
    losses = {
        "clipped_chunks": (values != clip_values(values, min_token)).any(axis=1),
        "unknown_chunks": unknown > 0,
        "lossy_chunks": inexact_rows(points, flat, counts),
        "wrong_length_chunks": counts != points.shape[1],
    }
    measured = Measured(
        lengths=encoded.lengths,
        dataset=corpus.dataset[rows],
        in_share=corpus.in_share[rows] if held_out else np.ones(len(rows), dtype=np.bool_),
        vocabulary=vocabulary_use(encoded.ids, tokenizer.get_vocab_size()),
        n_inexact=int(losses["lossy_chunks"].sum()),
        held_out=held_out,
    )
    names = head_names_of(sampling.heads, sampling.plans)

    def lost(mine: npt.NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "chunks": int(mine.sum()),
            **{name: int(found[mine].sum()) for name, found in losses.items()},
            "out_of_vocabulary": float(unknown[mine].sum() / max(1, n_bytes[mine].sum())),
        }

    head_of = np.array(names)[measured.dataset]
    document = {
        "chunk_size": options.chunk_size,
        "action_dim": options.action_dim,
        "scale": options.scale,
        "min_token": min_token,
        "normalization_mode": options.convention.mode,
        "tokens": tokenizer.get_vocab_size(),
        "vocabulary_used": measured.vocabulary.share,
        "losses": {
            "total": lost(np.ones(len(rows), dtype=np.bool_)),
            "heads": {name: lost(head_of == name) for name in dict.fromkeys(head_of.tolist())},
            "datasets": {
                plan.entry.name: lost(measured.dataset == i)
                for i, plan in enumerate(sampling.plans)
                if (measured.dataset == i).any()
            },
        },
        "token_lengths": length_groups(sampling.plans, measured, names),
    }
    return MeasureReport(folder, with_forecast(document, max_length))


def _folder(given: str) -> Path:
    """Return the folder that is given, or that the hub cache has for a hub id."""
    folder = Path(given).expanduser()
    if folder.is_dir() or len(folder.parts) != 2 or folder.is_absolute():
        return folder
    check_repo_id(given)
    for found in hub_snapshots("models", given, None, os.environ):
        if (found / _CONFIG).is_file():
            return found
    raise DataError(
        "is neither a folder nor a tokenizer in the local hub cache",
        where=f"--measure {given}",
        hint=f"Download it: `hf download {given}`.",
    )


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = orjson.loads(_content(folder, _CONFIG))
        if not 0 < float(settings["scale"]) < float("inf"):
            raise ValueError(f"scale is {settings['scale']}")
        int(settings["min_token"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not the settings of an action tokenizer: {error}",
            where=str(folder / _CONFIG),
        ) from error
    return dict(settings)


def _content(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror or error})",
            where=str(folder / name),
            hint="Give a FAST tokenizer's folder, with processor_config.json and tokenizer.json.",
        ) from error
