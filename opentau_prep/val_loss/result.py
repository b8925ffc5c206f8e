"""From exact tallies to the numbers people read: by dataset and control mode, by norm head, in all.

All sums and weights stay exact rationals; each number is rounded once, at the end, to the nearest
float64. The mapping has these parts, in mixture order where the heads are known, else sorted:

- `groups`: one entry per (dataset, control mode) that has samples: `dataset`, `control_mode`,
  `norm_heads` (labels), `samples`, `recovered` (samples whose masked control mode was recovered),
  `losses`;
- `norm_heads`: one entry per head that has samples: `dataset_index` (its row), `norm_key`,
  `datasets`, `weight` (sum of its members' mixture weights), `samples`, `losses`;
- `aggregate`: `weights` (`mixture`, or `samples` when none were given), `losses`: loss name ->
  `loss`, `weight` (of the heads that count), `heads` (how many), `samples`, `non_finite`, `count`;
- `metrics`: flat logger keys -> float, named as on OpenTau's dashboards (scripts/train.py, commit
  0b153a9): `Validation/<norm_key>/<metric>`, `Validation/by_dataset/<dataset>/<metric>` and, for
  the aggregate, `Validation/<metric>`, where a metric is `MSE Loss`, `CE Loss`, `L1 Loss`,
  `Accuracy`, the name of any other loss, or `Loss`, the weighted total. For datasets whose samples
  show several control modes also `Validation/by_control_mode/<dataset>/<control_mode>/<metric>`.

A group's or head's `losses` map a name to `loss`, `count`, `samples`, `non_finite`. `loss` is null
when nothing was counted (all counts 0, or no finite sample), and then has no metric. In the
aggregate a head whose counts are all 0 adds 0, as in training; a head without a finite sample is
left out. With loss weights, each entry has a `total` too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from opentau_prep import notices
from opentau_prep.errors import ConfigError, DataError
from opentau_prep.notices import some_names
from opentau_prep.val_loss.exact import Tally, to_float
from opentau_prep.val_loss.samples import NO_HEAD, Cell
from opentau_prep.val_loss.sources import UNKNOWN_MODE, MixtureFacts, recover_modes

__all__ = ["LossRow", "build_result", "result_rows"]

Tallies = Mapping[str, Tally]
Losses = Mapping[str, Fraction | None]

_TOTAL: Final = "total"
_METRICS: Final = {"MSE": "MSE Loss", "CE": "CE Loss", "L1": "L1 Loss", _TOTAL: "Loss"}
# OpenTau's default `loss_weighting` (configs/train.py, commit 0b153a9).
_TRAINING_WEIGHTS: Final = {"MSE": Fraction(1), "CE": Fraction(1)}


@dataclass(frozen=True)
class _Head:
    row: int
    label: str
    weight: Fraction
    datasets: list[str]
    tallies: dict[str, Tally]


class _Metrics:
    """The logger keys so far, and how losses make a weighted total."""

    def __init__(self, loss_weights: Mapping[str, float] | None) -> None:
        self.found: dict[str, float] = {}
        self.with_total = loss_weights is not None
        self._scale = _exact_loss_weights(loss_weights)

    def total(self, losses: Losses) -> Fraction | None:
        """Return the weighted sum of those losses that there are; None when there are none."""
        known = {name: value for name, value in losses.items() if value is not None}
        if not known.keys() & self._scale.keys():
            return None
        return sum((w * known.get(name, 0) for name, w in self._scale.items()), Fraction(0))

    def add(self, prefix: str, tallies: Tallies) -> None:
        """Add the losses of some samples, and their total."""
        losses = _losses(tallies)
        self.add_exact(prefix, losses, self.total(losses))

    def add_exact(self, prefix: str, losses: Losses, total: Fraction | None) -> None:
        """Add losses and a total; what is None or infinite gets no key."""
        for name, value in [*losses.items(), (_TOTAL, total)]:
            number = None if value is None else to_float(value)
            if number is not None and math.isfinite(number):
                self.found[f"{prefix}/{_METRICS.get(name, name)}"] = number


def build_result(
    cells: Mapping[Cell, Tallies],
    means: Tallies,
    known: MixtureFacts,
    loss_weights: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Return the breakdown of the cells; the module says what is in it.

    Args:
        cells: Where samples come from -> their tallies by loss name; datasets by name.
        means: Loss name -> tally of the losses that came as batch means.
        known: What is known of the mixture.
        loss_weights: Weights of the losses in a total.

    Raises:
        ConfigError: A dataset has no mixture weight, or a loss weight is not finite.
        DataError: A sample's norm-head row is not that of its dataset, or a loss came both per
            sample and as batch means.
    """
    known.check(cells)
    if twice := sorted(set(means) & {name for tallies in cells.values() for name in tallies}):
        raise DataError(
            f"{some_names(twice)} came both per sample and as batch means",
            where="GroupedLosses.result",
            hint="Pass each loss to `update` or to `update_means`, not to both.",
        )
    metrics = _Metrics(loss_weights)
    heads = _heads(cells, known)
    groups = list(_groups(cells, known))
    for head in heads:
        metrics.add(f"Validation/{head.label}", head.tallies)
    modes = Counter(entry["dataset"] for entry, _ in groups)
    of_dataset = _by_dataset(cells)
    for name in modes:  # in the groups' order
        metrics.add(f"Validation/by_dataset/{name}", of_dataset[name])
    for entry, tallies in groups:
        if modes[entry["dataset"]] > 1:
            metrics.add(f"Validation/by_control_mode/{_group_path(entry)}", tallies)
    shown = [_with_losses(entry, tallies, metrics) for entry, tallies in groups]
    _warn_non_finite(shown)
    return {
        "groups": shown,
        "norm_heads": [_with_losses(_head_entry(h), h.tallies, metrics) for h in heads],
        "aggregate": _aggregate(heads, means, known, metrics),
        "metrics": metrics.found,
    }


