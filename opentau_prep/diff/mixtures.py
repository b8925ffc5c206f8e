"""Two mixtures: entries, options, shares, and what that does to the norm heads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.config.load import load_mixture
from opentau_prep.diff.stats import Moved, diff_sources
from opentau_prep.errors import PrepError
from opentau_prep.forecast.prepare import own_heads
from opentau_prep.forecast.report import ForecastOptions
from opentau_prep.metadata.locate import LocateOptions
from opentau_prep.metadata.resolve import ResolvedMixture, resolve_mixture
from opentau_prep.notices import collect_notices
from opentau_prep.val_loss.mixture import selected_frames

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext

__all__ = ["diff_mixtures"]

_LEAST_SHARE = 5e-4
_LONGEST = 60


def diff_mixtures(a: Path, b: Path, context: RunContext, notes: list[str]) -> list[Moved]:
    """Return what moved; heads are compared where the datasets of both can be opened."""
    one, other = load_mixture(a), load_mixture(b)
    moved = [*_options(one, other), *_entries(one, other)]
    with collect_notices():
        resolved = [_resolved(each, context, notes) for each in (one, other)]
        if resolved[0] is not None and resolved[1] is not None:
            moved += _shares(resolved[0], resolved[1])
            try:
                heads = [own_heads(each, context, ForecastOptions()) for each in resolved if each]
                moved += diff_sources(heads[0], heads[1], notes)
            except PrepError as fault:
                notes.append(f"heads were not compared: {fault}")
        elif one.weights is not None and other.weights is not None:
            moved += _moved_shares(_weights(one), _weights(other))
    return moved


def _resolved(mixture: Mixture, context: RunContext, notes: list[str]) -> ResolvedMixture | None:
    try:
        return resolve_mixture(mixture, LocateOptions.of_run(context, frames=False))
    except PrepError as fault:
        first = str(fault).partition("\n")[0]
        notes.append(f"heads and shares by frames were not compared: {first}")
        return None


def _options(a: Mixture, b: Mixture) -> Iterator[Moved]:
    before, after = a.as_dict(), b.as_dict()
    for name in before:
        if name not in ("datasets", "weights") and before[name] != after[name]:
            yield Moved("", name, _shown(before[name]), _shown(after[name]))


def _entries(a: Mixture, b: Mixture) -> Iterator[Moved]:
    before = dict(zip(a.dataset_names, a.datasets, strict=True))
    after = dict(zip(b.dataset_names, b.datasets, strict=True))
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield Moved(name, "dataset", "there", "")
        elif name not in before:
            yield Moved(name, "dataset", "", "there")
        else:
            # Where a dataset lies is no difference: mixtures are compared across machines.
            one, other = before[name].as_dict(), after[name].as_dict()
            for field in one:
                if field != "root" and one[field] != other[field]:
                    yield Moved(name, field, _shown(one[field]), _shown(other[field]))


def _weights(mixture: Mixture) -> dict[str, float]:
    return dict(zip(mixture.dataset_names, mixture.weights or (), strict=True))


def _shares(a: ResolvedMixture, b: ResolvedMixture) -> Iterator[Moved]:
    yield from _moved_shares(*(_by_frames(each) for each in (a, b)))


def _by_frames(resolved: ResolvedMixture) -> dict[str, float]:
    if resolved.mixture.weights is not None:
        return _weights(resolved.mixture)
    try:
        return {entry.name: float(selected_frames(entry)) for entry in resolved.entries}
    except PrepError:
        return {}


def _moved_shares(a: dict[str, float], b: dict[str, float]) -> Iterator[Moved]:
    totals = [sum(each.values()) or 1.0 for each in (a, b)]
    for name in [*a, *(name for name in b if name not in a)]:
        before, after = a.get(name, 0.0) / totals[0], b.get(name, 0.0) / totals[1]
        if abs(before - after) > _LEAST_SHARE:
            yield Moved(name, "sampled share", f"{before:.1%}", f"{after:.1%}")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
