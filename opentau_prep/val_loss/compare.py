"""Two breakdowns of validation losses side by side: which group got worse, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from opentau_prep.val_loss.rows import LossRow, result_rows

__all__ = ["Change", "compare_results", "row_key", "worse_than"]

_STATUS_ORDER: Final = ("broken", "worse", "new", "gone", "better", "same")
_NON_FINITE_TEXT: Final = {"Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclass(frozen=True)
class Change:
    """One loss of one group, head or of the aggregate in two runs.

    Attributes:
        scope: As in `LossRow`; so are the next four.
        dataset: See `LossRow`.
        control_mode: See `LossRow`.
        norm_head: See `LossRow`.
        loss: See `LossRow`.
        before: Value in the earlier run; None when it is not there.
        now: Value in this run; None when it is not there.
        change: `now - before`; None unless both are there.
        relative: `change / abs(before)`; None unless both are there and `before` is not 0.
        status: `worse`, `better`, `same`, `new` (only now), `gone` (only before), or `broken`
            (only before, since all its samples are NaN or infinite now).
    """

    scope: str
    dataset: str
    control_mode: str
    norm_head: str
    loss: str
    before: float | None
    now: float | None
    change: float | None
    relative: float | None
    status: str


def compare_results(now: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return every loss of two results side by side: the worst relative rise first.

    Losses that only one of them has are `new`, `gone` or `broken`; of the worse ones, a rise from 0
    counts as the worst of all.
    """
    new, old = _values(now), _values(before)
    broken = {row_key(row) for row in result_rows(now) if row.value is None and row.non_finite}
    changes = []
    for key in dict.fromkeys([*new, *old]):
        change = _change(key, new.get(key), old.get(key))
        lost = change.status == "gone" and key in broken
        changes.append(replace(change, status="broken") if lost else change)
    return tuple(sorted(changes, key=_badness))


def worse_than(changes: Iterable[Change], percent: float) -> tuple[Change, ...]:
    """Return the changes for the worse by more than some percent; `broken` ones always count."""
    return tuple(
        change
        for change in changes
        if change.status == "broken"
        or (
            change.status == "worse"
            and (change.relative is None or change.relative * 100 > percent)
        )
    )


def row_key(row: LossRow | Change) -> tuple[str, str, str, str, str]:
    """Return what identifies a row across runs."""
    # A group's head is no part of its identity: heads change when the mixture does.
    head = row.norm_head if row.scope == "norm_head" else ""
    return (row.scope, row.dataset, row.control_mode, head, row.loss)


def _values(result: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    """Return the losses that have a value, keyed by what identifies them across runs."""
    return {
        row_key(row): _NON_FINITE_TEXT[row.value]
        if isinstance(row.value, str)
        else float(row.value)
        for row in result_rows(result)
        if row.value is not None
    }


def _change(key: tuple[str, ...], now: float | None, before: float | None) -> Change:
    scope, dataset, mode, head, loss = key
    place = (scope, dataset, mode, head, loss)
    if now is None or before is None:
        return Change(*place, before, now, None, None, "new" if before is None else "gone")
    if now == before:
        return Change(*place, before, now, 0.0, 0.0 if before else None, "same")
    change = now - before
    relative = change / abs(before) if before else None
    return Change(*place, before, now, change, relative, "worse" if now > before else "better")


def _badness(change: Change) -> tuple[int, float, tuple[str, ...]]:
    rise = change.relative if change.relative is not None else float("inf")
    place = (change.scope, change.dataset, change.control_mode, change.norm_head, change.loss)
    return _STATUS_ORDER.index(change.status), -rise, place
