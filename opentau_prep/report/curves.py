"""Curves of single episodes and chunks: what the policy is shown, and what the tokenizer loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from opentau_prep.report import plot
from opentau_prep.report.histograms import Shown

if TYPE_CHECKING:
    from opentau_prep.report.samples import ShownChunk, ShownEpisode

__all__ = ["chunk_curves", "episode_curves"]

# Steps further out than this, in normalized units, are marked.
_OUTLIER = 2.0
_WIDTH = 262.0


def chunk_curves(chunk: ShownChunk) -> Shown:
    """Return the dims with the largest errors: raw, quantized and decoded curves."""
    errors = np.abs(chunk.decoded - chunk.raw)
    worst = np.sort(np.argsort(-errors.max(axis=0), kind="stable")[:6])
    title = f"{chunk.head}: {chunk.dataset}, episode {chunk.episode}"
    xs = plot.Axis(0, len(chunk.raw) - 1, 4, _WIDTH - 4).many(np.arange(len(chunk.raw)))
    pictures = []
    for dim in worst.tolist():
        rows = np.stack([chunk.raw[:, dim], chunk.quantized[:, dim], chunk.decoded[:, dim]])
        at = plot.Axis(float(rows.min()), float(rows.max()), 74, 14)
        most = f"dim {dim}: error at most {errors[:, dim].max():.3f}"
        parts = [plot.text(4, 10, most, "small")]
        parts += [
            plot.path(xs, at.many(row), f"curve {kind}", kind)
            for row, kind in zip(rows, ("raw", "quantized", "decoded"), strict=True)
        ]
        described = f"action chunk of {title}, dim {dim}: raw, quantized and decoded"
        pictures.append(plot.svg(_WIDTH, 78, parts, described, "chunk"))
    kind = "held out" if chunk.held_out else "fitted on"
    mean = (errors**2).mean(axis=0)
    detail = (
        f"{kind}, {chunk.tokens} tokens, mean squared error {mean.mean():.2g}; per dim "
        + ", ".join(f"{value:.1g}" for value in mean)
    )
    same = bool(np.array_equal(chunk.quantized, chunk.decoded))
    notes = () if same else ("Decoding does not give back what was quantized.",)
    return Shown(title, Markup("").join(pictures), detail, notes)


def episode_curves(name: str, mode: str, found: Sequence[ShownEpisode]) -> Shown:
    """Return a dataset's episodes, each a picture with a line per dim, outliers marked."""
    pictures, outliers = [], 0
    for each in found:
        at = plot.Axis(-2.2, 2.2, 90, 14)
        steps = len(each.values)
        xs = plot.Axis(0, max(steps - 1, 1), 14, _WIDTH - 2).many(np.arange(steps))
        words = f"episode {each.episode} ({each.why}, {each.seconds:.1f} s)"
        parts = [
            plot.text(14, 10, words, "small"),
            plot.rect(14, at(1), _WIDTH - 14, at(-1) - at(1), "target"),
            *(plot.text(11, at(y) + 3, f"{y}", "small", "end") for y in (-1, 1)),
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
        described = f"actions of {name}, {words}, normalized by {mode}, with the target range"
        pictures.append(plot.svg(_WIDTH, 92, parts, described, "episodes"))
    detail = f"actions under {mode}"
    if outliers:
        detail += f"; {outliers} steps beyond twice the range are marked"
    return Shown(name, Markup("").join(pictures), detail)
