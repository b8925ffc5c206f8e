"""Measuring a tokenizer that exists on the chunks of a mixture: lengths, truncation, losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.errors import DataError
from opentau_prep.tokenizer.bpe import decode_points, encode_points
from opentau_prep.tokenizer.evaluate import vocabulary_use
from opentau_prep.tokenizer.fit import Measured, inexact_rows
from opentau_prep.tokenizer.folder import load_tokenizer
from opentau_prep.tokenizer.options import SWEEP_CHUNKS
from opentau_prep.tokenizer.prepare import sample_mixture
from opentau_prep.tokenizer.quantize import clip_values, code_points
from opentau_prep.tokenizer.report import head_names_of, length_groups, with_forecast

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.tokenizer.options import FitOptions

__all__ = ["MeasureReport", "measure_tokenizer"]


@dataclass(frozen=True)
class MeasureReport:
    """What an existing tokenizer does to a mixture's chunks; nothing is written.

    Attributes:
        folder: The tokenizer's folder.
        document: Lengths in all, by head and by dataset; chunks that are clipped below or above the
            code points, and chunks that do not decode to their code points (`lossy`), of those to
            another number of them (`wrong_length`), which published decoders turn into zeros.
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
    folder: Path,
    *,
    max_length: int | None = None,
) -> MeasureReport:
    """Encode and decode held-out chunks of a mixture with any FAST tokenizer's folder.

    The chunks are those that `fit-tokenizer` would measure with the same options; scale and
    `min_token`, and where the folder names them chunk size and width, are the folder's own.

    Args:
        resolved: The mixture.
        context: How to run.
        options: How chunks are cut and normalized.
        folder: Holds `processor_config.json` and `tokenizer.json`.
        max_length: The policy's limit, to forecast what it cuts off.

    Raises:
        PrepError: The folder cannot be read, or as `prepare_tokenizer`.
    """
    settings = _settings(folder)
    tokenizer = load_tokenizer(_content(folder, "tokenizer.json"))
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
    lossy = inexact_rows(points, flat, counts)
    measured = Measured(
        lengths=encoded.lengths,
        dataset=corpus.dataset[rows],
        in_share=corpus.in_share[rows] if held_out else np.ones(len(rows), dtype=np.bool_),
        vocabulary=vocabulary_use(encoded.ids, tokenizer.get_vocab_size()),
        n_inexact=int(lossy.sum()),
        held_out=held_out,
    )
    names = head_names_of(sampling.heads, sampling.plans)
    document = {
        "chunk_size": options.chunk_size,
        "action_dim": options.action_dim,
        "scale": options.scale,
        "min_token": min_token,
        "normalization_mode": options.convention.mode,
        "tokens": tokenizer.get_vocab_size(),
        "vocabulary_used": measured.vocabulary.share,
        "chunks": len(rows),
        "clipped_chunks": int((values != clip_values(values, min_token)).any(axis=1).sum()),
        "lossy_chunks": measured.n_inexact,
        "wrong_length_chunks": int(np.count_nonzero(counts != points.shape[1])),
        "lossy_by_dataset": {
            plan.entry.name: int(lossy[measured.dataset == i].sum())
            for i, plan in enumerate(sampling.plans)
        },
        "token_lengths": length_groups(sampling.plans, measured, names),
    }
    return MeasureReport(folder, with_forecast(document, max_length))


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = orjson.loads(_content(folder, "processor_config.json"))
        if not 0 < float(settings["scale"]) < float("inf"):
            raise ValueError(f"scale is {settings['scale']}")
        int(settings["min_token"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not the settings of an action tokenizer: {error}",
            where=str(folder / "processor_config.json"),
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
