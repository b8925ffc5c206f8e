"""Curves of single episodes and chunks: what the policy is shown, and what the tokenizer loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.report import plot
from opentau_prep.report.histograms import Shown

if TYPE_CHECKING:
    from opentau_prep.report.samples import ShownChunk, ShownEpisode

__all__ = ["chunk_curves", "episode_curves"]

# Steps further out than this, in normalized units, are marked.
_OUTLIER = 2.0


def chunk_curves(chunk: ShownChunk) -> Shown:
    """Return the dims with the largest errors: raw, quantized and decoded curves."""
    errors = np.abs(chunk.decoded - chunk.raw)
    worst = np.sort(np.argsort(-errors.max(axis=0), kind="stable")[:6])
    width, tall = 250.0, 74.0
    parts = []
    xs = plot.Axis(0, len(chunk.raw) - 1, 4, width - 4).many(np.arange(len(chunk.raw)))
    for place, dim in enumerate(worst):
        rows = np.stack([chunk.raw[:, dim], chunk.quantized[:, dim], chunk.decoded[:, dim]])
        x0, y0 = (place % 3) * width, (place // 3) * (tall + 16)
        at = plot.Axis(float(rows.min()), float(rows.max()), y0 + tall, y0 + 14)
        parts += [
            plot.text(
                x0 + 4, y0 + 10, f"dim {dim}: error at most {errors[:, dim].max():.3f}", "small"
            ),
            plot.path(xs + x0, at.many(rows[0]), "curve raw", "raw"),
            plot.path(xs + x0, at.many(rows[1]), "curve quantized", "quantized"),
            plot.path(xs + x0, at.many(rows[2]), "curve decoded", "decoded"),
        ]
    rows_used = -(-len(worst) // 3)
    title = f"{chunk.head}: {chunk.dataset}, episode {chunk.episode}"
    described = f"action chunk of {title}: raw, quantized and decoded"
    picture = plot.svg(3 * width, rows_used * (tall + 16), parts, described, "chunk")
    kind = "held out" if chunk.held_out else "fitted on"
    mean = (errors**2).mean(axis=0)
    detail = (
        f"{kind}, {chunk.tokens} tokens, mean squared error {mean.mean():.2g}; per dim "
        + ", ".join(f"{value:.1g}" for value in mean)
    )
    same = bool(np.array_equal(chunk.quantized, chunk.decoded))
    notes = () if same else ("Decoding does not give back what was quantized.",)
    return Shown(title, picture, detail, notes)


def episode_curves(name: str, mode: str, found: Sequence[ShownEpisode]) -> Shown:
    """Return a dataset's episodes next to each other, each dim a line, outliers marked."""
    width, tall = 262.0, 96.0
    parts, outliers = [], 0
    for place, each in enumerate(found):
        x0 = place * (width + 8)
        at = plot.Axis(-2.2, 2.2, tall, 14)
        xs = plot.Axis(0, max(len(each.values) - 1, 1), x0 + 2, x0 + width - 2).many(
            np.arange(len(each.values))
        )
        parts += [
            plot.text(
                x0 + 2, 10, f"episode {each.episode} ({each.why}, {each.seconds:.1f} s)", "small"
            ),
            plot.rect(x0, at(1), width, at(-1) - at(1), "target"),
        ]
        parts += [
            plot.path(xs, at.many(each.values[:, d]), f"curve thin c{d % 8}", f"dim {d}")
            for d in range(each.values.shape[1])
        ]
        far = np.argwhere(np.abs(np.nan_to_num(each.peaks)) > _OUTLIER)
        outliers += len(far)
        parts += [
            plot.rect(xs[i] - 2, at(each.peaks[i, d]) - 2, 4, 4, "outlier",
                      f"dim {d}: {each.peaks[i, d]:.3g}")
            for i, d in far[:60].tolist()
        ]  # fmt: skip
    total = len(found) * (width + 8)
    described = f"actions of {name}, normalized by {mode}, with the target range"
    detail = f"actions under {mode}"
    if outliers:
        detail += f"; {outliers} steps beyond twice the range are marked"
    return Shown(name, plot.svg(total, tall + 4, parts, described, "episodes"), detail)
