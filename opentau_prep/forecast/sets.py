"""What a policy was normalized with: sets of named stats, and whose formula uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ConfigError
from opentau_prep.forecast.formulas import Formula, Normalization
from opentau_prep.forecast.mismatch import Mismatch

__all__ = ["ALIASES", "STATS", "FeatureStats", "StatSet", "StatsSource"]

FeatureStats = Mapping[str, NDArray[np.float64]]
"""Stat (`min`, `max`, `mean`, `std`, `q01`, ...) -> (D,) float64."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "state": "state",
        "observation.state": "state",
        "observation_state": "state",
        "proprio": "state",
        "actions": "actions",
        "action": "actions",
    }
)
STATS = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")


@dataclass(frozen=True)
class StatSet:
    """The stats that some datasets are normalized with.

    Attributes:
        name: What the source calls it: a head's key, a dataset, an asset; empty for the only one.
        features: `state` and `actions` -> stats.
        members: The datasets that it is meant for, where the source says so.
        normalized: Feature -> (D,) whether a dim is normalized at all, where the source says so.
    """

    name: str
    features: Mapping[str, FeatureStats]
    members: Sequence[str] = ()
    normalized: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True)
class StatsSource:
    """Where stats come from, and how their trainer uses them.

    Attributes:
        kind: `norm heads`, `LeRobot stats`, `openpi norm stats`, `RLDS statistics`,
            `LeRobot checkpoint`, `OpenTau checkpoint`.
        path: The file that was read.
        formula: Whose formula normalizes with them.
        sets: The stats.
        modes: Feature -> the mode that the source declares; empty where it declares none.
        faults: Feature -> what is wrong with the source itself, in one sentence.
        audited: (dataset, feature) -> what the audit of its head says of it, where the stats are
            the heads of the very datasets: pooled with a faulty one, they are no measure of it.
            None for all others.
    """

    kind: str
    path: str
    formula: Formula
    sets: Sequence[StatSet]
    modes: Mapping[str, Normalization | None] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    audited: Mapping[tuple[str, str], Sequence[Mismatch]] | None = None

    @property
    def is_checkpoint(self) -> bool:
        """Whether weights were trained with these stats."""
        return self.kind.endswith("checkpoint") or self.kind == "openpi norm stats"

    def choose(self, names: Sequence[str], key: str, wanted: str | None = None) -> StatSet:
        """Return the set that a dataset is normalized with.

        Args:
            names: What the dataset is called: its name in the mixture, its repo id.
            key: Its norm key.
            wanted: The set that the user named, if any.

        Raises:
            ConfigError: There are several, and none is for it.
        """
        if wanted is not None:
            found = [each for each in self.sets if each.name == wanted]
            if not found:
                raise ConfigError(
                    f"has no stats called {wanted!r}; there are {self._names()}", where=self.path
                )
            return found[0]
        if len(self.sets) == 1:
            return self.sets[0]
        called = {*names, *(name.rpartition("/")[2] for name in names)}
        for each in self.sets:
            if called.intersection(each.members) or each.name in called:
                return each
        for each in self.sets:
            if each.name == key:
                return each
        raise ConfigError(
            f"has several stats, none of them for {names[0]!r}: {self._names()}",
            where=self.path,
            hint="Choose one with --stats-key.",
        )

    def _names(self) -> str:
        shown = ", ".join(repr(each.name) for each in self.sets[:20])
        more = len(self.sets) - 20
        return f"{shown} and {more} more" if more > 0 else shown
