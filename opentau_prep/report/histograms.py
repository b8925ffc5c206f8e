"""Histograms: episode lengths per task with bucket edges, token lengths per head and dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from opentau_prep.report import plot

if TYPE_CHECKING:
    from opentau_prep.verdict.details import SpeedFacts, TokenizerFacts

__all__ = ["Shown", "speed_histograms", "token_histograms"]

MAX_SPEED_PICTURES = 200


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
