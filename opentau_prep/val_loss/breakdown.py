"""From exact tallies to the numbers people read: by dataset and control mode, by norm head, in all.

All sums and weights stay exact rationals; each number is rounded once, at the end, to the nearest
float64. The mapping has these parts, in mixture order where the heads are known, else sorted:

- `groups`: one entry a (dataset, control mode) that has samples: `dataset`, `control_mode`,
  `norm_heads` (labels), `samples`, `recovered` (samples whose control mode was brought back),
  `losses`;
- `norm_heads`: one entry a head that has samples: `dataset_index` (its row), `norm_key`,
  `datasets`, `weight` (sum of its members' mixture weights), `samples`, `losses`;
- `aggregate`: `weights` (`mixture`, or `samples` when none were given), `losses`: loss name ->
  `loss`, `weight` (of the heads that count), `heads` (how many), `samples`, `non_finite`, `count`;
- `metrics`: flat logger keys -> float: `Validation/<dataset>/<control_mode>/<loss>`,
  `ValidationHead/<norm_key>/<loss>` and `Validation/<loss>` for the aggregate.

A group's or head's `losses` map a name to `loss`, `count`, `samples`, `non_finite`. `loss` is null
when nothing was counted (all counts 0, or no finite sample), and then has no metric. With loss
weights, `total` stands beside `losses`, and in the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from opentau_prep import notices
from opentau_prep.errors import ConfigError
from opentau_prep.val_loss.provenance import Provenance, recover_modes
from opentau_prep.val_loss.samples import NO_HEAD, Cell
from opentau_prep.val_loss.tally import Tally, to_float

__all__ = ["build_result"]

Tallies = Mapping[str, Tally]
Losses = dict[str, Fraction | None]


@dataclass(frozen=True)
class _Head:
    row: int
    label: str
    weight: Fraction
    datasets: list[str]
    tallies: dict[str, Tally]


def build_result(
    cells: Mapping[Cell, Tallies], known: Provenance, loss_weights: Mapping[str, float] | None
) -> dict[str, Any]:
    """Return the breakdown of the cells; the module says what is in it.

    Raises:
        ConfigError: A dataset has no mixture weight, or a loss weight is not finite.
        DataError: A sample's norm-head row is not that of its dataset.
    """
    known.check(cells)
    scale = _exact_loss_weights(loss_weights)
    heads = _heads(cells, known)
    metrics: dict[str, float] = {}
    groups = [
        _with_losses(entry, tallies, f"Validation/{_group_path(entry)}", scale, metrics)
        for entry, tallies in _groups(cells, known)
    ]
    _warn_non_finite(groups)
    return {
        "groups": groups,
        "norm_heads": [
            _with_losses(
                _head_entry(head), head.tallies, f"ValidationHead/{head.label}", scale, metrics
            )
            for head in heads
        ],
        "aggregate": _aggregate(heads, known, scale, metrics),
        "metrics": metrics,
    }


def _groups(
    cells: Mapping[Cell, Tallies], known: Provenance
) -> Iterable[tuple[dict[str, Any], dict[str, Tally]]]:
    modes = recover_modes(cells, known)
    members: dict[tuple[str, str], list[Cell]] = {}
    for cell, mode in modes.items():
        members.setdefault((cell.dataset, mode), []).append(cell)
    place = {name: i for i, name in enumerate(known.head_of)}
    for dataset, mode in sorted(members, key=lambda key: (place.get(key[0], len(place)), key)):
        group = members[dataset, mode]
        rows = sorted({cell.dataset_index for cell in group} - {NO_HEAD})
        masked = [cells[cell] for cell in group if cell.control_mode is None]
        entry = {
            "dataset": dataset,
            "control_mode": mode,
            "norm_heads": [known.head_label(row) for row in rows],
            "samples": _samples(_pool(cells[cell] for cell in group)),
            "recovered": _samples(_pool(masked)) if mode != "unknown" else 0,
        }
        yield entry, _pool(cells[cell] for cell in group)


def _heads(cells: Mapping[Cell, Tallies], known: Provenance) -> list[_Head]:
    of_dataset: dict[str, list[Tallies]] = {}
    of_row: dict[int, list[Cell]] = {}
    for cell, tallies in cells.items():
        of_dataset.setdefault(cell.dataset, []).append(tallies)
        of_row.setdefault(cell.dataset_index, []).append(cell)
    samples_of = {name: _samples(_pool(parts)) for name, parts in of_dataset.items()}
    heads = []
    for row in sorted(set(of_row) - {NO_HEAD}):
        pooled = _pool(cells[cell] for cell in of_row[row])
        members = known.members(row, {cell.dataset for cell in of_row[row]})
        weight = sum((_weight(name, known, samples_of) for name in members), Fraction(0))
        heads.append(_Head(row, known.head_label(row), weight, members, pooled))
    return heads


def _weight(dataset: str, known: Provenance, samples_of: Mapping[str, int]) -> Fraction:
    if known.weights is None:
        return Fraction(samples_of.get(dataset, 0))
    if dataset not in known.weights:
        raise ConfigError(
            "no mixture weight", where=f"dataset {dataset}", hint="Pass a weight for every dataset."
        )
    return known.weights[dataset]


def _aggregate(
    heads: list[_Head],
    known: Provenance,
    scale: Mapping[str, Fraction] | None,
    metrics: dict[str, float],
) -> dict[str, Any]:
    exact: Losses = {}
    entries = {}
    for name in sorted({name for head in heads for name in head.tallies}):
        having = [head for head in heads if name in head.tallies]
        counted = [head for head in having if head.tallies[name].count]
        weight = sum((head.weight for head in counted), Fraction(0))
        exact[name] = _weighted_loss(name, counted, weight) if counted else None
        whole = Tally.total(head.tallies[name] for head in having)
        entries[name] = {
            "loss": _rounded(exact[name]),
            "weight": _rounded(weight),
            "heads": len(counted),
            **_counts(whole),
        }
    out: dict[str, Any] = {"weights": "samples" if known.weights is None else "mixture"}
    out["losses"] = entries
    _add_metrics(out, exact, "Validation", scale, metrics)
    return out


def _weighted_loss(name: str, heads: list[_Head], weight: Fraction) -> Fraction:
    if not weight:
        return Fraction(0)
    total = sum((head.weight * (head.tallies[name].loss or 0) for head in heads), Fraction(0))
    return total / weight


def _with_losses(
    entry: dict[str, Any],
    tallies: Tallies,
    prefix: str,
    scale: Mapping[str, Fraction] | None,
    metrics: dict[str, float],
) -> dict[str, Any]:
    """Return the entry with its losses, having put them among the metrics too."""
    losses = {
        name: {"loss": _rounded(tally.loss), **_counts(tally)}
        for name, tally in sorted(tallies.items())
    }
    out = {**entry, "losses": losses}
    _add_metrics(out, {name: tallies[name].loss for name in losses}, prefix, scale, metrics)
    return out


def _add_metrics(
    entry: dict[str, Any],
    exact: Losses,
    prefix: str,
    scale: Mapping[str, Fraction] | None,
    metrics: dict[str, float],
) -> None:
    shown = {f"{prefix}/{name}": value for name, value in exact.items()}
    if scale is not None:
        parts = [weight * (exact.get(name) or 0) for name, weight in scale.items()]
        known = any(exact.get(name) is not None for name in scale)
        total = sum(parts, Fraction(0)) if known else None
        entry["total"] = _rounded(total)
        shown[f"{prefix}/total"] = total
    for key, value in shown.items():
        number = None if value is None else to_float(value)
        if number is not None and math.isfinite(number):
            metrics[key] = number


def _group_path(entry: Mapping[str, Any]) -> str:
    # Dataset names have slashes of their own; a slash in the mode would make two groups share a
    # key.
    return f"{entry['dataset']}/{entry['control_mode'].replace('/', '%2F')}"


def _head_entry(head: _Head) -> dict[str, Any]:
    return {
        "dataset_index": head.row,
        "norm_key": head.label,
        "datasets": head.datasets,
        "weight": _rounded(head.weight),
        "samples": _samples(head.tallies),
    }


def _counts(tally: Tally) -> dict[str, Any]:
    return {
        "count": tally.count_as_number,
        "samples": tally.samples,
        "non_finite": tally.non_finite,
    }


def _pool(parts: Iterable[Tallies]) -> dict[str, Tally]:
    pooled: dict[str, Tally] = {}
    for tallies in parts:
        for name, tally in tallies.items():
            pooled[name] = pooled.get(name, Tally()) + tally
    return pooled


def _samples(tallies: Tallies) -> int:
    # A loop may bring its losses in one update or in several: the samples are the same ones.
    return max((tally.samples for tally in tallies.values()), default=0)


def _rounded(value: Fraction | None) -> float | str | None:
    """Return the nearest float64, or the text that own files use for what JSON cannot say."""
    if value is None:
        return None
    number = to_float(value)
    return number if math.isfinite(number) else ("Infinity" if number > 0 else "-Infinity")


def _exact_loss_weights(loss_weights: Mapping[str, float] | None) -> dict[str, Fraction] | None:
    if loss_weights is None:
        return None
    try:
        return {name: Fraction(float(weight)) for name, weight in loss_weights.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{dict(loss_weights)!r} holds a weight that is not a finite number",
            where="loss_weights",
        ) from error


def _warn_non_finite(groups: Iterable[Mapping[str, Any]]) -> None:
    for group in groups:
        broken = {n: e["non_finite"] for n, e in group["losses"].items() if e["non_finite"]}
        if broken:
            told = ", ".join(f"{count} of {name}" for name, count in broken.items())
            notices.warn(
                "non_finite_loss",
                f"{group['dataset']} ({group['control_mode']}): samples with a NaN or infinite "
                f"loss were left out: {told} in {group['samples']} samples.",
                dataset=group["dataset"],
                control_mode=group["control_mode"],
                non_finite=broken,
            )
