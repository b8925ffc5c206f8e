"""How a run is carried out: what every verb of the library takes besides its own arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from opentau_prep.shard import Shard
from opentau_prep.storage.urls import check_written

if TYPE_CHECKING:
    from opentau_prep.artifacts.ensure import Artifact, File
    from opentau_prep.artifacts.place import Place
    from opentau_prep.artifacts.provenance import Recipe
    from opentau_prep.artifacts.rank import Rank
    from opentau_prep.config.schema import Mixture
    from opentau_prep.engine import Failure

__all__ = ["Progress", "RunContext"]

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, name of what is in hand), at first with 0 done."""


def _silent(what: str, done: int, total: int, name: str) -> None:
    """Show nothing."""


def _dry(fn: Callable[[T], R], item: T) -> R:
    # Where the work is done, which may be another process.
    from opentau_prep.artifacts.fingerprint import cache_left_alone

    with cache_left_alone():
        return fn(item)


@dataclass(frozen=True)
class RunContext:
    """The options that all commands share, as the library sees them.

    Attributes:
        workers: Processes; None takes what the machine or the job's allocation offers.
        engine: `local`, `dask` or `ray`.
        engine_address: Where a cluster engine's scheduler is.
        force: Recompute, and replace files that were not written by this tool (they are kept
            next to the new ones).
        dry_run: Compute and tell, but write nothing.
        keep_going: Carry on with the other datasets when one fails.
        artifact_root: Where artifacts go instead of the datasets' own folders.
        prep_dir: Where everything made for a mixture as a whole goes instead of `<stem>.prep/` next
            to its JSON file.
        download: Whether datasets may be fetched from the hub.
        shard: Which part of the datasets is worked on; None: all of them.
        rank: This process among the launcher's; None asks the environment.
        progress: Called as work gets done.

    Raises:
        ConfigError: `artifact_root` or `prep_dir` is a URL: nothing is written into a store.
    """

    workers: int | None = None
    engine: str = "local"
    engine_address: str | None = None
    force: bool = False
    dry_run: bool = False
    keep_going: bool = False
    artifact_root: Path | None = None
    prep_dir: Path | None = None
    download: bool = False
    shard: Shard | None = None
    rank: Rank | None = None
    progress: Progress = _silent

    def __post_init__(self) -> None:
        for folder, option in (
            (self.artifact_root, "--artifact-root"),
            (self.prep_dir, "--prep-dir"),
        ):
            if folder is not None:
                check_written(folder, option)

    def prep_path(self, mixture: Mixture, artifact: str) -> Path:
        """Return the default place of something made for a mixture as a whole.

        It does not depend on the working directory: `<stem>.prep/` next to the mixture's JSON file,
        or `prep_dir`. A mixture of plain roots has no file: then the folder is
        `<mixture_id>.prep/` in `artifact_root`, or in the working directory.

        Args:
            mixture: The mixture.
            artifact: A key of `artifacts.catalog.MIXTURE_OUTPUTS`.
        """
        from opentau_prep.artifacts.catalog import MIXTURE_OUTPUTS

        if self.prep_dir is not None:
            folder = self.prep_dir
        elif mixture.path is not None:
            folder = mixture.path.with_name(f"{mixture.path.stem}.prep")
        else:
            folder = (self.artifact_root or Path()) / f"{mixture.mixture_id}.prep"
        return folder / MIXTURE_OUTPUTS[artifact]

    @property
    def this_rank(self) -> Rank:
        """This process among the launcher's, detected where it was not named."""
        from opentau_prep.artifacts.rank import Rank

        return self.rank or Rank.detect()

    def for_workers(self) -> RunContext:
        """Return the context as it travels to other processes: with its rank, without callbacks."""
        return replace(self, rank=self.this_rank, progress=_silent)

    def ensure(self, artifact: Artifact[T]) -> T:
        """Return an artifact as it should be; see `artifacts.ensure.ensure`."""
        from opentau_prep.artifacts.ensure import ensure

        return ensure(artifact, rank=self.this_rank, force=self.force, dry_run=self.dry_run)

    def ensure_file(self, place: Place, build: Callable[[], bytes], recipe: Recipe) -> File:
        """Return an up-to-date file; see `artifacts.ensure.ensure_file`."""
        from opentau_prep.artifacts.ensure import ensure_file

        rank, force, dry_run = self.this_rank, self.force, self.dry_run
        return ensure_file(place, build, recipe, rank=rank, force=force, dry_run=dry_run)

    def alone(self) -> RunContext:
        """Return the context for work that stays in this process."""
        return replace(self, engine="local", engine_address=None, workers=1)

    def stays_here(self, n_items: int) -> bool:
        """Whether `map` over so many items works in this process, where callbacks can be used."""
        return n_items <= 1 and self.engine_address is None

    def map(
        self,
        what: str,
        fn: Callable[[T], R],
        items: Sequence[T],
        labels: Sequence[str],
        *,
        items_per_worker: int = 1,
    ) -> list[R | Failure]:
        """Return `fn(item)` for every item, in order, on this run's engine; see `map_ordered`.

        Args:
            what: The work's name, for the progress display.
            fn: Must be picklable, as its items and results.
            items: Its arguments.
            labels: What to call each of them in messages.
            items_per_worker: How many items are worth starting a process for.

        Raises:
            PrepError: An item failed and `keep_going` is off.
        """
        from opentau_prep.engine import get_engine, map_ordered

        do = partial(_dry, fn) if self.dry_run else fn
        # The processes of a cluster that runs already cost nothing to start.
        small = len(items) <= items_per_worker and self.engine_address is None
        workers = 1 if small else self.workers

        def show(done: int) -> None:
            self.progress(what, done, len(items), labels[min(done, len(items) - 1)])

        if items:
            show(0)
        return map_ordered(
            do,
            items,
            labels=labels,
            engine=get_engine(self.engine, self.engine_address, workers=workers),
            keep_going=self.keep_going,
            on_progress=lambda done, _total, _label: show(done),
        )
