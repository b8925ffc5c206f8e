"""One part of a mixture's datasets: for processes that share the work without talking."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from opentau_prep.errors import ConfigError

__all__ = ["Shard"]

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1.

    Attributes:
        number: 1 to `count`.
        count: How many parts there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`; raise `ConfigError` for anything else."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(
                f"{text!r} is no part of a whole",
                where="--shard",
                hint="Expected i/n with 1 <= i <= n, such as 1/8.",
            )
        return cls(int(match[1]), int(match[2]))

    def choose(self, items: Sequence[T], sizes: Sequence[int]) -> list[T]:
        """Return this part's items, in their order.

        The largest item goes first, each to the part that is smallest so far, so that every process
        divides alike and no part is larger than the mean by more than one item.

        Args:
            items: What is divided.
            sizes: How much work each item is, such as its frames.
        """
        loads = [(0, part) for part in range(1, self.count + 1)]
        mine = []
        for index in sorted(range(len(items)), key=lambda i: (-sizes[i], i)):
            load, part = heapq.heappop(loads)
            heapq.heappush(loads, (load + max(1, sizes[index]), part))
            if part == self.number:
                mine.append(index)
        return [items[index] for index in sorted(mine)]
