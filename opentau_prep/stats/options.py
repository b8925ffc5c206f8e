"""What to compute, and what a worker needs to know of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from opentau_prep.errors import ConfigError

if TYPE_CHECKING:
    from opentau_prep.context import Progress, RunContext

__all__ = ["DEFAULT_QUANTILES", "MEMORY_BUDGET", "PublishedStats", "StatsOptions", "StatsRun"]

EpisodeQuantiles = Literal["episode", "dataset"]
PublishedStats = Literal["stop", "keep", "replace"]
DEFAULT_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
MEMORY_BUDGET = 128 << 20
DEFAULT_CHUNK_SIZE = 50


@dataclass(frozen=True)
class StatsOptions:
    """What to compute.

    Attributes:
        quantiles: Fractions in addition to q01, q10, q50, q90 and q99.
        episode_stats: Whether each episode's own stats are written, too.
        episode_quantiles: Whose quantiles each episode's row gets: the whole dataset's (`dataset`),
            so that whoever pools the rows gets the right numbers, or the episode's own (`episode`).
            Quantiles that are published stay.
        memory_budget: Bytes of numeric columns up to which whole-dataset quantiles are exact; of a
            larger dataset they come from the sketch.
        chunk_size: Steps per chunk, for delta actions.
        published: What becomes of published stats that differ from the frames in min, max, mean,
            std or count: `stop` leaves them and reports the difference, `keep` accepts them,
            `replace` replaces them and keeps the old file as a backup. Where only quantiles differ,
            `stop` keeps them too.
        allow_partial: Whether stats of a dataset of which only some episodes are on disk are
            computed from those.
    """

    quantiles: tuple[float, ...] = ()
    episode_stats: bool = True
    episode_quantiles: EpisodeQuantiles = "dataset"
    memory_budget: int = MEMORY_BUDGET
    chunk_size: int = DEFAULT_CHUNK_SIZE
    published: PublishedStats = "stop"
    allow_partial: bool = False

    def __post_init__(self) -> None:
        for fraction in self.quantiles:
            if not 0 <= fraction <= 1:
                raise ConfigError(
                    f"a quantile must be a fraction between 0 and 1, found {fraction}",
                    where="--quantile",
                    hint="For the 99.9 % quantile, say 0.999.",
                )
        if self.episode_quantiles not in get_args(EpisodeQuantiles):
            known = " or ".join(get_args(EpisodeQuantiles))
            raise ConfigError(f"must be {known}", where="--episode-quantiles")
        if self.published not in get_args(PublishedStats):
            known = " or ".join(get_args(PublishedStats))
            raise ConfigError(f"must be {known}", where="--published-stats")
        if self.chunk_size < 1:
            raise ConfigError(f"must be at least 1, found {self.chunk_size}", where="--chunk-size")

    @property
    def q(self) -> tuple[float, ...]:
        """All fractions, sorted."""
        return tuple(sorted({*DEFAULT_QUANTILES, *self.quantiles}))


@dataclass(frozen=True)
class StatsRun:
    """What a worker needs to know.

    Attributes:
        stats: What to compute.
        context: How to run; see `RunContext.for_workers`.
        threads: How many read one dataset.
        keep_options: Whether a dataset keeps the quantiles that its stats were made with.
        progress: Called as files are read; only where the work stays in this process.
        cluster: Whose engine takes parts of the dataset; only where the work stays in this process
            and that engine is a cluster's.
        read_data: Whether data files may be read, if only to hash them.
    """

    stats: StatsOptions
    context: RunContext
    threads: int
    keep_options: bool = False
    progress: Progress | None = None
    cluster: RunContext | None = None
    read_data: bool = True

    @classmethod
    def of(
        cls,
        context: RunContext,
        options: StatsOptions,
        *,
        here: bool,
        keep_options: bool = False,
    ) -> StatsRun:
        """Return a run; `here` says that its datasets have this process, and all workers, alone."""
        from opentau_prep.engine.local import default_workers

        threads = (context.workers or default_workers()) if here else 1
        # Over several datasets the engine reports how far it is, and no callback can travel.
        progress = context.progress if here else None
        cluster = context if here and context.engine != "local" else None
        keep = keep_options and not context.force
        return cls(options, context.for_workers(), threads, keep, progress, cluster)