def _groups(
    cells: Mapping[Cell, Tallies], known: MixtureFacts
) -> Iterator[tuple[dict[str, Any], dict[str, Tally]]]:
    modes = recover_modes(cells, known)
    members: dict[tuple[str, str], list[Cell]] = {}
    for cell, mode in modes.items():
        members.setdefault((str(cell.dataset), mode), []).append(cell)
    place = {name: i for i, name in enumerate(known.dataset_to_norm_index)}
    for dataset, mode in sorted(members, key=lambda key: (place.get(key[0], len(place)), key)):
        group = members[dataset, mode]
        rows = sorted({cell.dataset_index for cell in group} - {NO_HEAD})
        masked = [cells[cell] for cell in group if cell.control_mode is None]
        pooled = _pool(cells[cell] for cell in group)
        entry = {
            "dataset": dataset,
            "control_mode": mode,
            "norm_heads": [known.head_label(row) for row in rows],
            "samples": _samples(pooled),
            "recovered": _samples(_pool(masked)) if mode != UNKNOWN_MODE else 0,
        }
        yield entry, pooled


def _heads(cells: Mapping[Cell, Tallies], known: MixtureFacts) -> list[_Head]:
    samples_of = {name: _samples(tallies) for name, tallies in _by_dataset(cells).items()}
    of_row: dict[int, list[Cell]] = {}
    for cell in cells:
        of_row.setdefault(cell.dataset_index, []).append(cell)
    heads = []
    for row in sorted(set(of_row) - {NO_HEAD}):
        pooled = _pool(cells[cell] for cell in of_row[row])
        members = known.members(row, {str(cell.dataset) for cell in of_row[row]})
        weight = sum((_weight(name, known, samples_of) for name in members), Fraction(0))
        heads.append(_Head(row, known.head_label(row), weight, members, pooled))
    return heads


def _by_dataset(cells: Mapping[Cell, Tallies]) -> dict[str, dict[str, Tally]]:
    parts: dict[str, list[Tallies]] = {}
    for cell, tallies in cells.items():
        parts.setdefault(str(cell.dataset), []).append(tallies)
    return {name: _pool(tallies) for name, tallies in parts.items()}


def _weight(dataset: str, known: MixtureFacts, samples_of: Mapping[str, int]) -> Fraction:
    if known.weights is None:
        return Fraction(samples_of.get(dataset, 0))
    if dataset not in known.weights:
        raise ConfigError(
            "no mixture weight", where=f"dataset {dataset}", hint="Pass a weight for every dataset."
        )
    return known.weights[dataset]


def _aggregate(
    heads: list[_Head], means: Tallies, known: MixtureFacts, metrics: _Metrics
) -> dict[str, Any]:
    of_heads = [(head.weight, _losses(head.tallies, empty=Fraction(0))) for head in heads]
    exact: dict[str, Fraction | None] = {}
    entries = {}
    for name in sorted({name for head in heads for name in head.tallies}):
        counted = [(weight, losses[name]) for weight, losses in of_heads if name in losses]
        values = [(weight, value) for weight, value in counted if value is not None]
        exact[name] = _weighted_mean(values)
        entries[name] = {
            "loss": _rounded(exact[name]),
            "weight": _rounded(sum((weight for weight, _ in values), Fraction(0))),
            "heads": len(values),
            **_counts(Tally.total(h.tallies[name] for h in heads if name in h.tallies)),
        }
    for name, tally in sorted(means.items()):
        exact[name] = tally.loss
        entries[name] = {"loss": _rounded(tally.loss), "weight": None, "heads": 0, **_counts(tally)}
    totals = [(weight, metrics.total(losses)) for weight, losses in of_heads]
    total = _weighted_mean([(weight, value) for weight, value in totals if value is not None])
    if total is None:
        total = metrics.total(exact)
    metrics.add_exact("Validation", exact, total)
    out = {"weights": "samples" if known.weights is None else "mixture", "losses": entries}
    return {**out, _TOTAL: _rounded(total)} if metrics.with_total else out


