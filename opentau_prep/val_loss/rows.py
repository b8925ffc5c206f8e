"""A breakdown of validation losses as the rows of one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["LossRow", "result_rows"]

_TOTAL: Final = "total"


@dataclass(frozen=True)
class LossRow:
    """One line of the table.

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
