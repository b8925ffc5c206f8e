"""What the report says of heads, speed, tokenizer, findings and losses, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "DimFacts",
    "FindingFacts",
    "HeadFacts",
    "HeadsFacts",
    "LossFacts",
    "SpeedFacts",
    "TaskFacts",
    "TokenGroup",
    "TokenizerFacts",
    "ValidationFacts",
]


@dataclass(frozen=True)
class DimFacts:
    """One dim of a head's state or actions; numbers are in dataset units.

    Attributes:
        dim: Its place.
        name: What the first member's info.json calls it.
        min: Smallest value.
        max: Largest value.
        mean: Mean.
        std: Standard deviation.
        q01: Pooled 1 % quantile, if all members have one.
        q99: Pooled 99 % quantile.
        zero_range: Whether it never moves.
        notes: What is wrong with it, in words.
    """

    dim: int
    name: str
    min: float
    max: float
    mean: float
    std: float
    q01: float | None
    q99: float | None
    zero_range: bool
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class HeadFacts:
    """One norm head.

    Attributes:
        key: Its norm key.
        row: Its row.
        members: Its datasets.
        frames: The sum of their weights in pooling.
        fallback: Whether it is a dataset's own, for lack of a tag.
        selected: Whether members select among their episodes: sketches, which tell where pooled
            quantiles lie, are of all episodes.
        state: Its dims that hold data.
        actions: The same.
    """

    key: str
    row: int
    members: Sequence[str]
    frames: float
    fallback: bool
    selected: bool
    state: Sequence[DimFacts]
    actions: Sequence[DimFacts]


@dataclass(frozen=True)
class HeadsFacts:
    """The norm heads, as they are made of the stats that are there now.

    Attributes:
        heads: By row.
        options: What they are made with.
        audit: Members that do not belong, in words.
        tested: Norm key -> how far the audit could judge it: `all`, `units`, or `none`.
        fault: Why there are none.
    """

    heads: Sequence[HeadFacts] = ()
    options: Mapping[str, Any] | None = None
    audit: Sequence[str] = ()
    tested: Mapping[str, str] | None = None
    fault: str | None = None


@dataclass(frozen=True)
class TaskFacts:
    """One task's speed percentiles.

    Attributes:
        task_index: As in the tasks table.
        task: Its string.
        n_episodes: How many episodes they were computed from.
        percentiles: Ten lengths in frames; None for a sparse task.
        buckets: Selected episodes in the buckets 0, 10, ..., 100.
        edges: (B + 1,) ends of the bars of a histogram of their lengths, frames.
        counts: (B,) its bars.
    """

    task_index: int
    task: str
    n_episodes: int
    percentiles: Sequence[float] | None
    buckets: Sequence[int]
    edges: Sequence[float] = ()
    counts: Sequence[int] = ()


@dataclass(frozen=True)
class SpeedFacts:
    """The speed percentiles of one dataset.

    Attributes:
        datasets: The entries that select from it.
        tasks: Those with most episodes.
        n_tasks: How many rows there are.
        n_sparse: How many of them have no percentiles.
        without_row: Tasks of the tasks table that have no row and selected episodes.
        unresolved: Selected episodes whose task the tables do not tell.
        fault: Why there are none.
    """

    datasets: Sequence[str]
    tasks: Sequence[TaskFacts] = ()
    n_tasks: int = 0
    n_sparse: int = 0
    without_row: Sequence[int] = ()
    unresolved: int = 0
    fault: str | None = None


@dataclass(frozen=True)
class TokenGroup:
    """How long the chunks of one head, dataset, or of all are, in tokens.

    Attributes:
        scope: `total`, `head` or `dataset`.
        name: Whose.
        n_chunks: How many were measured.
        mean: Mean length.
        p50: Median.
        p95: 95 % quantile.
        p99: 99 % quantile.
        max: The longest.
        keeps: Share of chunks -> length that keeps them whole.
        truncated: Share that is longer than the policy's limit; None when no limit was named.
        counts: Length -> how many chunks have it.
    """

    scope: str
    name: str
    n_chunks: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: int
    keeps: Mapping[str, int]
    truncated: float | None
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """What it is of, in words."""
        return "all datasets" if self.scope == "total" else f"{self.scope} {self.name}"


@dataclass(frozen=True)
class TokenizerFacts:
    """What the report of a fit says.

    Attributes:
        path: The folder.
        settings: Sizes and options, by name.
        groups: Lengths: of all, of heads, of datasets.
        histogram: Length in tokens -> chunks, of all.
        measured_on: What was measured.
        limit: The policy's `discrete_action_max_length` that the forecast is for.
        fault: Why there is nothing to say.
        explained: Tokens by action dim and DCT frequency, in all and by head, and lengths under
            half the scale and half the rate, as in `fit_report.json`.
    """

    path: str
    settings: Mapping[str, Any] | None = None
    groups: Sequence[TokenGroup] = ()
    histogram: Mapping[str, int] | None = None
    measured_on: str = ""
    limit: int | None = None
    fault: str | None = None
    explained: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FindingFacts:
    """One finding of `validate`.

    Attributes:
        code: The rule's.
        severity: `error`, `warning` or `note`.
        dataset: Where.
        place: Where in it.
        message: What is wrong.
        hint: What to do.
        command: The command that settles it; empty where a person must act.
    """

    code: str
    severity: str
    dataset: str
    place: str
    message: str
    hint: str
    command: str = ""


@dataclass(frozen=True)
class ValidationFacts:
    """What `validate --write` left with the datasets.

    Attributes:
        checked: Datasets that have a file of findings.
        unchecked: Those that have none.
        deep: For how many of them frames were read.
        counts: Severity -> findings.
        findings: The worst first.
        n_hidden: Findings that are not among these.
    """

    checked: int
    unchecked: Sequence[str]
    deep: int
    counts: Mapping[str, int]
    findings: Sequence[FindingFacts]
    n_hidden: int = 0


@dataclass(frozen=True)
class LossFacts:
    """The validation pass and its losses, as far as there are files.

    Attributes:
        plan: The plan in short, by name; None when there is none.
        rows: The table of losses; None when there is no report.
        changes: What got worse since an earlier run, in words.
    """

    plan: Mapping[str, Any] | None = None
    rows: Sequence[Mapping[str, Any]] | None = None
    changes: Sequence[str] = ()
