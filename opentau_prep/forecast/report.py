"""What a forecast says, as records: per dataset, feature, mode and dim; findings; a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from opentau_prep.errors import ConfigError
from opentau_prep.forecast.formulas import FORMULAS, STATS_OF_MODE, Formula, Normalization
from opentau_prep.forecast.rules import rule_of
from opentau_prep.text import several

if TYPE_CHECKING:
    from opentau_prep.artifacts.store import Outcome
    from opentau_prep.forecast.measure import DimForecast

__all__ = [
    "FORMAT",
    "Forecast",
    "ForecastFinding",
    "ForecastOptions",
    "MemberForecast",
    "ModeForecast",
    "Verdict",
    "WorstMode",
    "worst_mode",
]

FORMAT = "opentau-prep/forecast"
Verdict = Literal["reuse", "recompute", "wrong robot"]
_ORDER: tuple[Verdict, ...] = ("reuse", "recompute", "wrong robot")


@dataclass(frozen=True)
class ForecastOptions:
    """What is forecast.

    Attributes:
        stats: The stats to judge; None: the heads that the mixture has now.
        stats_key: Which of several stats to take for every dataset.
        normalization: The one mode to judge; None: what the stats declare, else all that they are
            enough for.
        formula: Whose formula; None: that of the trainer the stats come from.
        deep: Read the frames.
        chunk_size: Steps of a chunk, where there are stats of delta actions for several sizes.
    """

    stats: Path | None = None
    stats_key: str | None = None
    normalization: Normalization | None = None
    formula: Formula | None = None
    deep: bool = False
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("normalization", STATS_OF_MODE), ("formula", FORMULAS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, not {value!r}")


@dataclass(frozen=True)
class ForecastFinding:
    """One thing that the policy should not see.

    Attributes:
        code: Of the rule.
        kind: What it is, such as `collapsed` or `degrees`.
        dataset: The dataset's name in the mixture.
        feature: `state` or `actions`; None for both.
        dims: Dims of it.
        mode: The mode under which it happens; None for any.
        message: All of it in one sentence.
        hint: What to do.
        command: The line for a shell that does it; None where a person must act.
    """

    code: str
    kind: str
    dataset: str
    feature: str | None
    dims: tuple[int, ...]
    mode: str | None
    message: str
    hint: str
    command: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the finding JSON-ready."""
        return {**self.__dict__, "dims": list(self.dims)}


@dataclass(frozen=True)
class ModeForecast:
    """One feature of a dataset under one mode."""

    feature: str
    mode: Normalization
    dims: Sequence[DimForecast]
    names: Sequence[str]
    origin: str

    def as_json(self) -> dict[str, Any]:
        """Return the record JSON-ready."""
        dims = [
            {**d.as_json(), **({"name": self.names[d.dim]} if self.names else {})}
            for d in self.dims
        ]
        return {"feature": self.feature, "mode": self.mode, "from": self.origin, "dims": dims}


class WorstMode(NamedTuple):
    """A mode, and the largest numbers of any dim of a dataset under it.

    Attributes:
        mode: Its name.
        beyond: The shares beyond 1, 2 and 5; NaN where they are not known of every dim.
        largest: The largest size of a normalized value.
    """

    mode: Normalization
    beyond: tuple[float, float, float]
    largest: float


def worst_mode(
    modes: Sequence[ModeForecast], findings: Sequence[ForecastFinding]
) -> WorstMode | None:
    """Return the mode of the first finding that has one, else the one that leaves most beyond.

    Mean and std have no range to lie beyond: they come last.
    """
    dims: dict[Normalization, list[DimForecast]] = {}
    for each in modes:
        dims.setdefault(each.mode, []).extend(each.dims)
    found = [
        WorstMode(
            mode,
            tuple(max(_sizes([d.beyond[i] for d in group])) for i in range(3)),  # type: ignore[arg-type]
            max((abs(d.largest) for d in group if np.isfinite(d.largest)), default=0.0),
        )
        for mode, group in dims.items()
        if group
    ]
    named = [f.mode for f in findings if f.mode in dims]
    if named:
        return next(each for each in found if each.mode == named[0])
    ranges = [each for each in found if each.mode != "mean_std"]
    return max(ranges or found, key=lambda w: np.nan_to_num(w.beyond[0], nan=2.0), default=None)


def _sizes(shares: Sequence[float]) -> Sequence[float]:
    return [np.nan] if np.isnan(shares).any() else shares


@dataclass(frozen=True)
class MemberForecast:
    """One dataset.

    Attributes:
        dataset: Its name.
        norm_key: The key of its head.
        stats: What the stats it is normalized with are called.
        modes: The numbers.
        findings: What is wrong.
        verdict: What to do with the stats.
        reason: Why, in one sentence.
    """

    dataset: str
    norm_key: str
    stats: str
    modes: Sequence[ModeForecast]
    findings: Sequence[ForecastFinding]
    verdict: Verdict
    reason: str

    @property
    def worst(self) -> WorstMode | None:
        """The mode whose numbers describe the dataset, in a table as in the reason."""
        return worst_mode(self.modes, self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the record JSON-ready."""
        return {
            "dataset": self.dataset,
            "norm_key": self.norm_key,
            "stats": self.stats,
            "verdict": self.verdict,
            "reason": self.reason,
            "findings": [finding.as_json() for finding in self.findings],
            "modes": [mode.as_json() for mode in self.modes],
        }


@dataclass(frozen=True)
class Forecast:
    """The outcome for a mixture.

    Attributes:
        kind: What the stats are: `norm heads`, `LeRobot checkpoint`, ...
        source: Where they were read.
        formula: Whose formula normalizes.
        deep: Whether frames were read.
        members: In mixture order.
        out: What became of the artifact; None where it is left to another rank.
    """

    kind: str
    source: str
    formula: str
    deep: bool
    members: Sequence[MemberForecast]
    out: Outcome | None = None

    @property
    def findings(self) -> list[ForecastFinding]:
        """Everything that was found, in mixture order."""
        return [finding for member in self.members for finding in member.findings]

    @property
    def verdict(self) -> Verdict:
        """The worst of the datasets' verdicts."""
        return max((m.verdict for m in self.members), key=_ORDER.index)

    @property
    def reason(self) -> str:
        """Why, in one sentence: that of the first dataset with the worst verdict."""
        decisive = [m for m in self.members if m.verdict == self.verdict]
        if len(self.members) == 1:
            return decisive[0].reason
        if self.verdict == "reuse":
            decisive.sort(key=lambda m: -np.nan_to_num(m.worst.beyond[0]) if m.worst else 0.0)
        else:  # a fault with a name before values that are out of range because of it
            decisive.sort(key=lambda m: rule_of(m.findings[0].code).severity != "error")
        others = f" (and {several(len(decisive) - 1, 'more dataset')})" if decisive[1:] else ""
        return f"{decisive[0].dataset}: {decisive[0].reason}{others}"

    def document(self) -> dict[str, Any]:
        """Return the artifact's content, JSON-ready."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "source": self.source,
            "formula": self.formula,
            "deep": self.deep,
            "verdict": self.verdict,
            "datasets": [member.as_json() for member in self.members],
        }

    def as_json(self) -> Mapping[str, Any]:
        """Return content and outcome JSON-ready."""
        out = None if self.out is None else {"path": str(self.out.path), "status": self.out.status}
        return {**self.document(), "out": out}
