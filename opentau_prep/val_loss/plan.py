"""One validation pass over all datasets at once, instead of one pass per dataset.

A loop over datasets rounds every dataset up to whole rounds of (ranks x batch size): a dataset of
one frame keeps one rank busy and all others waiting. Concatenated, only the last round is ragged.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ConfigError, DataError

__all__ = ["BatchSampler", "ValidationPlan", "plan_validation"]


class BatchSampler(Sequence[list[int]]):
    """Batches of positions, for `torch.utils.data.DataLoader(dataset, batch_sampler=...)`.

    Each batch is full: the rows that are missing in the last one are filler, see
    `ValidationPlan.weights`.

    Attributes:
        batch_size: Positions per batch.
        drop_last: False; accelerate asks.
    """

    drop_last = False

    def __init__(self, plan: ValidationPlan, rank: int | None) -> None:
        self._plan = plan
        self._rank = rank
        self.batch_size = plan.batch_size

    def __len__(self) -> int:
        return self._plan.rounds * (self._plan.world_size if self._rank is None else 1)

    @overload
    def __getitem__(self, index: SupportsIndex) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> list[int] | list[list[int]]:
        chosen = range(len(self))[index]
        if isinstance(chosen, range):
            return [self._batch(i) for i in chosen]
        return self._batch(chosen)

    def _batch(self, i: int) -> list[int]:
        turn, rank = divmod(i, self._plan.world_size) if self._rank is None else (i, self._rank)
        start, stop = self._plan.span(rank)
        # A rank without positions repeats one of its neighbors'.
        last = max(stop - 1, 0)
        low = start + turn * self.batch_size
        return [min(position, last) for position in range(low, low + self.batch_size)]


@dataclass(frozen=True)
class ValidationPlan:
    """Which samples of the concatenated validation sets each rank evaluates, in how many rounds.

    A position is `offset of the dataset + row in its validation set`, the datasets in the order of
    `lengths`. Each rank has one contiguous range of positions; the ranges follow each other in rank
    order, cover every position once, and their sizes differ by at most one sample.

    In each round every rank evaluates one full batch, so that ranks that meet in every forward (a
    sharded model: FSDP, ZeRO-3) meet equally often. What is missing in a rank's last batch is
    filled with positions that it, or a neighbor, has evaluated already: filler, of weight 0.

    Attributes:
        lengths: Samples in each dataset's validation set, in mixture order.
        world_size: Number of ranks.
        batch_size: Samples that a rank evaluates at once.
    """

    lengths: tuple[int, ...]
    world_size: int
    batch_size: int

    @property
    def total(self) -> int:
        """Samples in all validation sets together."""
        return sum(self.lengths)

    @property
    def rounds(self) -> int:
        """Batches of every rank: how often all ranks meet."""
        return _ceil_div(self.total, self.world_size * self.batch_size)

    @property
    def rounds_per_dataset_loop(self) -> int:
        """Rounds of a loop over one loader per dataset, its batches dealt to the ranks in turn."""
        per_round = self.world_size * self.batch_size
        return sum(_ceil_div(length, per_round) for length in self.lengths)

    def span(self, rank: SupportsIndex) -> tuple[int, int]:
        """Return the rank's positions as `(start, stop)`.

        Raises:
            ConfigError: There is no such rank.
        """
        r = _whole(rank, "rank", minimum=0)
        if r >= self.world_size:
            raise ConfigError(
                f"rank {r} of a plan for {self.world_size} rank(s)",
                where="ValidationPlan",
                hint="Ranks count from 0; plan with the world size that runs.",
            )
        share, extra = divmod(self.total, self.world_size)
        start = r * share + min(r, extra)
        return start, start + share + (r < extra)

    def indices(self, rank: SupportsIndex) -> NDArray[np.int64]:
        """Return the rank's positions in the concatenated validation sets, ascending, (n,) int64.

        Raises:
            ConfigError: There is no such rank.
        """
        return np.arange(*self.span(rank), dtype=np.int64)

    def batches(self, rank: SupportsIndex | None = None) -> BatchSampler:
        """Return a batch sampler: `rounds` lists of `batch_size` positions, none of them empty.

        With a rank, that rank's batches, for a loader of its own. Without, every rank's in turn
        (round 0 of rank 0, of rank 1, ...), for a loader that `Accelerator.prepare` deals to the
        ranks and whose batches it moves to their devices.

        Raises:
            ConfigError: There is no such rank.
        """
        if rank is not None:
            self.span(rank)
        return BatchSampler(self, None if rank is None else operator.index(rank))

    def weights(self, rank: SupportsIndex) -> NDArray[np.float32]:
        """Return what each row of the rank's batches weighs: 1, or 0 for filler.

        Returns:
            (rounds, batch_size) float32, parallel to `batches(rank)`, for `GroupedLosses.update`.

        Raises:
            ConfigError: There is no such rank.
        """
        start, stop = self.span(rank)
        row = np.arange(self.rounds * self.batch_size).reshape(self.rounds, self.batch_size)
        return (row < stop - start).astype(np.float32)

    def locate(self, positions: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (dataset, row in its validation set) of each position, two (n,) int64 arrays.

        Args:
            positions: (n,) integers in `[0, total)`.

        Raises:
            DataError: A position lies outside the validation sets.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.total):
            raise DataError(
                f"positions {wanted.min()} to {wanted.max()} where 0 to {self.total - 1} exist",
                where="ValidationPlan",
                hint="Take positions from `indices` or `batches` of the same plan.",
            )
        ends = np.asarray(list(accumulate(self.lengths)), dtype=np.int64)
        dataset = np.searchsorted(ends, wanted, side="right").astype(np.int64)
        starts = ends - np.asarray(self.lengths, dtype=np.int64)
        return dataset, wanted - starts[dataset] if wanted.size else wanted

    @property
    def expected_speed_up(self) -> float:
        """Rounds of the per-dataset loop over rounds of this pass; 1 when there is nothing to do.

        An upper bound: it supposes that a round of the per-dataset loop costs the same however
        full its batches are, which is true where latency, data loading or the gather dominate.
        """
        return self.rounds_per_dataset_loop / self.rounds if self.rounds else 1.0

    def as_json(self) -> dict[str, Any]:
        """Return the plan as a JSON-ready mapping, ranges as `[start, stop)` positions."""
        offsets = list(accumulate(self.lengths, initial=0))
        spans = [self.span(rank) for rank in range(self.world_size)]
        return {
            "world_size": self.world_size,
            "batch_size": self.batch_size,
            "total_samples": self.total,
            "lengths": list(self.lengths),
            "offsets": offsets[:-1],
            "rounds": self.rounds,
            "rounds_per_dataset_loop": self.rounds_per_dataset_loop,
            "expected_speed_up": self.expected_speed_up,
            "ranks": [
                {"rank": rank, "range": [start, stop], "samples": stop - start}
                for rank, (start, stop) in enumerate(spans)
            ],
        }


def plan_validation(
    lengths: Sequence[SupportsIndex] | NDArray[Any], *, world_size: int, batch_size: int
) -> ValidationPlan:
    """Return the plan of one validation pass over the concatenated validation sets.

    Every sample is evaluated once; nothing random is involved, so every rank that calls this with
    the same arguments holds the same plan. Example: lengths `[1, 4]` over 2 ranks give rank 0
    positions 0, 1, 2 and rank 1 positions 3, 4.

    Args:
        lengths: Samples in each dataset's validation set, in mixture order; zeros are allowed.
        world_size: Number of ranks, at least 1.
        batch_size: Samples that a rank evaluates at once, at least 1.

    Raises:
        ConfigError: An argument is not a whole number, or is too small.
    """
    return ValidationPlan(
        lengths=tuple(_whole(n, f"lengths[{i}]", minimum=0) for i, n in enumerate(lengths)),
        world_size=_whole(world_size, "world_size", minimum=1),
        batch_size=_whole(batch_size, "batch_size", minimum=1),
    )


def _whole(value: SupportsIndex, name: str, *, minimum: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = minimum - 1
    if number < minimum or isinstance(value, (bool, np.bool_)):
        raise ConfigError(
            f"{value!r} where a whole number of at least {minimum} is needed", where=name
        )
    return number


def _ceil_div(value: int, by: int) -> int:
    return -(-value // by)
