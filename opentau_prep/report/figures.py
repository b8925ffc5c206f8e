"""Histograms of episode and token lengths, curves of single episodes and chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from opentau_prep.report import plot

if TYPE_CHECKING:
    from opentau_prep.report.samples import ShownChunk, ShownEpisode
    from opentau_prep.verdict.details import SpeedFacts, TokenizerFacts

__all__ = ["Shown", "chunk_curves", "episode_curves", "speed_histograms", "token_histograms"]

MAX_SPEED_PICTURES = 200
# Steps further out than this, in normalized units, are marked.
_OUTLIER = 2.0
_WIDTH = 262.0


@dataclass(frozen=True)
class Shown:
    """A picture with words: a title, the picture, and a line of numbers."""

    title: str
    picture: Markup
    detail: str = ""
    notes: Sequence[str] = ()


def speed_histograms(speed: Sequence[SpeedFacts]) -> tuple[list[Shown], int]:
    """Return a picture per task, and how many tasks have none for want of room."""
    shown: list[Shown] = []
    hidden = 0
    for each in speed:
        for task in each.tasks:
            if not task.counts:
                continue
            if len(shown) >= MAX_SPEED_PICTURES:
                hidden += 1
                continue
            lines = [(edge, "edge", "") for edge in task.percentiles or ()]
            title = f"{', '.join(each.datasets)}: {task.task or f'task {task.task_index}'}"
            described = f"episode lengths of {title}, with the edges of the speed buckets"
            picture = plot.bars(task.counts, task.edges, described, unit="frames", marks=lines)
            detail = f"{task.n_episodes:,} episodes"
            if task.percentiles is None:
                detail += ", under 10 distinct lengths: every episode gets bucket 50"
            shown.append(Shown(title, picture, detail))
    return shown, hidden


def token_histograms(tokenizer: TokenizerFacts) -> list[Shown]:
    """Return a picture for all chunks together, per head and per dataset."""
    shown = []
    longest = max((group.max for group in tokenizer.groups), default=0)
    if tokenizer.limit is not None:
        longest = max(longest, tokenizer.limit)
    if not longest:
        return []
    edges = np.linspace(0, longest + 1, 49)
    for group in tokenizer.groups:
        lengths = np.array(list(map(int, group.counts)), dtype=np.float64)
        weights = np.array(list(group.counts.values()), dtype=np.float64)
        if not lengths.size:
            continue
        counts = np.histogram(lengths, edges, weights=weights)[0]
        keeps = group.keeps.get("0.99")
        marks = [] if keeps is None else [(float(keeps), "keeps", f"99 % up to {keeps}")]
        if tokenizer.limit is not None:
            marks.append((float(tokenizer.limit), "cut", f"limit {tokenizer.limit}"))
        title = group.words
        described = f"tokens per chunk of {title}"
        picture = plot.bars(
            counts.tolist(), edges.tolist(), described, unit="tokens per chunk", marks=marks
        )
        detail = f"{group.n_chunks:,} chunks, median {group.p50:g}, 99 % {group.p99:g}"
        if group.truncated is not None:
            detail += f"; {group.truncated:.2%} would be cut"
        shown.append(Shown(title, picture, detail))
    return shown


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