def _losses(tallies: Tallies, *, empty: Fraction | None = None) -> dict[str, Fraction | None]:
    """Return loss name -> loss; `empty` where finite samples have nothing to count."""
    return {
        name: empty if not tally.count and tally.samples > tally.non_finite else tally.loss
        for name, tally in sorted(tallies.items())
    }


def _weighted_mean(values: list[tuple[Fraction, Fraction]]) -> Fraction | None:
    """Return the mean of (weight, value) pairs: None of none, 0 where all weights are 0."""
    if not values:
        return None
    weight = sum((weight for weight, _ in values), Fraction(0))
    total = sum((weight * value for weight, value in values), Fraction(0))
    return total / weight if weight else Fraction(0)


def _group_path(entry: Mapping[str, Any]) -> str:
    # Dataset names have slashes; one in the mode would make two groups share a key.
    return f"{entry['dataset']}/{entry['control_mode'].replace('/', '%2F')}"


def _head_entry(head: _Head) -> dict[str, Any]:
    return {
        "dataset_index": head.row,
        "norm_key": head.label,
        "datasets": head.datasets,
        "weight": _rounded(head.weight),
        "samples": _samples(head.tallies),
    }


def _with_losses(entry: dict[str, Any], tallies: Tallies, metrics: _Metrics) -> dict[str, Any]:
    losses = {
        name: {"loss": _rounded(tally.loss), **_counts(tally)}
        for name, tally in sorted(tallies.items())
    }
    out = {**entry, "losses": losses}
    return {**out, _TOTAL: _rounded(metrics.total(_losses(tallies)))} if metrics.with_total else out


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
    """Return the nearest float64, or the text that our files use for what JSON cannot express."""
    if value is None:
        return None
    number = to_float(value)
    return number if math.isfinite(number) else ("Infinity" if number > 0 else "-Infinity")


def _exact_loss_weights(loss_weights: Mapping[str, float] | None) -> dict[str, Fraction]:
    if loss_weights is None:
        return dict(_TRAINING_WEIGHTS)
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
            counts = ", ".join(f"{count} of {name}" for name, count in broken.items())
            notices.warn(
                "non_finite_loss",
                f"{group['dataset']} ({group['control_mode']}): samples with a NaN or infinite "
                f"loss were left out: {counts} in {group['samples']} samples.",
                dataset=group["dataset"],
                control_mode=group["control_mode"],
                non_finite=broken,
            )


@dataclass(frozen=True)
class LossRow:
    """One line of the table of a result.

    Attributes:
        scope: `group`, `norm_head` or `aggregate`.
        dataset: The group's dataset; empty for the other scopes.
        control_mode: The group's control mode; empty for the other scopes.
        norm_head: The head's norm key; of a group, its head's, or empty.
        loss: Loss name, or `total` for the weighted total.
        value: The loss; None when nothing was counted.
        count: What it was divided by; None for a total.
        samples: Samples behind it.
        non_finite: How many of them were left out for a NaN or an infinity.
    """

    scope: str
    dataset: str
    control_mode: str
    norm_head: str
    loss: str
    value: float | str | None
    count: int | float | None
    samples: int
    non_finite: int


def result_rows(result: Mapping[str, Any]) -> list[LossRow]:
    """Return a result of `GroupedLosses` as table rows: groups, heads, aggregate."""
    rows: list[LossRow] = []
    for group in result["groups"]:
        head = ", ".join(group["norm_heads"])
        place = ("group", group["dataset"], group["control_mode"], head)
        rows.extend(_entry_rows(group, place))
    for entry in result["norm_heads"]:
        rows.extend(_entry_rows(entry, ("norm_head", "", "", entry["norm_key"])))
    rows.extend(_entry_rows(result["aggregate"], ("aggregate", "", "", "")))
    return rows


def _entry_rows(entry: Mapping[str, Any], place: tuple[str, str, str, str]) -> Iterator[LossRow]:
    losses = entry["losses"]
    for name, loss in losses.items():
        yield LossRow(
            *place, name, loss["loss"], loss["count"], loss["samples"], loss["non_finite"]
        )
    if _TOTAL in entry:
        samples = max((loss["samples"] for loss in losses.values()), default=0)
        broken = max((loss["non_finite"] for loss in losses.values()), default=0)
        yield LossRow(*place, _TOTAL, entry[_TOTAL], None, samples, broken)
